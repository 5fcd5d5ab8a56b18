"""One bounded pass without background tasks: for serverless functions, cron and tests."""

from __future__ import annotations

import asyncio

from streamline.engine.runtime import Runtime
from streamline.engine.worker import ActiveWorker
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
    try:
        return await _take_all(runtime, worker, max_runs, deadline)
    finally:
        left = settings.drain_seconds if deadline is None else max(0.0, deadline - runtime.clock.monotonic())
        await asyncio.shield(worker.stop(left))


async def _take_all(runtime: Runtime, worker: ActiveWorker, max_runs: int | None, deadline: float | None) -> int:
    began, taken = runtime.clock.now(), 0
    while deadline is None or runtime.clock.monotonic() < deadline:
        left = None if deadline is None else deadline - runtime.clock.monotonic()
        limit = min(worker.crew.room, worker.settings.claim_batch, *(() if max_runs is None else (max_runs - taken,)))
        runs = await worker.claimer.expired(limit) if limit else []
        if limit > len(runs):
            runs += (await worker.claimer.due(limit - len(runs), began))[0]
        for run in runs:
            worker.crew.take(run, worker.settings.lease_seconds)
        taken += len(runs)
        if runs or not limit:
            await worker.crew.progress(left)
        if not runs and not worker.crew.holdings:
            return taken
        if not runs:
            await worker.crew.finish(left)
    return taken
