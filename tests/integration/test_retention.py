"""Every run that has ended says when and why, and when it may go."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from streamline import Context, NonRetriableError, Workflow
from tests.waiting import eventually


def ending(**options: Any) -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow("ending", **options)

    @wf.step
    async def end(ctx: Context[Any]) -> None:
        if ctx.input == "failed":
            raise NonRetriableError("as told")
        if ctx.input == "cancelled":
            await asyncio.sleep(60)

    return wf


async def ended(app: Any, status: str) -> Any:
    handle = await app.start("ending", status)
    if status == "cancelled":
        await handle.cancel()
    run = await handle.wait("20s")
    assert run.status == status
    return run


@pytest.mark.parametrize("status", ["done", "failed", "cancelled"])
async def test_a_run_that_has_ended_says_when_why_and_until_when_it_is_kept(
    make_app: Any, runs: Any, status: str
) -> None:
    async with make_app(ending(retention="7d")) as app:
        run = await ended(app, status)
        stored = await runs.find_one({"_id": run.id})
    assert run.ended_at is not None
    assert (run.error is None) == (status == "done")
    assert run.expire_at == run.ended_at + timedelta(days=7)
    assert not stored.keys() & {"lease", "due_at", "active_key", "paused"}


@pytest.mark.parametrize(
    ("status", "kept"), [("done", timedelta(hours=1)), ("failed", None), ("cancelled", timedelta(minutes=10))]
)
async def test_retention_may_differ_by_status(make_app: Any, status: str, kept: timedelta | None) -> None:
    async with make_app(ending(retention={"done": "1h", "cancelled": 600})) as app:
        run = await ended(app, status)
    assert run.expire_at == (None if kept is None else run.ended_at + kept)


async def test_without_retention_runs_are_kept(make_app: Any) -> None:
    async with make_app(ending()) as app:
        assert (await ended(app, "done")).expire_at is None


@pytest.mark.slow
async def test_the_server_removes_runs_whose_time_is_over(make_app: Any, runs: Any) -> None:
    async with make_app(ending(retention={"done": "1s"})) as app:
        gone, kept = await ended(app, "done"), await ended(app, "failed")

        async def only_one_is_left() -> bool:
            return [document["_id"] async for document in runs.find({}, {"_id": 1})] == [kept.id]

        await eventually(only_one_is_left, within=90)
        assert gone.id != kept.id
