"""Runs that should have moved and have not: named with the reason, and none that is where it should be."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streamline import Concurrency, Context, StuckRun, Worker, Workflow
from streamline.errors import InvalidPolicy, InvalidQuery
from tests.clocks import MovableClock
from tests.integration.test_recovery import abandon
from tests.waiting import eventually, status_of


def flow(version: str = "1.0.0", name: str = "flow", **options: Any) -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow(name, version=version, **options)

    @wf.step
    async def work(ctx: Context[Any]) -> None:
        if ctx.input == "wait":
            await ctx.wait("for somebody")
        if ctx.input == "sleep":
            await ctx.sleep("1h")

    return wf


async def serve(database: Any, clock: MovableClock, *routes: str) -> None:
    """Let it look as if a worker lived that serves these routes."""
    seen = {"_id": "alive", "routes": list(routes), "seen_at": clock.now()}
    await database["streamline.workers"].replace_one({"_id": "alive"}, seen, upsert=True)


async def test_each_is_named_with_its_reason_the_oldest_first(make_app: Any, runs: Any, database: Any) -> None:
    clock = MovableClock()
    old, new = flow(), flow("2.0.0")
    async with make_app(old, worker=False, clock=clock) as app:
        unserved = await app.start(old, priority=5)
        app.register(new)
        clock.move(seconds=1)
        overdue = await app.start(new, priority=-5)
        clock.move(seconds=1)
        lost, broken, paused, held = [await app.start(new) for _ in range(4)]
        await runs.update_one({"_id": broken.id}, {"$set": {"attempt": "many"}})
        await held.pause()
        clock.move(seconds=1)
        await paused.pause()
        await serve(database, clock, new.definition.route)
        assert await app.stuck_runs() == ()
        await abandon(runs, lost.id, clock)
        clock.move(minutes=6)
        await serve(database, clock, new.definition.route)
        found = await app.stuck_runs()
        shown = [(each.run_id, each.reason) for each in found]
        assert shown == [
            (lost.id, "lost"), (unserved.id, "unserved"), (overdue.id, "overdue"), (broken.id, "corrupt"),
        ]  # fmt: skip
        assert all(isinstance(each, StuckRun) for each in found)
        assert (found[0].worker, found[0].status, found[1].version) == ("dead", "running", "1.0.0")
        assert found[1].since < found[2].since < found[3].since
        assert found[1].since == (await runs.find_one({"_id": unserved.id}))["due_at"]
        also = await app.stuck_runs(paused=True)
        assert [(each.run_id, each.reason) for each in also[4:]] == [(held.id, "paused"), (paused.id, "paused")]
        assert [each.run_id for each in await app.stuck_runs(2)] == [lost.id, unserved.id]
        assert await app.stuck_runs(longer_than="1d") == ()


async def test_what_is_where_it_should_be_is_not_stuck(make_app: Any, runs: Any) -> None:
    clock = MovableClock()
    wf, line = flow(), flow(name="line", concurrency=Concurrency(1))
    async with make_app(wf, line, worker=Worker(lease="60s", poll_interval="50ms"), clock=clock) as app:
        waits = [await app.start("flow", how) for how in ("wait", "sleep")]
        waits += [await app.start("flow", delay="1d"), await app.start("line", "wait")]
        first = waits[-1]
        await status_of(first, "waiting")
        queued = await app.start("line")
        await eventually(lambda: runs.find_one({"_id": queued.id, "queued_at": {"$exists": True}}))
        for handle in waits[:2]:
            await status_of(handle, "waiting")
        done = await app.start("flow", "done")
        await done.wait("10s")
        clock.move(minutes=30)
        assert await app.stuck_runs(longer_than="10m") == ()


async def test_a_workflow_that_is_held_up_is_named_where_that_is_asked_for(make_app: Any, runs: Any) -> None:
    clock = MovableClock()
    wf, other = flow(), flow(name="other")
    async with make_app(wf, other, worker=False, clock=clock) as app:
        await app.pause_workflow("flow")
        for _ in range(3):
            await app.start(wf)
        lost = await app.start(wf)
        await abandon(runs, lost.id, clock)
        mine = await app.start(other)
        clock.move(minutes=6)
        assert [each.run_id for each in await app.stuck_runs(1)] == [mine.id]
        reasons = [each.reason for each in await app.stuck_runs(paused=True)]
        assert sorted(reasons) == ["held_up"] * 4 + ["unserved"]


async def test_a_run_that_is_held_while_its_worker_died_is_named_once(make_app: Any, runs: Any) -> None:
    clock = MovableClock()
    wf = flow()
    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        await abandon(runs, handle.id, clock)
        await handle.pause()
        clock.move(minutes=6)
        assert await app.stuck_runs() == ()
        (found,) = await app.stuck_runs(paused=True)
        assert (found.reason, found.run_id) == ("paused", handle.id)


async def test_a_tenant_is_told_of_its_own(make_app: Any) -> None:
    clock = MovableClock()
    wf = flow()
    async with make_app(wf, worker=False, clock=clock, tenancy=None) as app:
        ours, theirs = [await app.tenant(name).start(wf) for name in ("ours", "theirs")]
        clock.move(minutes=6)
        assert [each.run_id for each in await app.tenant("ours").stuck_runs()] == [ours.id]
        everybody = await app.all_tenants().stuck_runs()
        assert {each.tenant_id for each in everybody} == {"ours", "theirs"}
        assert {each.run_id for each in everybody} == {ours.id, theirs.id}


async def test_the_worker_of_an_app_counts_as_living(make_app: Any, runs: Any) -> None:
    """A run that no worker takes, because it is damaged, is the only one left."""
    clock = MovableClock()
    wf = flow()
    async with make_app(wf, worker=Worker(poll_interval="50ms"), clock=clock) as app:
        good, bad = await app.start(wf, delay="10m"), await app.start(wf, delay="10m")
        await runs.update_one({"_id": bad.id}, {"$set": {"recovery_count": 1, "attempt": -1}})
        clock.move(minutes=30)
        assert (await good.wait("20s")).status == "done"
        (found,) = await app.stuck_runs(longer_than=timedelta(minutes=1))
        assert (found.run_id, found.reason) == (bad.id, "corrupt")


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"limit": 0}, InvalidQuery), ({"limit": 501}, InvalidQuery), ({"limit": "1"}, InvalidQuery),
        ({"longer_than": "soon"}, InvalidPolicy), ({"longer_than": -1}, InvalidPolicy), ({"paused": 1}, InvalidPolicy),
    ],
)  # fmt: skip
async def test_what_cannot_be_meant_is_refused(make_app: Any, wrong: Any, error: Any) -> None:
    async with make_app(worker=False) as app:
        with pytest.raises(error) as refused:
            await app.stuck_runs(**wrong)
        assert refused.value.field == next(iter(wrong))
