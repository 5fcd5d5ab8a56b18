"""Hearing the wakes of other processes; a hint that is lost costs a pause, nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from streamline.bus import Bus
from streamline.clock import Clock
from streamline.engine.loops import Breaker
from streamline.engine.registry import Registry
from streamline.store import Wake, WakeChannel

logger = logging.getLogger("streamline.engine")

_REOPEN_SECONDS = 0.2


class Listening:
    """Passes on what other processes say to the scheduler, the crews and whoever waits for a run."""

    def __init__(
        self, wakes: WakeChannel, clock: Clock, registry: Registry, bus: Bus, look_at: Callable[[datetime], None]
    ) -> None:
        self._wakes = wakes
        self._clock = clock
        self._registry = registry
        self._bus = bus
        self._look_at = look_at

    async def run(self) -> None:
        """Listen until cancelled; where the server ends the cursor or is away, begin again."""
        breaker = Breaker()
        while True:
            try:
                async for wake in self._wakes.listen():
                    breaker.succeeded()
                    self._hear(wake)
                pause = _REOPEN_SECONDS
            except Exception as error:  # noqa: BLE001 - a hint is not worth the worker
                logger.debug("listening failed: %s", type(error).__name__)
                pause = breaker.failed()
            await self._clock.sleep(pause)

    def _hear(self, wake: Wake) -> None:
        served = [at for route, at in wake.due.items() if route in self._registry.routes]
        if served:
            self._look_at(min(served))
        for run_id in wake.ended:
            self._bus.touch(run_id)
        for run_id in wake.news:
            self._bus.news(run_id)
        for name in wake.hints:
            self._bus.hint(name)
        for run_id, token in wake.fenced:
            self._bus.touch(run_id)
            self._bus.fence(run_id, token)
