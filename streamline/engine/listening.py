"""Hearing the wakes of other processes; a hint that is lost costs a pause, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from streamline.bus import Bus
from streamline.engine.crew import Crew
from streamline.engine.registry import Registry
from streamline.store import Wake, WakeChannel

_REOPEN_SECONDS = 0.2


class Listening:
    """Passes on what other processes say to the scheduler, the crew and whoever waits for a run."""

    def __init__(
        self, wakes: WakeChannel, registry: Registry, bus: Bus, crew: Crew | None, look_at: Callable[[datetime], None]
    ) -> None:
        self._wakes = wakes
        self._registry = registry
        self._bus = bus
        self._crew = crew
        self._look_at = look_at

    async def run_once(self) -> float:
        """Listen until the server ends the cursor; return the pause before the next."""
        async for wake in self._wakes.listen():
            self._hear(wake)
        return _REOPEN_SECONDS

    def _hear(self, wake: Wake) -> None:
        served = [at for route, at in wake.due.items() if route in self._registry.routes]
        if served:
            self._look_at(min(served))
        for run_id in wake.ended:
            self._bus.touch(run_id)
        for run_id in wake.fenced:
            self._bus.touch(run_id)
            if self._crew is not None:
                self._crew.lose(run_id)
