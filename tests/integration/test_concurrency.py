"""Concurrency limits: never more at work than may be, whoever starts them, and no slot is lost."""

from __future__ import annotations

import asyncio
import statistics
from typing import Any

import pytest

from streamline import Concurrency, Context, NonRetriableError, RetryPolicy, Streamline, Worker, Workflow
from streamline.domain.gates import full_key
from streamline.errors import ConcurrencyLimitReached, InvalidKey
from tests.integration.meters import Meter, at_rest, by_first, working
from tests.waiting import eventually, status_of

SLOW_LOOKS = Worker(concurrency=50, lease="5s", poll_interval="10m", drain="2s", cancel_grace="1s")


async def at_work(runs: Any) -> int:
    return int(await runs.count_documents({"slot": {"$gte": 0}}))


@pytest.mark.parametrize("cold", [True, False])
async def test_a_burst_over_three_apps_never_shows_one_too_many(make_app: Any, runs: Any, cold: bool) -> None:
    meter = Meter(hold=False, pace=0.003)
    wf = working(meter, concurrency=Concurrency(3))
    async with make_app(wf) as one, make_app(wf) as two, make_app(wf, worker=False) as three:
        if not cold:
            await (await one.start(wf, "warm")).result("20s")
        apps = (one, two, three)
        handles = await asyncio.gather(*(apps[i % 3].start(wf, i) for i in range(60)))
        assert all(handle.created for handle in handles)
        assert sorted(await asyncio.gather(*(handle.result("20s") for handle in handles))) == list(range(60))
        assert 1 < meter.most[""] <= 3
        await at_rest(runs)


async def test_the_first_are_at_work_and_the_next_waits_in_line(make_app: Any, runs: Any) -> None:
    meter = Meter()
    wf = working(meter, concurrency=Concurrency(2))
    async with make_app(wf) as app:
        handles = [await app.start(wf, i) for i in range(3)]
        await eventually(lambda: meter.at_work() == 2)
        first, second, third = [await handle.get() for handle in handles]
        assert sorted([first.slot, second.slot]) == [0, 1]
        assert (third.status, third.slot, third.due_at) == ("draft", None, None)
        assert third.queued_at is not None
        stored = await runs.find_one({"_id": handles[2].id})
        assert [event["type"] for event in stored["events"]] == ["run.created", "run.queued"]
        meter.let_go(0)
        await eventually(lambda: 2 in meter.begun)
        promoted = await handles[2].get()
        assert (promoted.status, promoted.queued_at) == ("running", None)
        meter.let_all_go()
        await asyncio.gather(*(handle.result("20s") for handle in handles))
        assert meter.most[""] == 2
        await at_rest(runs)


async def test_keys_have_limits_of_their_own(make_app: Any) -> None:
    meter = Meter()
    wf = working(meter, concurrency=Concurrency(2, key=by_first))
    async with make_app(wf) as app:
        handles = [await app.start(wf, [key, i]) for key in "abc" for i in range(4)]
        await eventually(lambda: [meter.at_work(key) for key in "abc"] == [2, 2, 2])
        meter.let_all_go()
        await asyncio.gather(*(handle.result("20s") for handle in handles))
        assert meter.most == {"a": 2, "b": 2, "c": 2}


async def test_workflows_do_not_share_slots(make_app: Any) -> None:
    meter = Meter()
    one, two = (working(meter, name, concurrency=Concurrency(1)) for name in ("one", "two"))
    async with make_app(one, two) as app:
        await app.start(one, "a")
        await app.start(two, "b")
        await eventually(lambda: meter.at_work() == 2)
        meter.let_all_go()


async def test_versions_of_a_workflow_share_slots(make_app: Any) -> None:
    meter = Meter()
    old, new = (working(meter, version=version, concurrency=Concurrency(1)) for version in ("1.0.0", "2.0.0"))
    async with make_app(old, new) as app:
        first, second = await app.start(old, "old"), await app.start(new, "new")
        await eventually(lambda: meter.at_work() == 1)
        assert (await second.get()).queued_at is not None
        meter.let_all_go()
        assert (await first.result("20s"), await second.result("20s")) == ("old", "new")
        assert meter.most[""] == 1


