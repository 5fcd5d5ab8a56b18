"""Recovery: a run whose worker no longer beats is taken over by the same kind of claim as a due one."""

from __future__ import annotations

import logging
import random
from typing import Any

from streamline.clock import Clock
from streamline.engine.claimer import Claimer
from streamline.settings import Worker

logger = logging.getLogger("streamline.engine")


class Sweeper:
    """Looks for expired leases, about as often as this worker beats, however busy it is with due runs."""

    def __init__(self, clock: Clock, settings: Worker, claimer: Claimer) -> None:
        self._clock = clock
        self._settings = settings
        self._claimer = claimer
        self._next_sweep = 0.0

    def seconds_left(self) -> float:
        """Return the seconds until the next sweep."""
        return max(0.0, self._next_sweep - self._clock.monotonic())

    async def sweep(self, room: int) -> tuple[list[dict[str, Any]], bool]:
        """Take over lost runs that fit, if a sweep is due; return them, and whether there may be more."""
        if self.seconds_left() > 0:
            return [], False
        limit = min(room, self._settings.claim_batch)
        runs = await self._claimer.expired(limit)
        for run in runs:
            logger.warning("run %s: its worker was lost; recovering (%d)", run["_id"], run["recovery_count"])
        more = len(runs) == limit
        if not more:
            self._next_sweep = self._clock.monotonic() + self._settings.beat_seconds * random.uniform(0.8, 1.2)
        return runs, more
