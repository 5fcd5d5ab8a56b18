"""Group commit: the writes that concurrent runs hand in share commands.

A write that finds a free lane leaves at once, with whatever else was handed in during the same turn of the event loop;
while all lanes are in flight, writes gather for the next. There is no timer, so a lone write is never held back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from streamline.store.operations import Insert, Write

S = TypeVar("S", Write, Insert)
R = TypeVar("R")

WEIGHT_MAX = 8 * 1024 * 1024


class Lanes(Generic[S, R]):
    """Carries statements of one kind in batches.

    Args:
        send: Sends a batch and returns one answer per statement, an exception where one failed on its own.
        lanes: Batches in flight at once.
        batch: Statements in a batch at most.
    """

    def __init__(self, send: Callable[[list[S]], Awaitable[list[R | Exception]]], *, lanes: int, batch: int) -> None:
        self._send = send
        self._lanes = lanes
        self._batch = batch
        self._waiting: deque[tuple[S, asyncio.Future[R]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._scheduled = False

    async def carry(self, statement: S) -> R:
        """Send `statement` with others and return its answer; a cancelled caller does not take the write back."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[R] = loop.create_future()
        self._waiting.append((statement, answer))
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._dispatch)
        return await answer

    async def drain(self) -> None:
        """Return when everything that was handed in has been answered."""
        while self._tasks or self._waiting:
            await asyncio.wait(self._tasks) if self._tasks else await asyncio.sleep(0)  # noqa: TID251 - one turn of the loop

    def _dispatch(self) -> None:
        self._scheduled = False
        while self._waiting and len(self._tasks) < self._lanes:
            task = asyncio.ensure_future(self._deliver(self._take()))
            self._tasks.add(task)
            task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._dispatch()

    def _take(self) -> list[tuple[S, asyncio.Future[R]]]:
        taken, weight = [self._waiting.popleft()], 0
        while self._waiting and len(taken) < self._batch:
            weight += self._waiting[0][0].weight
            if weight > WEIGHT_MAX:
                break
            taken.append(self._waiting.popleft())
        return taken

    async def _deliver(self, batch: list[tuple[S, asyncio.Future[R]]]) -> None:
        try:
            answers = await self._send([statement for statement, _ in batch])
        except BaseException as error:  # noqa: BLE001 - whoever waits must hear of it, whatever it is
            answers = [error if isinstance(error, Exception) else ConnectionError(repr(error))] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
