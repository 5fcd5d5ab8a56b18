"""Driving a held run: decide, invoke, turn the outcome into a change, commit, repeat."""

from __future__ import annotations

import logging
import random
from concurrent.futures import ThreadPoolExecutor

from streamline.domain.decisions import (
    Completed,
    Interrupted,
    check_run,
    conclude,
    dead_letter,
    next_step,
    recoveries_of_step,
)
from streamline.domain.failures import describe
from streamline.domain.payloads import Encoded
from streamline.domain.transitions import stepping
from streamline.domain.transitions.stepping import Ending
from streamline.engine.attempt import Attempt
from streamline.engine.holding import Holding
from streamline.engine.runtime import Runtime
from streamline.errors import HeartbeatLost, StreamlineError
from streamline.settings import Worker

logger = logging.getLogger("streamline.engine")


class Executor:
    """Drives held runs until they end, are parked, or are lost."""

    def __init__(self, runtime: Runtime, settings: Worker, threads: ThreadPoolExecutor) -> None:
        self.runtime = runtime
        self.settings = settings
        self.threads = threads

    async def drive(self, holding: Holding) -> None:
        """Do for the run whatever there is to do while it is held."""
        try:
            check_run(holding.run)
            while not holding.over:
                await self._step(holding)
        except HeartbeatLost:
            logger.info("run %s: the lease was lost; left to its new holder", holding.run["_id"])
        except StreamlineError as error:
            await self._quarantine(holding, error)

    async def _step(self, holding: Holding) -> None:
        if self.runtime.clock.monotonic() >= holding.safe_until:
            # Answered too late, or blocked too long: somebody else may have the run by now.
            holding.lose()
            return
        step = next_step(holding.run, holding.definition)
        if recoveries_of_step(holding.run) > self.settings.max_recoveries:
            await holding.commit(lambda run: dead_letter(run, self._ending(holding)))
            return
        attempt = Attempt(self.runtime, self.settings, self.threads, holding, step)
        outcome = Interrupted() if holding.stopping else await attempt.outcome()
        if outcome is None:
            holding.lose()
            return
        state = outcome.state if isinstance(outcome, Completed) else None
        chance = random.uniform(-1, 1)
        await holding.commit(lambda run: conclude(run, step, outcome, self._ending(holding, state), chance))

    def _ending(self, holding: Holding, state: Encoded | None = None) -> Ending:
        return Ending(self.runtime.clock.now(), state=state, go_on=not holding.stopping)

    async def _quarantine(self, holding: Holding, error: StreamlineError) -> None:
        logger.error("run %s cannot be driven and is failed: %s", holding.run["_id"], error)
        kept = describe(error, None, 0)
        try:
            await holding.commit(lambda run: stepping.quarantine(run, kept, self.runtime.clock.now()))
        except StreamlineError:
            logger.exception("run %s could not be failed", holding.run.get("_id"))
