"""The runs that a worker drives at the moment, each in a task of its own, never more than there is room for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from streamline.domain.statuses import TERMINAL
from streamline.engine.driving.executor import Executor
from streamline.engine.held.holding import Holding
from streamline.engine.runtime import Runtime
from streamline.settings import Worker
from streamline.telemetry import TELEMETRY, about

logger = logging.getLogger("streamline.engine")

_RESERVED_PAUSE = 0.01


class Crew:
    """Holds runs and drives them; a slow one delays nobody.

    Args:
        runtime: The app's parts.
        executor: Drives one run.
        settings: How many runs are driven at once, and claimed by one statement.
        on_parked: Told when a run that was driven here falls due again.
    """

    def __init__(
        self, runtime: Runtime, executor: Executor, settings: Worker, on_parked: Callable[[dict[str, Any]], None]
    ) -> None:
        self._runtime = runtime
        self._executor = executor
        self._settings = settings
        self._on_parked = on_parked
        self._reserved = 0
        self._tasks: dict[asyncio.Task[None], Holding] = {}
        self._by_run: dict[str, Holding] = {}
        self._reading: set[asyncio.Future[None]] = set()
        self._room_made = asyncio.Event()

    @property
    def room(self) -> int:
        """How many more runs fit."""
        return max(0, self._settings.concurrency - len(self._tasks) - self._reserved)

    @property
    def limit(self) -> int:
        """How many runs the next claim may take."""
        return min(self.room, self._settings.claim_batch)

    @property
    def holdings(self) -> list[Holding]:
        """The runs that are driven."""
        return list(self._tasks.values())

    def held(self, run_id: str) -> dict[str, Any] | None:
        """Return a run that is driven here, as its driver knows it, or None."""
        holding = self._by_run.get(run_id)
        return None if holding is None else holding.run

    def lose(self, run_id: str, token: str) -> None:
        """Give up a run that somebody has ended, if it is still held under this lease."""
        holding = self._by_run.get(run_id)
        if holding is not None and holding.token == token:
            holding.lose("cancelled")

    def refresh(self, run_id: str) -> None:
        """Read a run again that somebody has written, if it is driven here."""
        holding = self._by_run.get(run_id)
        if holding is not None and holding.on_news is not None:
            reading = asyncio.ensure_future(holding.refresh())
            self._reading.add(reading)
            reading.add_done_callback(self._reading.discard)

    def reserve(self, wanted: int) -> int:
        """Keep places for runs that are about to be claimed; return how many of those wanted there are."""
        kept = min(wanted, self.room)
        self._reserved += kept
        return kept

    def unreserve(self, kept: int) -> None:
        """Give reserved places back, to be filled or not."""
        self._reserved -= kept
        self._room_made.set()

    async def made_room(self) -> None:
        """Return when a place has become free."""
        while not self.room:
            self._room_made.clear()
            await self._room_made.wait()

    def take(
        self, run: dict[str, Any], safe_until: float, *, tell: bool = True, due_at: datetime | None = None
    ) -> None:
        """Drive a run that this worker has claimed.

        Args:
            run: The document.
            safe_until: Monotonic instant from which on the lease cannot be relied upon.
            tell: Whether other processes are told of its end: somebody else may have started it, and wait.
            due_at: Since when it had waited to be taken, where it had.
        """
        if TELEMETRY.meters is not None:
            TELEMETRY.meters.taken(run, due_at)
        definition = self._runtime.registry.by_route(run["route"])
        holding = Holding(self._runtime, run, definition, safe_until)
        task = asyncio.ensure_future(self._executor.drive(holding))
        self._tasks[task] = holding
        self._by_run[run["_id"]] = holding
        task.add_done_callback(partial(self._done, tell))

    async def finish(self, timeout: float | None) -> None:
        """Return when no run is driven or about to be any more, or after `timeout` seconds."""
        deadline = None if timeout is None else self._runtime.clock.monotonic() + timeout
        while self._tasks or self._reserved:
            left = None if deadline is None else deadline - self._runtime.clock.monotonic()
            if left is not None and left <= 0:
                return
            if self._tasks:
                await asyncio.wait(tuple(self._tasks), timeout=left)
            else:
                await self._runtime.clock.sleep(_RESERVED_PAUSE)

    def abandon(self) -> None:
        """Stop driving what could not be released: the database is away, and the leases will run out."""
        for task in self._tasks:
            task.cancel()

    async def progress(self, timeout: float | None) -> None:
        """Return when one of the runs is no longer driven, or after `timeout` seconds."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)

    def _done(self, tell: bool, task: asyncio.Task[None]) -> None:
        holding = self._tasks.pop(task)
        run = holding.run
        if self._by_run.get(run["_id"]) is holding:
            del self._by_run[run["_id"]]
        if not task.cancelled() and task.exception() is not None:
            said, error = "run %s: the executor failed; its lease will run out", task.exception()
            logger.error(said, run["_id"], exc_info=error, extra=about(run))
        if isinstance(run.get("due_at"), datetime):
            self._on_parked(run)
        self._room_made.set()
        if run.get("status") not in TERMINAL:
            self._runtime.bus.touch(run["_id"])
            return
        self._runtime.bus.ended(run)
        if tell and self._runtime.wakes is not None:
            self._runtime.wakes.ended(run["_id"])