async def test_the_next_in_line_follows_within_milliseconds(make_app: Any) -> None:
    meter = Meter(hold=False, pace=0.005)
    wf = working(meter, concurrency=Concurrency(1))
    async with make_app(wf, worker=SLOW_LOOKS) as app:
        handles = [await app.start(wf, i) for i in range(30)]
        await asyncio.gather(*(handle.result("20s") for handle in handles))
    pauses = [
        meter.begun[after] - meter.left[before] for before, after in zip(meter.order, meter.order[1:], strict=False)
    ]
    assert statistics.median(pauses) < 0.05, pauses


async def test_a_slot_that_another_process_gives_back_is_taken_at_once(make_app: Any) -> None:
    meter = Meter()
    wf = working(meter, concurrency=Concurrency(1))
    async with make_app(wf, worker=False) as starting, make_app(wf, worker=SLOW_LOOKS) as app:
        first = await app.start(wf, "first")
        await eventually(lambda: meter.at_work() == 1)
        second = await starting.start(wf, "second")
        meter.let_go("second")
        await starting.cancel(first.id)
        assert await second.result("5s") == "second"


async def test_a_process_without_room_calls_up_for_others(make_app: Any, runs: Any) -> None:
    meter, filling = Meter(), Meter()
    wf, filler = working(meter, concurrency=Concurrency(1)), working(filling, "filler")
    full = Worker(concurrency=1, poll_interval="10m", drain="1s")
    async with make_app(wf, filler, worker=full) as app, make_app(wf, worker=False) as starting:
        await app.start(filler, "filler")
        await eventually(lambda: filling.at_work() == 1)
        first, second = await starting.start(wf, "first"), await starting.start(wf, "second")
        await first.pause()  # it keeps its slot, and nobody drives it
        async with make_app(wf, worker=SLOW_LOOKS):
            await asyncio.sleep(0.1)
            assert not meter.begun
            meter.let_go("second")
            await app.cancel(first.id)
            assert await second.result("5s") == "second"
        filling.let_all_go()


async def test_larger_priority_goes_first_then_the_older(make_app: Any) -> None:
    meter = Meter()
    wf = working(meter, concurrency=Concurrency(1))
    async with make_app(wf) as app:
        first = await app.start(wf, "first")
        await eventually(lambda: meter.at_work() == 1)
        wanted = [("low", -1), ("one", 0), ("high", 5), ("two", 0), ("higher", 6), ("three", 0)]
        handles = [await app.start(wf, name, priority=priority) for name, priority in wanted]
        meter.let_all_go()
        await asyncio.gather(*(handle.result("20s") for handle in (first, *handles)))
        assert meter.order == ["first", "higher", "high", "one", "two", "three", "low"]


async def test_a_newcomer_does_not_overtake_those_in_line(make_app: Any) -> None:
    meter = Meter()
    wf = working(meter, concurrency=Concurrency(1))
    async with make_app(wf, worker=False) as app:
        first = await app.start(wf, "first")
        waiting = await app.start(wf, "waiting")
        await first.cancel()  # nobody calls up: there is no worker
        late = await app.start(wf, "late")
        assert (await late.get()).queued_at is not None
        async with make_app(wf):
            meter.let_all_go()
            await asyncio.gather(waiting.result("20s"), late.result("20s"))
        assert meter.order == ["waiting", "late"]


async def test_a_full_line_does_not_starve_another_key(make_app: Any) -> None:
    meter = Meter()
    wf = working(meter, concurrency=Concurrency(1, key=by_first))
    async with make_app(wf, worker=Worker(concurrency=4, claim_batch=4, poll_interval="200ms", drain=0)) as app:
        await app.start(wf, ["full", "holder"])
        await eventually(lambda: meter.at_work("full") == 1)
        await app.start_many(wf, [["full", i] for i in range(500)])
        meter.let_go(("free", 0))
        free = await app.start(wf, ["free", 0])
        assert await free.result("5s") == ["free", 0]
        delayed = await app.start(wf, ["free", 0], delay="50ms")
        assert await delayed.result("5s") == ["free", 0]
        assert (meter.most["full"], await app.count_runs(status="draft")) == (1, {"draft": 500})


async def test_reject_refuses_and_stores_nothing(make_app: Any, runs: Any) -> None:
    meter = Meter()
    wf = working(meter, concurrency=Concurrency(2, key=by_first, on_limit="reject"))
    async with make_app(wf) as app, make_app(wf, worker=False) as other:
        handles = [await app.start(wf, ["a", i]) for i in range(2)]
        for each in (app, other):
            with pytest.raises(ConcurrencyLimitReached) as raised:
                await each.start(wf, ["a", 9])
            assert (raised.value.code, raised.value.http_status) == ("concurrency.limit_reached", 429)
            assert raised.value.field == "concurrency"
            assert (raised.value.workflow, raised.value.key, raised.value.limit) == ("metered", "a", 2)
            assert "metered" in str(raised.value)
        assert await runs.count_documents({}) == 2
        assert (await app.start(wf, ["b", 1])).created
        meter.let_go(("a", 0))
        await handles[0].result("20s")
        assert (await app.start(wf, ["a", 3])).created
        meter.let_all_go()


