"""Recovery: a run whose worker no longer beats is taken over by the same kind of claim as a due one."""

from __future__ import annotations

import random

from streamline.clock import Clock
from streamline.engine.driving.crew import Crew
from streamline.engine.working.claimer import Claimed, Claimer
from streamline.settings import Worker


class Sweeper:
    """Looks for expired leases, about as often as this worker beats, however busy it is with due runs."""

    def __init__(self, clock: Clock, settings: Worker, claimer: Claimer, crew: Crew) -> None:
        self._clock = clock
        self._settings = settings
        self._claimer = claimer
        self._crew = crew
        self._next_sweep = 0.0

    def seconds_left(self) -> float:
        """Return the seconds until the next sweep."""
        return max(0.0, self._next_sweep - self._clock.monotonic())

    async def sweep(self) -> Claimed:
        """Take over lost runs that fit, if a sweep is due."""
        limit = self._crew.limit
        if self.seconds_left() > 0 or not limit:
            return Claimed()
        lost = await self._claimer.expired(limit)
        if not lost.more:
            self._next_sweep = self._clock.monotonic() + self._settings.beat_seconds * random.uniform(0.8, 1.2)
        return lost
