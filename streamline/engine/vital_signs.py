"""How an open app stands: asked by probes, answered in bounded time whatever has happened to the database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Any, Final

from streamline.domain.health import Health, HealthCheck, summed_up
from streamline.engine.loops import end
from streamline.engine.runtime import Runtime
from streamline.engine.working.worker import ActiveWorker
from streamline.store import CALIBRATE_SECONDS

_STUCK_SECONDS: Final = 15.0
_SILENT_ROUNDS: Final = 4.0
_OLD_READINGS: Final = 5.0

Tasks = Collection[asyncio.Task[None]]


class VitalSigns:
    """Looks at an app's parts. What it tells is what holds now: nothing is remembered that could stay wrong.

    Args:
        runtime: The app's parts.
        worker: The worker of this process, if it has one.
        loops: The app's other loops.
    """

    def __init__(self, runtime: Runtime, worker: ActiveWorker | None, loops: Callable[[], Tasks]) -> None:
        self._runtime = runtime
        self._worker = worker
        self._loops = loops
        self._ping: asyncio.Task[None] | None = None
        self._read_at = runtime.clock.monotonic()
        self._offset = timedelta()

    def calibrated(self, offset: timedelta) -> None:
        """Note by how much this machine's clock was behind the server's, when it was read just now."""
        self._read_at, self._offset = self._runtime.clock.monotonic(), offset

    async def look(self, seconds: float) -> Health:
        """Return how the app stands, after so many seconds at the latest."""
        checks = {"database": await self._database(seconds)}
        if self._worker is not None:
            checks["worker"] = self._work(self._worker)
        if self._runtime.wakes is not None:
            checks["wakes"] = self._hearing()
        return summed_up({**checks, "clock": self._clock(), "loops": self._background()})

    async def close(self) -> None:
        """Ask no longer."""
        if self._ping is not None:
            await end([self._ping])

    async def _database(self, seconds: float) -> HealthCheck:
        """Ask the primary; those who ask while somebody does share the answer, so that probes never pile up."""
        began = self._runtime.clock.monotonic()
        ping = self._ping
        if ping is None:
            # Whoever asks gives up when their own time is over; the question is bound as any other call.
            ping = self._ping = asyncio.ensure_future(self._runtime.store.driver.ping())
            ping.add_done_callback(self._pinged)
        await asyncio.wait((ping,), timeout=seconds)
        took = self._runtime.clock.monotonic() - began
        if not ping.done():
            return HealthCheck("down", f"no answer within {seconds:g} s", {"waited_seconds": took})
        error = asyncio.CancelledError() if ping.cancelled() else ping.exception()
        if error is not None:
            return HealthCheck("down", f"no answer: {type(error).__name__}", {"waited_seconds": took})
        return HealthCheck("ok", "the primary answers", {"answer_seconds": took})

    def _pinged(self, ping: asyncio.Task[None]) -> None:
        self._ping = None
        if not ping.cancelled():
            ping.exception()  # it is told to whoever waits, if anybody still does

    def _work(self, worker: ActiveWorker) -> HealthCheck:
        pulses = worker.pulses
        details: dict[str, Any] = {
            "runs": len(worker.crew.holdings),
            "concurrency": worker.settings.concurrency,
            **{f"{name}_age_seconds": age for name, age in worker.ages().items() if age is not None},
        }
        if ended := [pulse.name for pulse in pulses if pulse.task.done()]:
            return HealthCheck("down", f"no longer at work: {', '.join(ended)}", details)
        if failing := [pulse.name for pulse in pulses if pulse.is_failing]:
            return HealthCheck("degraded", f"failing, and trying again: {', '.join(failing)}", details)
        if stuck := [pulse.name for pulse in pulses if pulse.under_way > _STUCK_SECONDS]:
            return HealthCheck("degraded", f"slow: {', '.join(stuck)}", details)
        return HealthCheck("ok", f"drives {details['runs']} of {details['concurrency']} runs", details)

    def _hearing(self) -> HealthCheck:
        assert self._runtime.wakes is not None
        age = self._runtime.clock.monotonic() - self._runtime.wakes.heard_at
        details = {"heard_age_seconds": age}
        if age > _SILENT_ROUNDS * self._runtime.store.driver.wait_seconds:
            return HealthCheck("degraded", "not listening: runs are found by looking for them", details)
        return HealthCheck("ok", "listening", details)

    def _clock(self) -> HealthCheck:
        age = self._runtime.clock.monotonic() - self._read_at
        details = {"offset_seconds": self._offset.total_seconds(), "read_age_seconds": age}
        if age > _OLD_READINGS * CALIBRATE_SECONDS:
            return HealthCheck("degraded", "the server's clock was not read for long", details)
        return HealthCheck("ok", "set to the server's time", details)

    def _background(self) -> HealthCheck:
        ended = sum(task.done() for task in self._loops())
        if ended:
            return HealthCheck("degraded", f"{ended} of the app's loops have ended", {"ended": ended})
        return HealthCheck("ok", "all at work", {"ended": 0})
