"""Every run that has ended says when and why, and when it may go."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from streamline import Context, NonRetriableError, Workflow
from streamline.errors import IllegalTransition
from tests.clocks import MovableClock
from tests.waiting import eventually, status_of


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


def sure(status: str) -> Workflow[Any, Any, Any]:
    """A workflow whose run ends so, with a memo beside it."""
    undone = {"failed"} if status.startswith("compensat") else set[str]()
    wf: Workflow[Any, Any, Any] = Workflow(status, retention="1s", compensate_on=undone)

    @wf.step
    async def first(ctx: Context[Any]) -> None: ...

    @first.compensate
    async def undo(ctx: Context[Any], output: None) -> None:
        if ctx.input == "compensation_failed":
            raise NonRetriableError("cannot be undone")

    @wf.step(max_attempts=1)
    async def end(ctx: Context[Any]) -> None:
        async def call() -> str:
            return "x" * 70_000

        for key in ("a", "b"):
            await ctx.call(key, call)
        if ctx.input == "cancelled":
            await ctx.wait("for the end")
        if ctx.input != "done":
            raise NonRetriableError("as told")

    return wf


STATUSES = ("done", "failed", "cancelled", "compensated", "compensation_failed")


@pytest.mark.slow
async def test_the_server_removes_runs_whose_time_is_over_however_they_ended(
    make_app: Any, runs: Any, database: Any
) -> None:
    memo, kept = database["streamline.memo"], ending(retention={"done": "1s"})
    async with make_app(kept, *(sure(status) for status in STATUSES)) as app:
        stays = await ended(app, "failed")
        for status in STATUSES:
            handle = await app.start(status, status)
            if status == "cancelled":
                await status_of(handle, "waiting")
                await handle.cancel()
            run = await handle.wait("20s")
            assert run.status == status
            assert run.ended_at is not None
            assert (run.error is None) == (status == "done")

        async def only_one_is_left() -> bool:
            return [document["_id"] async for document in runs.find({}, {"_id": 1})] == [stays.id]

        await eventually(only_one_is_left, within=90)
        # What lies beside them goes a moment later, by an index of the same kind.
        assert not await memo.count_documents({"expire_at": {"$exists": False}})


async def test_a_run_that_is_begun_anew_loses_its_last_day_and_gets_another(make_app: Any, runs: Any) -> None:
    clock = MovableClock()
    async with make_app(ending(retention="1h"), clock=clock) as app:
        run = await ended(app, "failed")
        for again in (app.retry(run.id), app.rewind(run.id, "end")):
            clock.move(minutes=50)
            await app.pause_workflow("ending")
            await again
            stored = await runs.find_one({"_id": run.id})
            assert stored["status"] == "waiting"
            assert not stored.keys() & {"expire_at", "ended_at"}
            await app.unpause_workflow("ending")
            later = await app.wait_for_run(run.id, "20s")
            assert later.expire_at == later.ended_at + timedelta(hours=1)
            assert later.ended_at > run.ended_at + timedelta(minutes=49)


async def test_a_run_whose_time_is_over_is_not_begun_anew(make_app: Any, runs: Any) -> None:
    clock = MovableClock()
    async with make_app(ending(retention="1h"), clock=clock) as app:
        run = await ended(app, "failed")
        before = await runs.find_one({"_id": run.id})
        clock.move(minutes=61)
        for again in (app.retry(run.id), app.rewind(run.id, "end")):
            with pytest.raises(IllegalTransition) as refused:
                await again
            assert refused.value.field == "expire_at"
        assert await runs.find_one({"_id": run.id}) == before
        assert await app.delete(run.id) == 1
