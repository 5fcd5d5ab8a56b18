"""Removing the runs whose time is over: all of theirs, nobody else's, however often and by how many."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streamline import Context, NonRetriableError, Tenancy, Workflow
from streamline.engine.ended.purging import sweep_memos
from streamline.errors import InvalidName, InvalidQuery, WorkflowNotFound
from tests.clocks import MovableClock
from tests.integration.kin import Held
from tests.integration.test_deleting import waiting_family
from tests.waiting import PATIENCE, eventually, status_of

LATER = datetime.now(UTC) + timedelta(days=365)


def flow(retention: Any = None, name: str = "flow", version: str = "1.0.0") -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow(name, version=version, retention=retention)

    @wf.step(max_attempts=1)
    async def end(ctx: Context[Any]) -> Any:
        async def call(n: int) -> str:
            return "x" * 40_000

        if ctx.input == "spilled":
            for n in range(3):
                await ctx.call(f"c{n}", call, n)
        if ctx.input == "wait":
            await ctx.wait("for ever")
        if ctx.input != "done":
            raise NonRetriableError("as told")

    return wf


async def ended(app: Any, *inputs: str, workflow: str = "flow") -> list[Any]:
    handles = await app.start_many(workflow, list(inputs))
    return [await handle.wait(PATIENCE) for handle in handles]


async def ids(runs: Any) -> set[str]:
    return {each["_id"] async for each in runs.find({}, {"_id": 1})}


async def test_a_changed_retention_reaches_runs_that_ended_under_the_old_one(make_app: Any, runs: Any) -> None:
    clock = MovableClock()
    async with make_app(flow("30d"), clock=clock) as app:
        done, failed = await ended(app, "done", "failed")
        assert await app.purge() == 0
    async with make_app(flow({"done": "1h"}, version="2.0.0"), worker=False, clock=clock) as app:
        clock.move(minutes=59)
        assert await app.purge() == 0
        clock.move(minutes=2)
        assert await app.purge() == 1
        assert await app.purge() == 0
        assert await ids(runs) == {failed.id}
    assert done.expire_at - done.ended_at == timedelta(days=30)


async def test_everything_of_a_run_goes_with_it_and_nothing_else(make_app: Any, runs: Any, database: Any) -> None:
    memo = database["streamline.memo"]
    async with make_app(flow(), flow(name="other")) as app:
        over = await ended(app, "done", "spilled", "failed", "spilled")
        kept = await ended(app, "spilled", workflow="other")
        waits = await app.start("flow", "wait")
        await status_of(waits, "waiting")
        await eventually(lambda: _owe_nothing(runs))
        assert await memo.count_documents({}) > 4
        assert await app.purge("flow", ended_before=LATER) == len(over)
        assert await ids(runs) == {kept[0].id, waits.id}
        assert await memo.distinct("run_id") == [kept[0].id]
        await app.resume(waits.id)
        assert (await waits.wait(PATIENCE)).status == "failed"


async def _owe_nothing(runs: Any) -> bool:
    return not await runs.count_documents({"owes_at": {"$exists": True}})


async def test_what_is_named_limits_what_goes(make_app: Any, runs: Any) -> None:
    async with make_app(flow(), flow(name="other")) as app:
        await ended(app, "done", "done", "failed", "done")
        await ended(app, "done", workflow="other")
        assert await app.purge(ended_before=datetime(2020, 1, 1, tzinfo=UTC)) == 0
        assert await app.purge("flow", ended_before=LATER, status="done", limit=2) == 2
        assert await runs.count_documents({"workflow": "flow", "status": "done"}) == 1
        assert await app.purge(ended_before=LATER, status=["failed", "cancelled"]) == 1
        assert await app.purge(ended_before=LATER) == 2
        assert await runs.count_documents({}) == 0


async def test_more_than_a_batch_goes_oldest_first(make_app: Any, runs: Any) -> None:
    async with make_app(flow("1h"), worker=False) as app:
        handle = await app.start("flow", "done")
        await app.tick()
        one = await runs.find_one({"_id": handle.id})
        long_ago = datetime.now(UTC) - timedelta(days=1)
        await runs.insert_many(
            {**one, "_id": f"r{n:04}", "created_at": long_ago + timedelta(seconds=n // 7), "ended_at": long_ago}
            for n in range(1234)
        )
        assert await app.purge(limit=700) == 700
        assert await ids(runs) == {handle.id, *(f"r{n:04}" for n in range(700, 1234))}
        assert await app.purge() == 534
        assert await ids(runs) == {handle.id}


async def test_two_processes_purge_at_once(make_app: Any, runs: Any) -> None:
    async with make_app(flow()) as app, make_app(flow(), worker=False) as other:
        await ended(app, *["done", "spilled"] * 15)
        await eventually(lambda: _owe_nothing(runs))
        removed = await asyncio.gather(*(each.purge(ended_before=LATER) for each in (app, other, app, other)))
        assert await runs.count_documents({}) == 0
        assert sum(removed) >= 30


async def test_a_child_that_is_yet_to_be_read_is_left_for_the_next_time(make_app: Any, runs: Any) -> None:
    held, child = Held(), flow()
    wf = waiting_family(child, held.workflow)
    async with make_app(wf, child, held.workflow) as app:
        handle = await app.start(wf)
        await eventually(lambda: held.entered)
        await eventually(lambda: runs.find_one({"workflow": "flow", "status": "done"}))
        assert await app.purge(ended_before=LATER) == 0
        held.gate.set()
        await handle.result(PATIENCE)
        await eventually(lambda: _owe_nothing(runs))
        assert await app.purge(ended_before=LATER) == 3


async def test_a_run_that_is_begun_anew_meanwhile_stays(make_app: Any, runs: Any) -> None:
    async with make_app(flow(), worker=False) as app:
        handles = [await app.start("flow", how) for how in ("failed", "spilled")]
        await app.tick()
        store = app._open_session.runtime.store
        send = store.run

        async def run(statement: Any, *scope: Any) -> Any:
            found = await send(statement, *scope)
            if statement.name == "find_ended":
                for handle in handles:
                    await handle.retry()
            return found

        store.run = run  # type: ignore[method-assign, assignment]
        assert await app.purge(ended_before=LATER) == 0
        assert await runs.count_documents({"status": "waiting"}) == 2


async def test_entries_of_memos_whose_run_is_gone_are_swept(make_app: Any, runs: Any, database: Any) -> None:
    memo = database["streamline.memo"]
    async with make_app(flow(), worker=False) as app:
        spilled = await app.start("flow", "spilled")
        await app.tick()
        await runs.insert_one({"_id": "alive", "status": "running"})
        before = await memo.count_documents({})
        at = datetime.now(UTC) - timedelta(hours=1)
        for run_id in ("alive", "gone", "zone"):
            await memo.insert_many(
                {"_id": f"{run_id}/s/0/{n}", "run_id": run_id, "at": at, "entry": {}} for n in range(501)
            )
        await sweep_memos(app._open_session.runtime)
        assert set(await memo.distinct("run_id")) == {spilled.id, "alive"}
        assert await memo.count_documents({}) == before + 501


async def test_what_cannot_be_meant_is_refused(make_app: Any) -> None:
    async with make_app(flow(), worker=False) as app:
        for wrong in (0, -1, 1.5, True):
            with pytest.raises(InvalidQuery):
                await app.purge(limit=wrong)
        with pytest.raises(InvalidQuery):
            await app.purge(status="running")
        with pytest.raises(WorkflowNotFound):
            await app.purge("unknown")
        with pytest.raises(InvalidName):
            await app.purge({"$ne": None}, ended_before=LATER)
        assert await app.purge("unknown", ended_before=LATER) == 0


async def test_operators_purge_for_all_tenants(make_app: Any, runs: Any) -> None:
    async with make_app(flow(), worker=False, tenancy=Tenancy(required=False)) as app:
        for tenant in (app, app.tenant("a"), app.tenant("b"), app.tenant("c")):
            await tenant.start("flow", "done")
            await tenant.start("flow", "spilled")
        await app.tick()
        assert await app.tenant("b").purge(ended_before=LATER) == 2
        assert set(await runs.distinct("tenant_id")) == {None, "a", "c"}
        assert await app.purge(ended_before=LATER) == 2
        assert await app.all_tenants().purge(ended_before=LATER, limit=3) == 3
        assert await app.all_tenants().purge(ended_before=LATER) == 1
        assert await runs.count_documents({}) == 0
