"""Looking for due runs: at once when something says so, when the next one is known to fall due, or after a while."""

from __future__ import annotations

import asyncio
import math
import random
from contextlib import suppress
from datetime import datetime

from streamline.engine.claimer import Claimer
from streamline.engine.crew import Crew
from streamline.engine.runtime import Runtime
from streamline.settings import Worker

_GATHER_SECONDS = 0.002


class Scheduler:
    """Claims due runs while there is room for them."""

    def __init__(self, runtime: Runtime, settings: Worker, claimer: Claimer, crew: Crew) -> None:
        self._runtime = runtime
        self._settings = settings
        self._claimer = claimer
        self._crew = crew
        self._changed = asyncio.Event()
        self._now = False
        self._alarm: datetime | None = None

    def look_at(self, instant: datetime) -> None:
        """Look again at `instant`, or now where that has come: something falls due then."""
        if instant <= self._runtime.clock.now():
            self._now = True
        elif self._alarm is None or instant < self._alarm:
            self._alarm = instant
        self._changed.set()

    async def run_once(self) -> float:
        """Claim what is due and fits; return the seconds until the next look is worthwhile."""
        room = await self._room()
        self._now = False
        if self._seconds_to_alarm() <= 0:
            self._alarm = None
        runs, more = await self._claimer.due(min(room, self._settings.claim_batch))
        for run in runs:
            self._crew.take(run, self._settings.lease_seconds)
        return 0.0 if more else await self._pause()

    async def wait(self, seconds: float) -> None:
        """Return after `seconds`, or when `look_at` says that there is something to find."""
        deadline = self._runtime.clock.monotonic() + seconds
        while not self._now:
            left = min(deadline - self._runtime.clock.monotonic(), self._seconds_to_alarm())
            if left <= 0:
                return
            self._changed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)

    async def _room(self) -> int:
        """Wait until runs fit; a backlog is better taken in batches than one by one, so let a little room gather."""
        while not self._crew.room:
            await self._crew.made_room()
        if self._crew.room < self._settings.concurrency // 4:
            await self._runtime.clock.sleep(_GATHER_SECONDS)
        return max(1, self._crew.room)

    async def _pause(self) -> float:
        horizon = self._settings.poll_seconds
        found = await self._claimer.next_due(horizon)
        if found is None:
            return horizon * random.uniform(0.8, 1.0)
        return max(0.001, (found - self._runtime.clock.now()).total_seconds())

    def _seconds_to_alarm(self) -> float:
        if self._alarm is None:
            return math.inf
        return (self._alarm - self._runtime.clock.now()).total_seconds()
