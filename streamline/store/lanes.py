"""Group commit: the writes that concurrent runs hand in share commands.

A write that finds a free lane leaves at once, with whatever else was handed in during the same turn of the event loop;
while all lanes are in flight, writes gather for the next. There is no timer, so a lone write is never held back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from streamline.errors import StoreUnavailable
from streamline.store.operations import Insert, Write

S = TypeVar("S", Write, Insert)
R = TypeVar("R")

_WORTH_HALVING = 16
# The driver encodes a command as one document of 16 MiB at most; a row is more than its users' values.
WEIGHT_MAX = 8 * 1024 * 1024
_ROW = 4096


def fitting(statements: Iterable[Write | Insert], most: int) -> int:
    """Return how many of the statements, at least one and at most `most`, one command may hold."""
    weight = 0
    for count, statement in enumerate(statements):
        weight += statement.weight + _ROW
        if count == most or (count and weight > WEIGHT_MAX):
            return count
    return most


class Traffic:
    """The commands of batched writes in flight, of all kinds together: few and large ones cost the server least."""

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self._queues: list[Lanes[Any, Any]] = []
        self.commands = 0

    @property
    def free(self) -> bool:
        """Whether another command may leave."""
        return self.commands < self._lanes

    @property
    def idle(self) -> bool:
        """Whether no command is in flight, and there is room for two."""
        return self.commands == 0 and self._lanes > 1

    def join(self, queue: Lanes[Any, Any]) -> None:
        """Let a kind of statement share the lanes."""
        self._queues.append(queue)

    def landed(self) -> None:
        """Let what waits go on, the longest queue first."""
        self.commands -= 1
        for queue in sorted(self._queues, key=lambda queue: -queue.waiting):
            queue.dispatch()


class Lanes(Generic[S, R]):
    """Carries statements of one kind in batches.

    Args:
        send: Sends a batch and returns one answer per statement, an exception where one failed on its own.
        traffic: The lanes, shared with other kinds of statement.
        batch: Statements in a batch at most.
    """

    def __init__(
        self, send: Callable[[list[S]], Awaitable[list[R | Exception]]], traffic: Traffic, *, batch: int
    ) -> None:
        self._send: Callable[[list[S]], Awaitable[list[R | Exception]]] = send
        self._traffic = traffic
        self._batch = batch
        self._queue: deque[tuple[S, asyncio.Future[R]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._scheduled = False
        traffic.join(self)

    @property
    def waiting(self) -> int:
        """How many statements wait for a lane."""
        return len(self._queue)

    def carry(self, statement: S) -> asyncio.Future[R]:
        """Send `statement` with others and return its answer to come; giving that up does not take the write back."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[R] = loop.create_future()
        self._queue.append((statement, answer))
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self.dispatch)
        return answer

    async def drain(self) -> None:
        """Return when everything that was handed in has been answered."""
        while self._tasks or self._queue:
            await asyncio.wait(self._tasks) if self._tasks else await asyncio.sleep(0)  # noqa: TID251 - one turn of the loop

    def dispatch(self) -> None:
        """Send what waits, as far as lanes are free."""
        self._scheduled = False
        while self._queue and self._traffic.free:
            batch = self._take()
            self._traffic.commands += 1
            task = asyncio.ensure_future(self._deliver(batch))
            self._tasks.add(task)
            task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._traffic.landed()

    def _take(self) -> list[tuple[S, asyncio.Future[R]]]:
        count = fitting((statement for statement, _ in self._queue), self._share())
        return [self._queue.popleft() for _ in range(count)]

    def _share(self) -> int:
        """Where no command is in flight, half of many leaves first: the server works on it while the rest is sent."""
        waiting = len(self._queue)
        if self._traffic.idle and waiting >= _WORTH_HALVING:
            waiting = (waiting + 1) // 2
        return min(self._batch, waiting)

    async def _deliver(self, batch: list[tuple[S, asyncio.Future[R]]]) -> None:
        try:
            answers = await self._send([statement for statement, _ in batch])
        except StoreUnavailable as error:
            answers = [error] * len(batch)
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it, whatever it is
            if len(batch) > 1:
                # Only one of them can be to blame; the others must not suffer for sharing its command.
                middle = len(batch) // 2
                await self._deliver(batch[:middle])
                await self._deliver(batch[middle:])
                return
            answers = [error]
        except BaseException:
            for _, future in batch:
                future.cancel()
            raise
        _settle([future for _, future in batch], answers)


def _settle(futures: list[asyncio.Future[Any]], answers: Sequence[Any]) -> None:
    for future, answer in zip(futures, answers, strict=True):
        if future.done():
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
