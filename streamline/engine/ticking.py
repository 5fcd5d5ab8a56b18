"""One bounded pass without background tasks: for serverless functions, cron and tests."""

from __future__ import annotations

import asyncio
from datetime import datetime

from streamline.engine.control import Control
from streamline.engine.ended.closer import Closer
from streamline.engine.events.inbox_delivery import Delivery
from streamline.engine.log.relay import relay_all
from streamline.engine.loops import unbroken
from streamline.engine.runtime import Runtime
from streamline.engine.starting.starter import Starter
from streamline.engine.timetable import Timetable
from streamline.engine.working.worker import ActiveWorker
from streamline.settings import Worker


async def tick(runtime: Runtime, settings: Worker, *, max_runs: int | None, budget: float | None) -> int:
    """Drive the runs that are due now or have lost their worker, each until it ends or is parked.

    Args:
        runtime: The app's parts.
        settings: Concurrency, lease and graces of this pass.
        max_runs: Runs taken at most; None for all that are due when the pass begins.
        budget: Seconds after which no more runs are taken and unfinished ones are released; None for no limit.

    Returns:
        How many runs were taken.
    """
    worker = ActiveWorker(runtime, settings)
    deadline = None if budget is None else runtime.clock.monotonic() + budget
    worker.begin_to_beat()
    drain = 0.0
    try:
        await Closer(runtime, 0.0).run_once()
        await worker.lines.run_once()
        await worker.carrying_over.run_once()
        await Delivery(runtime, Control(runtime), Starter(runtime, None), 0.0).run_once()
        await Timetable(runtime, Starter(runtime, None), Control(runtime), settings.poll_seconds).catch_up()
        taken = await _take_all(runtime, worker, max_runs, deadline)
        drain = settings.drain_seconds if deadline is None else max(0.0, deadline - runtime.clock.monotonic())
        return taken
    finally:
        await asyncio.shield(worker.stop(drain))
        await relay_all(runtime)


async def _take_all(runtime: Runtime, worker: ActiveWorker, max_runs: int | None, deadline: float | None) -> int:
    began, taken = runtime.clock.now(), 0
    while deadline is None or runtime.clock.monotonic() < deadline:
        left = None if deadline is None else deadline - runtime.clock.monotonic()
        count = await unbroken(_take_some(worker, began, None if max_runs is None else max_runs - taken))
        taken += count
        if not worker.crew.holdings:
            return taken
        # What is full goes on when one run ends; where nothing more is due, all that is held is waited for.
        await (worker.crew.progress(left) if count else worker.crew.finish(left))
    return taken


async def _take_some(worker: ActiveWorker, began: datetime, allowed: int | None) -> int:
    def limit(taken: int) -> int:
        return worker.crew.limit if allowed is None else min(worker.crew.limit, allowed - taken)

    count = (await worker.claimer.expired(limit(0))).count if limit(0) else 0
    return count + ((await worker.claimer.due(limit(count), began)).count if limit(count) else 0)
