"""Looking for runs to take: at once when something says so, when the next is known to fall due, or after a while."""

from __future__ import annotations

import asyncio
import math
import random
from datetime import datetime

from streamline.engine.driving.crew import Crew
from streamline.engine.runtime import Runtime
from streamline.engine.working.claimer import Claimed, Claimer
from streamline.engine.working.sweeper import Sweeper
from streamline.settings import Worker

_GATHER_SECONDS = 0.002
_CROWDED_SECONDS = (0.002, 0.01)


class Scheduler:
    """Claims runs while there is room for them: those that lost their worker first, then the due ones.

    Attributes:
        backlog: Whether the last look left something over.
    """

    def __init__(self, runtime: Runtime, settings: Worker, claimer: Claimer, sweeper: Sweeper, crew: Crew) -> None:
        self._runtime = runtime
        self._settings = settings
        self._claimer = claimer
        self._sweeper = sweeper
        self._crew = crew
        self._news: asyncio.Future[None] | None = None
        self._now = False
        self._alarm: datetime | None = None
        self.backlog = False

    def look_at(self, instant: datetime) -> None:
        """Look again at `instant`, or now where that has come: something falls due then."""
        if instant <= self._runtime.clock.now():
            self._now = True
        elif self._alarm is None or instant < self._alarm:
            self._alarm = instant
        if self._news is not None:
            settle(self._news)

    async def run_once(self) -> float:
        """Claim what is up for taking and fits; return the seconds until the next look is worthwhile."""
        self._now = False
        if self._seconds_to_alarm() <= 0:
            self._alarm = None
        lost = await self._sweeper.sweep()
        limit = self._crew.limit
        due = await self._claimer.due(limit) if limit else Claimed(more=True)
        self.backlog = lost.more or due.more
        if not self.backlog:
            return await self._pause()
        # Where others took all that was found, meet them elsewhere in time.
        return 0.0 if lost.count or due.count or not limit else random.uniform(*_CROWDED_SECONDS)

    async def wait(self, seconds: float) -> None:
        """Return after `seconds`, or when `look_at` says that there is something to find, and runs fit."""
        await self._instant(seconds)
        await self._room()

    async def _instant(self, seconds: float) -> None:
        deadline = self._runtime.clock.monotonic() + seconds
        while not self._now:
            left = min(deadline - self._runtime.clock.monotonic(), self._seconds_to_alarm())
            if left <= 0:
                return
            await self._hear_news(left)

    async def _hear_news(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._news = loop.create_future()
        timer = loop.call_later(seconds, settle, self._news)
        try:
            await self._news
        finally:
            timer.cancel()
            self._news = None

    async def _room(self) -> None:
        """Wait until runs fit; a backlog is better taken in batches than one by one, so let a little room gather."""
        await self._crew.made_room()
        if self._crew.room < self._settings.concurrency // 4:
            await self._runtime.clock.sleep(_GATHER_SECONDS)

    async def _pause(self) -> float:
        horizon = self._settings.poll_seconds
        found = await self._claimer.next_due(horizon)
        if found is None:
            pause = horizon * random.uniform(0.8, 1.0)
        else:
            pause = max(0.001, (found - self._runtime.clock.now()).total_seconds())
        return min(pause, self._sweeper.seconds_left())

    def _seconds_to_alarm(self) -> float:
        if self._alarm is None:
            return math.inf
        return (self._alarm - self._runtime.clock.now()).total_seconds()


def settle(waiter: asyncio.Future[None]) -> None:
    """End a wait that has not ended yet."""
    if not waiter.done():
        waiter.set_result(None)