@pytest.mark.parametrize("works", [True, False])
async def test_a_burst_is_rejected_but_for_as_many_as_may(make_app: Any, runs: Any, works: bool) -> None:
    meter = Meter()
    wf = working(meter, concurrency=Concurrency(3, on_limit="reject"))
    async with make_app(wf, worker=works) as one, make_app(wf, worker=False) as two:
        answers = await asyncio.gather(*((one, two)[i % 2].start(wf, i) for i in range(40)), return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, ConcurrencyLimitReached)]
        assert len(refused) == 37, answers
        assert await runs.count_documents({}) == await at_work(runs) == 3
        meter.let_all_go()


async def saga(ctx: Context[Any]) -> None:
    """A step that can be undone."""


def ending(meter: Meter, **options: Any) -> Workflow[Any, Any, Any]:
    """Return a workflow whose runs end as their input says."""
    wf: Workflow[Any, Any, Any] = Workflow("ending", concurrency=Concurrency(1), **options)

    async def undo(ctx: Context[Any], output: Any) -> None:
        await meter.work(f"undo {ctx.input}")

    wf.step(id="undone")(saga).compensate(undo)

    @wf.step(retry=RetryPolicy(max_attempts=2, delay="300ms", jitter=0))
    async def end(ctx: Context[Any]) -> Any:
        await meter.work(f"{ctx.input} {ctx.attempt}")
        if ctx.input == "wait":
            await ctx.wait("somebody")
        if ctx.input in ("fail", "compensate"):
            raise NonRetriableError("as told")
        if ctx.input == "retry" and ctx.attempt == 1:
            raise RuntimeError("once")
        if ctx.input == "sleep":
            await ctx.sleep("300ms")

    return wf


@pytest.mark.parametrize(
    ("how", "held_at"),
    [("wait", "waiting"), ("retry", "waiting"), ("sleep", "waiting"), ("compensate", "compensating")],
)
async def test_a_slot_is_held_until_the_run_has_ended(make_app: Any, runs: Any, how: str, held_at: str) -> None:
    meter = Meter(hold=how != "compensate")
    wf = ending(meter)
    if how == "compensate":
        meter.hold.clear()
        meter.let_go("compensate 1", "next 1")
    else:
        meter.let_go(f"{how} 1", f"{how} 2", "next 1", "wait 2")
    async with make_app(wf) as app:
        run = await app.start(wf, how)
        after = await app.start(wf, "next")
        await status_of(run, held_at)
        await asyncio.sleep(0.1)  # whoever took it for free would have begun by now
        assert not any(str(name).startswith("next") for name in meter.begun)
        assert (await run.get()).slot == 0
        if how == "wait":
            await run.resume(1)
        meter.let_all_go()
        await after.result("20s")
        ended = await run.wait("20s")
        assert ended.slot is None
        assert ended.ended_at is not None
        begun = min(at for name, at in meter.begun.items() if str(name).startswith("next"))
        assert begun >= max(at for name, at in meter.left.items() if not str(name).startswith("next"))
        await at_rest(runs)


async def test_a_paused_run_keeps_its_slot(make_app: Any) -> None:
    meter = Meter()
    wf = working(meter, concurrency=Concurrency(1))
    async with make_app(wf) as app:
        run = await app.start(wf, "paused")
        after = await app.start(wf, "next")
        await eventually(lambda: meter.at_work() == 1)
        await run.pause()
        assert (await run.get()).slot == 0
        assert (await after.get()).queued_at is not None
        await run.unpause()
        meter.let_all_go()
        await asyncio.gather(run.result("20s"), after.result("20s"))
        assert meter.most[""] == 1


