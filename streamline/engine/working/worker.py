"""The worker of an app's process: its loops, from the first claim to the last release."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from typing import Any

from streamline.engine.asking.presence import Presence
from streamline.engine.driving.crew import Crew
from streamline.engine.driving.executor import Executor
from streamline.engine.driving.heartbeat import Heartbeat
from streamline.engine.gates.throttles import Throttles
from streamline.engine.loops import end
from streamline.engine.pulse import Pulse
from streamline.engine.runtime import Runtime
from streamline.engine.working.carrying_over import CarryingOver
from streamline.engine.working.claimer import Claimer
from streamline.engine.working.lines import Lines
from streamline.engine.working.queue_sampling import QueueSampling
from streamline.engine.working.scheduler import Scheduler
from streamline.engine.working.sweeper import Sweeper
from streamline.errors import StreamlineError
from streamline.ids import new_worker_id
from streamline.settings import Worker

logger = logging.getLogger("streamline.engine")


class ActiveWorker:
    """Takes and drives runs in the background of the app's own process."""

    def __init__(self, runtime: Runtime, settings: Worker) -> None:
        self.id = new_worker_id()
        self.settings = settings
        self._runtime = runtime
        self._threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="streamline-step")
        executor = Executor(runtime, settings, self._threads)
        self.crew = Crew(runtime, executor, settings, self._parked)
        self.throttles = Throttles(runtime)
        self.claimer = Claimer(runtime, settings, self.id, self.crew, self.throttles)
        self.lines = Lines(runtime, self._room, self.claimer.admission, self.throttles, settings)
        sweeper = Sweeper(runtime.clock, settings, self.claimer, self.crew)
        self.scheduler = Scheduler(runtime, settings, self.claimer, sweeper, self.crew)
        self.heartbeat = Heartbeat(runtime, settings, lambda: self.crew.holdings)
        self.presence = Presence(runtime, self.id)
        self.carrying_over = CarryingOver(runtime, settings.poll_seconds)
        self._forget = (
            runtime.bus.on_fence(self.crew.lose),
            runtime.bus.on_due(self.look_at),
            runtime.bus.on_news(self.crew.refresh),
            self.lines.listen(),
            runtime.facts.on_change(lambda: self.look_at(runtime.clock.now())),
        )
        self.sampling = QueueSampling(runtime)
        self.pulses: list[Pulse] = []
        self._accepting = False

    def start(self) -> None:
        """Begin to take runs."""
        self._accepting = True
        self._spawn("looking for runs", self.scheduler.run_once, self.scheduler.wait)
        self._spawn("calling up runs", self.lines.run_once, self.lines.wait)
        self._spawn("telling of the worker", self.presence.run_once, self._runtime.clock.sleep)
        self._spawn("measuring the queue", self.sampling.run_once, self._runtime.clock.sleep)
        self._spawn("carrying runs over", self.carrying_over.run_once, self._runtime.clock.sleep)
        self.begin_to_beat()

    def begin_to_beat(self) -> None:
        """Keep the leases of the runs that are held."""
        self._spawn("the heartbeat", self.heartbeat.run_once, self._runtime.clock.sleep)

    async def stop(self, drain: float) -> None:
        """Take no more runs, let the held ones finish for `drain` seconds, then end and release them."""
        self._accepting = False
        *takers, beating = (pulse.task for pulse in self.pulses)
        await end(takers)
        if takers:
            with suppress(StreamlineError):  # the server forgets it in time
                await self.presence.leave()
        await self.crew.finish(drain)
        for holding in self.crew.holdings:
            holding.stop()
        await self.crew.finish(self.settings.grace_seconds + self.settings.beat_seconds)
        self.crew.abandon()
        for forget in self._forget:
            forget()
        self.sampling.stop()
        await self.lines.settle()
        await end([beating])
        self._threads.shutdown(wait=False, cancel_futures=True)

    def reserve(self) -> bool:
        """Keep a place for a run that is about to be inserted as claimed, unless others wait for one."""
        return self._accepting and not self.scheduler.backlog and self.crew.reserve(1) == 1

    def ages(self) -> dict[str, float | None]:
        """Return how many seconds ago this worker looked for runs, and beat, last."""
        looking, *_, beating = self.pulses
        return {"look": looking.age, "beat": beating.age}

    def look_at(self, instant: datetime) -> None:
        """Something falls due at an instant."""
        if self._accepting:
            self.scheduler.look_at(instant)

    def _room(self) -> int:
        return self.crew.room if self._accepting else 0

    def _parked(self, run: dict[str, Any]) -> None:
        if self._accepting:
            self.scheduler.look_at(run["due_at"])
        elif self._runtime.wakes is not None:
            self._runtime.wakes.due(run["route"], run["due_at"])

    def _spawn(
        self, name: str, run_once: Callable[[], Awaitable[float]], wait: Callable[[float], Awaitable[None]]
    ) -> None:
        self.pulses.append(Pulse(name, self._runtime.clock, run_once, wait))
