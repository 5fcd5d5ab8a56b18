"""An app that is left in the middle of things leaves nothing behind that only a lease's end could free."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamline import Context, Worker, Workflow


@pytest.mark.parametrize("after", [0.0, 0.005, 0.02, 0.05, 0.1])
async def test_a_claim_in_flight_is_released_and_not_orphaned(make_app: Any, runs: Any, after: float) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("quick")

    @wf.step
    async def only(ctx: Context[Any]) -> None:
        await asyncio.sleep(0.01)

    async with make_app(wf, worker=False) as starting:
        await starting.start_many(wf, [None] * 600)
    async with make_app(wf, worker=Worker(lease="60s", concurrency=20, drain="100ms")):
        await asyncio.sleep(after)
    assert await runs.count_documents({"status": "running"}) == 0
    assert await runs.count_documents({"lease": {"$exists": True}}) == 0
    assert await runs.count_documents({"recovery_count": {"$gt": 0}}) == 0


async def test_a_start_that_is_under_way_is_driven_or_released(make_app: Any, runs: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("late")

    @wf.step
    async def only(ctx: Context[Any]) -> int:
        return 1

    async with make_app(wf, worker=Worker(lease="60s")) as app:
        starts = [asyncio.ensure_future(app.start(wf)) for _ in range(30)]
        await asyncio.sleep(0)
    await asyncio.gather(*starts, return_exceptions=True)
    assert await runs.count_documents({"status": "running"}) == 0
    assert not [task for task in asyncio.all_tasks() if "Executor.drive" in repr(task)]


async def test_a_cancelled_tick_orphans_no_claim(make_app: Any, runs: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("ticked")

    @wf.step
    async def only(ctx: Context[Any]) -> None:
        await asyncio.sleep(0.01)

    async with make_app(wf, worker=False) as app:
        await app.start_many(wf, [None] * 300)
        for pause in (0.0, 0.002, 0.01, 0.03):
            ticking = asyncio.ensure_future(app.tick())
            await asyncio.sleep(pause)
            ticking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await ticking
            assert await runs.count_documents({"status": "running"}) == 0