@pytest.mark.parametrize("end", ["done", "failed", "cancelled", "dead_lettered", "quarantined", "deleted", "timed_out"])
async def test_every_end_of_a_run_gives_its_slot_back(make_app: Any, runs: Any, end: str) -> None:
    meter = Meter()
    wf = working(meter, concurrency=Concurrency(1))
    worker = Worker(lease="300ms", poll_interval="100ms", max_recoveries=0)
    async with make_app(wf, worker=worker) as app:
        run = await app.start(
            wf, "fail" if end == "failed" else "first", timeout="300ms" if end == "timed_out" else None
        )
        await eventually(lambda: meter.at_work() == 1)
        after = await app.start(wf, "after")
        meter.let_go("after")
        if end in ("done", "failed"):
            meter.let_go("first", "fail")
        elif end == "cancelled":
            await run.cancel()
        elif end == "dead_lettered":
            await runs.update_one(
                {"_id": run.id}, {"$set": {"lease.token": "another's"}, "$inc": {"recovery_count": 1}}
            )
        elif end == "quarantined":
            await runs.update_one({"_id": run.id}, {"$set": {"lease.token": "another's", "cursor": "nowhere"}})
        elif end == "deleted":
            await runs.delete_one({"_id": run.id})
        assert await after.result("20s") == "after"
        if end != "deleted":
            ended = await runs.find_one({"_id": run.id})
            assert "slot" not in ended
            wanted = {"dead_lettered": "dead_lettered", "quarantined": "run.corrupt", "timed_out": "run.timeout"}
            assert end not in wanted or ended["error"]["code"] == wanted[end]
        meter.let_all_go()
        await at_rest(runs)


async def test_a_run_in_line_can_be_cancelled(make_app: Any, runs: Any) -> None:
    meter = Meter()
    wf = working(meter, concurrency=Concurrency(1))
    async with make_app(wf) as app:
        first = await app.start(wf, "first")
        cancelled, after = await app.start(wf, "cancelled"), await app.start(wf, "after")
        await cancelled.cancel(reason="not needed")
        assert (await cancelled.get()).status == "cancelled"
        meter.let_all_go()
        await asyncio.gather(first.result("20s"), after.result("20s"))
        assert "cancelled" not in meter.order
        await at_rest(runs)


async def test_a_paused_run_in_line_lets_others_pass_until_it_goes_on(make_app: Any, runs: Any) -> None:
    meter = Meter()
    wf = working(meter, concurrency=Concurrency(1))
    async with make_app(wf) as app:
        first = await app.start(wf, "first")
        held, after = await app.start(wf, "held", priority=9), await app.start(wf, "after")
        await held.pause()
        meter.let_go("first", "after")
        await asyncio.gather(first.result("20s"), after.result("20s"))
        assert "held" not in meter.begun
        meter.let_all_go()
        await held.unpause()
        assert await held.result("20s") == "held"
        await at_rest(runs)


async def test_a_run_in_line_must_begin_in_time(make_app: Any, runs: Any) -> None:
    meter = Meter()
    wf = working(meter, concurrency=Concurrency(1))
    async with make_app(wf) as app:
        first = await app.start(wf, "first")
        await eventually(lambda: meter.at_work() == 1)
        late = await app.start(wf, "late", start_by="200ms")
        over = await app.start(wf, "over", timeout="200ms")
        for handle, code in ((late, "run.expired"), (over, "run.timeout")):
            ended = await handle.wait("5s")
            assert ended.status == "failed"
            assert ended.error is not None
            assert ended.error.code == code
        assert meter.order == ["first"]
        assert not (await first.get()).ended
        meter.let_all_go()
        await first.result("20s")
        await at_rest(runs)


async def test_a_delayed_run_takes_no_slot_before_it_is_due(make_app: Any, runs: Any) -> None:
    meter = Meter(hold=False)
    wf = working(meter, concurrency=Concurrency(1))
    async with make_app(wf) as app:
        delayed = await app.start(wf, "delayed", delay="300ms")
        assert (await delayed.get()).slot is None
        assert await (await app.start(wf, "now")).result("20s") == "now"
        assert await delayed.result("20s") == "delayed"
        assert meter.order == ["now", "delayed"]
        await at_rest(runs)


async def test_a_delayed_run_that_finds_no_slot_waits_in_line(make_app: Any, runs: Any) -> None:
    meter = Meter()
    wf = working(meter, concurrency=Concurrency(1))
    async with make_app(wf) as app:
        delayed = await app.start(wf, "delayed", delay="100ms")
        holder = await app.start(wf, "holder")

        async def in_line() -> Any:
            return (await delayed.get()).queued_at

        await eventually(in_line)
        meter.let_all_go()
        assert await delayed.result("20s") == "delayed"
        assert meter.order == ["holder", "delayed"]
        await holder.result("20s")
        await at_rest(runs)


