"""Recovery: a run whose worker no longer beats is taken over by the same kind of claim as a due one."""

from __future__ import annotations

import logging
import random

from streamline.engine.claimer import Claimer
from streamline.engine.crew import Crew
from streamline.settings import Worker

logger = logging.getLogger("streamline.engine")


class Sweeper:
    """Looks for expired leases, about as often as this worker beats."""

    def __init__(self, settings: Worker, claimer: Claimer, crew: Crew) -> None:
        self._settings = settings
        self._claimer = claimer
        self._crew = crew

    async def run_once(self) -> float:
        """Take over lost runs while there is room; return the seconds until the next look."""
        room = min(self._crew.room, self._settings.claim_batch)
        runs = await self._claimer.expired(room) if room else []
        for run in runs:
            logger.warning("run %s: its worker was lost; recovering (%d)", run["_id"], run["recovery_count"])
            self._crew.take(run, self._settings.lease_seconds)
        if room and len(runs) == room:
            return 0.0
        return self._settings.beat_seconds * random.uniform(0.8, 1.2)