async def test_children_of_a_limited_workflow_take_turns_and_the_parent_waits(make_app: Any, runs: Any) -> None:
    meter = Meter(hold=False, pace=0.01)
    kid = working(meter, "kid", concurrency=Concurrency(2))
    parent: Workflow[Any, Any, Any] = Workflow("parent")

    @parent.step
    async def fan_out(ctx: Context[Any]) -> Any:
        return await ctx.join({f"k{i}": (kid, i) for i in range(8)})

    async with make_app(parent, kid) as app:
        assert (await (await app.start(parent)).result("20s")) == {f"k{i}": i for i in range(8)}
        assert meter.most[""] <= 2
        await at_rest(runs)


def limited(meter: Meter, limit: int | None, version: str = "1.0.0") -> Workflow[Any, Any, Any]:
    return working(meter, version=version, concurrency=None if limit is None else Concurrency(limit))


@pytest.mark.parametrize("version", ["1.0.0", "2.0.0"])
async def test_a_deploy_that_raises_the_limit_calls_up_those_in_line(make_app: Any, runs: Any, version: str) -> None:
    meter = Meter()
    old, new = limited(meter, 1), limited(meter, 3, version)
    async with make_app(old, worker=False) as app:
        handles = [await app.start(old, i) for i in range(5)]
        assert await at_work(runs) == 1
    served = (new,) if version == "1.0.0" else (old, new)
    async with make_app(*served):
        await eventually(lambda: meter.at_work() == 3)
        meter.let_all_go()
        async with make_app(old, worker=False) as app:
            await asyncio.gather(*(app.handle(handle.id).result("20s") for handle in handles))
    assert meter.most[""] == 3


async def test_a_deploy_that_lowers_the_limit_lets_no_more_begin_until_few_enough_are_at_work(
    make_app: Any, runs: Any
) -> None:
    meter = Meter()
    async with make_app(limited(meter, 4), worker=False) as old:
        handles = [await old.start("metered", i) for i in range(4)]
        assert await at_work(runs) == 4
    async with make_app(limited(meter, 2)) as new:
        await eventually(lambda: meter.at_work() == 4)
        handles = [new.handle(handle.id) for handle in handles] + [await new.start("metered", i) for i in range(4, 10)]
        for finished in range(4):
            meter.let_go(finished)
            await handles[finished].result("20s")
            await asyncio.sleep(0.1)  # whoever took a slot too early would be at work by now
            assert await at_work(runs) == meter.at_work() == max(2, 4 - finished - 1)
        meter.let_all_go()
        await asyncio.gather(*(handle.result("20s") for handle in handles[4:]))
        await at_rest(runs)
    began = sorted(meter.begun[i] for i in range(4, 10))
    ended = sorted(meter.left.values())
    # The fifth begins when the third has ended, the sixth when the fourth has.
    assert all(began[i] >= ended[i + 2] for i in range(6))


async def test_a_deploy_that_drops_the_limit_lets_all_begin(make_app: Any, runs: Any) -> None:
    meter = Meter()
    async with make_app(limited(meter, 1), worker=False) as app:
        for i in range(5):
            await app.start("metered", i)
    async with make_app(limited(meter, None)):
        await eventually(lambda: meter.at_work() == 5)
        meter.let_all_go()
        await at_rest(runs)


async def test_one_app_starts_and_another_works(make_app: Any, runs: Any) -> None:
    meter = Meter(hold=False, pace=0.002)
    wf = working(meter, concurrency=Concurrency(2))
    async with make_app(wf, worker=False) as starting, make_app(wf):
        handles = [await starting.start(wf, i) for i in range(20)]
        await asyncio.gather(*(handle.result("20s") for handle in handles))
        assert meter.most[""] <= 2
        await at_rest(runs)


async def test_a_slot_that_nobody_heard_of_is_found_by_the_next_look(make_app: Any, runs: Any) -> None:
    """As where a process dies between the end of a run and the call to the next."""
    meter = Meter()
    wf = working(meter, concurrency=Concurrency(1))
    async with make_app(wf) as app:
        await app.start(wf, "first")
        await eventually(lambda: meter.at_work() == 1)
        after = await app.start(wf, "after")
        ended = {"$set": {"status": "cancelled"}, "$unset": {"slot": "", "lease": "", "due_at": ""}}
        await runs.update_one({"slot": 0}, ended)  # by somebody who tells nobody
        meter.let_all_go()
        assert await after.result("5s") == "after"


async def test_an_app_that_does_not_know_the_workflow_gives_slots_back_as_well(make_app: Any) -> None:
    meter = Meter()
    wf = working(meter, concurrency=Concurrency(1))
    stranger: Workflow[Any, Any, Any] = Workflow("stranger")
    stranger.step(id="only")(saga)
    async with make_app(wf, worker=SLOW_LOOKS) as app, make_app(stranger, worker=SLOW_LOOKS) as other:
        first = await app.start(wf, "first")
        await eventually(lambda: meter.at_work() == 1)
        after = await app.start(wf, "after")
        meter.let_go("after")
        await other.cancel(first.id)
        assert await after.result("5s") == "after"


async def test_a_key_that_cannot_be_one_is_refused_before_anything_is_stored(make_app: Any, runs: Any) -> None:
    wf = working(Meter(), concurrency=Concurrency(1, key=lambda given: given["missing"]))
    async with make_app(wf) as app:
        for value in ({}, {"missing": None}, {"missing": ""}):
            with pytest.raises(InvalidKey) as raised:
                await app.start(wf, value)
            assert raised.value.field == "slot_key"
        assert await runs.count_documents({}) == 0


async def test_a_tick_calls_up_as_well(make_app: Any, runs: Any) -> None:
    meter = Meter(hold=False)
    wf = working(meter, concurrency=Concurrency(2))
    async with make_app(wf, worker=False) as app:
        await app.start_many(wf, list(range(6)))
        for _ in range(10):
            await app.tick()
        assert sorted(meter.order) == list(range(6))
        assert meter.most[""] <= 2
        await at_rest(runs)


async def test_a_worker_that_dies_keeps_its_slot_until_the_run_is_taken_over(make_app: Any, runs: Any) -> None:
    dying, taking = Meter(), Meter(hold=False)
    quick = Worker(lease="400ms", poll_interval="100ms")
    async with make_app(working(dying, concurrency=Concurrency(1)), worker=quick) as app:
        first, after = await app.start("metered", "first"), await app.start("metered", "after")
        await eventually(lambda: dying.at_work() == 1)
        await runs.update_one({"_id": first.id}, {"$set": {"lease.token": "of the dead", "lease.worker": "dead"}})
        async with make_app(working(taking, concurrency=Concurrency(1)), worker=quick) as other:
            assert (await runs.find_one({"_id": first.id}))["slot"] == 0
            dying.let_all_go()
            for handle in (first, after):
                await other.handle(handle.id).result("20s")
            await at_rest(runs)
    assert taking.most[""] + dying.most[""] >= 1
    assert isinstance(app, Streamline)


async def test_a_slot_that_is_given_back_while_a_run_goes_to_the_line_is_its_own(
    make_app: Any, runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = Meter(hold=False)
    wf = working(meter, concurrency=Concurrency(1))
    async with make_app(wf, worker=SLOW_LOOKS) as app:
        slots = app._open_session.worker.claimer.admission._slots
        free, looks = slots.free, list[str]()

        async def free_a_moment_later(key: str, limit: int) -> list[int]:
            looks.append(key)
            return [] if len(looks) == 1 else await free(key, limit)

        monkeypatch.setattr(slots, "free", free_a_moment_later)
        handle = await app.start(wf, 1, delay="50ms")
        assert await handle.result("10s") == 1
        assert await runs.find_one({"_id": handle.id, "events.type": "run.queued"})


async def test_a_line_is_served_by_one_at_a_time_in_a_process(
    make_app: Any, monkeypatch: pytest.MonkeyPatch, tenant_id: str | None
) -> None:
    meter = Meter()
    wf = working(meter, concurrency=Concurrency(1))
    async with make_app(wf, worker=SLOW_LOOKS) as app:
        lines = app._open_session.worker.lines
        handles = [await app.start(wf, i) for i in range(2)]
        (queue,) = (await app.stats()).queues
        assert queue.queued == 1
        serve, key, now, most = lines.serve, full_key("metered", tenant_id, ""), 0, 0

        async def watched(slot_key: str) -> None:
            nonlocal now, most
            now, most = now + 1, max(most, now + 1)
            await asyncio.sleep(0.05)
            await serve(slot_key)
            now -= 1

        monkeypatch.setattr(lines, "serve", watched)
        lines.serve_soon(key)
        await lines.run_once()
        await asyncio.gather(lines.run_once(), asyncio.sleep(0, lines.serve_soon(key)))
        assert most == 1
        meter.let_all_go()
        assert [await handle.result("10s") for handle in handles] == [0, 1]
