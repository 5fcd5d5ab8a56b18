"""Several gates at once, and what operators do to runs that stand before them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from streamline import Concurrency, Context, Debounce, NonRetriableError, Throttle, Worker, Workflow
from streamline.errors import ConcurrencyLimitReached
from tests.integration.meters import Meter, at_rest, by_first, most_in_a_window, working
from tests.integration.test_throttling import starts
from tests.waiting import eventually, status_of

WINDOW = timedelta(milliseconds=250)


async def test_limit_and_throttle_together(make_app: Any, runs: Any) -> None:
    meter = Meter(hold=False, pace=0.06)
    wf = working(meter, concurrency=Concurrency(2), throttle=Throttle(3, WINDOW))
    async with make_app(wf) as one, make_app(wf) as two, make_app(wf, worker=False) as three:
        handles = await asyncio.gather(*((one, two, three)[i % 3].start(wf, i) for i in range(12)))
        await asyncio.gather(*(handle.result("20s") for handle in handles))
        assert meter.most[""] <= 2
        assert most_in_a_window(await starts(runs), WINDOW) <= 3
        assert len(meter.begun) == 12
        await at_rest(runs)


async def test_a_run_that_is_put_off_leaves_line_and_slot_to_others(make_app: Any, runs: Any) -> None:
    """A slot key with a throttled run in front does not keep the runs of other throttle keys waiting."""
    meter = Meter(hold=False)
    wf = working(meter, concurrency=Concurrency(1), throttle=Throttle(1, "60s", key=by_first))
    async with make_app(wf, worker=False) as app:
        first = await app.start(wf, ["a", 1])
        blocked = [await app.start(wf, ["a", i], priority=9) for i in range(2, 6)]
        other = await app.start(wf, ["b", 1])
        async with make_app(wf):
            assert await first.result("5s") == ["a", 1]
            assert await other.result("1s") == ["b", 1]  # past the blocked, without another look
            for handle in blocked:
                run = await handle.get()
                assert (run.status, run.slot) == ("draft", None)
            assert (await app.start(wf, ["c", 1])).created
            await asyncio.sleep(0.5)
            seen = [run["rev"] async for run in runs.find({"status": "draft"})]
            await asyncio.sleep(1.5)  # two looks at the line
            assert [run["rev"] async for run in runs.find({"status": "draft"})] == seen, (
                "they are put off again and again"
            )


async def test_debounce_and_limit_and_throttle_together(make_app: Any, runs: Any) -> None:
    meter = Meter(hold=False, pace=0.03)
    wf = working(
        meter,
        concurrency=Concurrency(1),
        throttle=Throttle(2, WINDOW),
        debounce=Debounce("1s", key=lambda given: given[0]),
    )
    async with make_app(wf) as one, make_app(wf, worker=False) as two:
        handles = await asyncio.gather(*((one, two)[i % 2].start(wf, [f"key{i % 5}", i // 5]) for i in range(25)))
        await asyncio.gather(*(handle.result("20s") for handle in handles))
        assert len({handle.id for handle in handles}) == await runs.count_documents({}) == 5
        assert meter.most == dict.fromkeys(meter.most, 1)
        assert most_in_a_window(await starts(runs), WINDOW) <= 2
        await at_rest(runs)


async def test_a_debounced_draft_that_finds_no_slot_is_put_off_no_more(make_app: Any, runs: Any) -> None:
    meter = Meter()
    wf = working(meter, concurrency=Concurrency(1), debounce=Debounce("100ms"))
    async with make_app(wf) as app:
        first = await app.start(wf, "first")
        await eventually(lambda: meter.at_work() == 1)
        second = await app.start(wf, "second")

        async def in_line() -> Any:
            return (await second.get()).queued_at

        await eventually(in_line)
        third = await app.start(wf, "third")
        assert third.id not in (first.id, second.id)
        meter.let_all_go()
        assert [await handle.result("20s") for handle in (first, second, third)] == ["first", "second", "third"]
        await at_rest(runs)


async def test_a_debounced_draft_is_never_refused(make_app: Any, runs: Any) -> None:
    meter = Meter()
    wf = working(meter, concurrency=Concurrency(1, on_limit="reject"), debounce=Debounce("50ms"))
    async with make_app(wf) as app:
        first = await app.start(wf, "first")
        await eventually(lambda: meter.at_work() == 1)
        second = await app.start(wf, "second")
        meter.let_all_go()
        assert [await handle.result("20s") for handle in (first, second)] == ["first", "second"]
        await at_rest(runs)


async def test_a_refused_start_costs_no_turn(make_app: Any, runs: Any) -> None:
    meter = Meter()
    wf = working(meter, concurrency=Concurrency(1, on_limit="reject"), throttle=Throttle(2, "60s"))
    async with make_app(wf) as app:
        first = await app.start(wf, 1)
        for _ in range(5):
            with pytest.raises(ConcurrencyLimitReached):
                await app.start(wf, 2)
        meter.let_all_go()
        await first.result("20s")
        assert await (await app.start(wf, 3)).result("5s") == 3
        await at_rest(runs)


async def test_one_key_holds_one_slot(make_app: Any, runs: Any) -> None:
    meter = Meter()
    wf = working(meter, concurrency=Concurrency(2, on_limit="reject"), throttle=Throttle(5, "60s"))
    async with make_app(wf) as one, make_app(wf, worker=False) as two:
        handles = await asyncio.gather(*((one, two)[i % 2].start(wf, i, idempotency_key="k") for i in range(30)))
        assert len({handle.id for handle in handles}) == 1
        assert await runs.count_documents({"slot": {"$exists": True}}) == 1
        other = await one.start(wf, "other")
        assert other.created
        assert (await one.start(wf, "again", idempotency_key="k")).id == handles[0].id  # not refused: it is there
        await handles[0].cancel()
        assert (await one.start(wf, "k again", idempotency_key="k")).created
        meter.let_all_go()
        await at_rest(runs)


async def test_a_retried_run_waits_its_turn_again(make_app: Any, runs: Any) -> None:
    meter = Meter()
    wf = working(meter, concurrency=Concurrency(1))
    async with make_app(wf) as app:
        failed = await app.start(wf, "fail")
        meter.let_go("fail")
        assert (await failed.wait("20s")).status == "failed"
        holder = await app.start(wf, "holder")
        await eventually(lambda: meter.at_work() == 1)
        await failed.retry()

        async def in_line() -> Any:
            return (await failed.get()).queued_at

        await eventually(in_line)
        assert (await failed.get()).status == "waiting"
        meter.let_all_go()
        await holder.result("20s")
        assert (await failed.wait("20s")).status == "failed"
        assert (meter.most[""], meter.order) == (1, ["fail", "holder", "fail"])
        await at_rest(runs)


def three_steps(meter: Meter, **gates: Any) -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow("three", **gates)

    async def undo(ctx: Context[Any], output: Any) -> None:
        await meter.work(f"undo {ctx.input}")

    async def first(ctx: Context[Any]) -> None:
        await meter.work(f"first {ctx.input}")

    wf.step(id="first")(first).compensate(undo)

    @wf.step
    async def second(ctx: Context[Any]) -> str:
        await meter.work(f"second {ctx.input}")
        if str(ctx.input).startswith("fail"):
            raise NonRetriableError("as told")
        return str(ctx.input)

    return wf


async def test_a_rewound_run_that_has_ended_waits_its_turn_again(make_app: Any, runs: Any) -> None:
    meter = Meter(hold=False)
    wf = three_steps(meter, concurrency=Concurrency(1))
    async with make_app(wf) as app:
        done = await app.start(wf, "a")
        await done.result("20s")
        meter.hold.clear()
        holder = await app.start(wf, "b")
        await eventually(lambda: meter.at_work() == 1)
        await done.rewind("second")

        async def in_line() -> Any:
            return (await done.get()).queued_at

        await eventually(in_line)
        await done.rewind("first")  # once more, while it waits
        revision = (await eventually(lambda: settled(runs, done.id)))["rev"]
        await asyncio.sleep(0.2)
        assert (await runs.find_one({"_id": done.id}))["rev"] == revision
        assert meter.at_work() == 1
        meter.let_all_go()
        await holder.result("20s")
        assert await done.result("20s") == "a"
        assert meter.most[""] == 1
        await at_rest(runs)


async def settled(runs: Any, run_id: str) -> Any:
    """Return the run once it waits in line and is not due."""
    return await runs.find_one({"_id": run_id, "queued_at": {"$exists": True}, "due_at": {"$exists": False}})


async def test_a_rewound_run_at_work_keeps_its_slot(make_app: Any, runs: Any) -> None:
    meter = Meter()
    wf = three_steps(meter, concurrency=Concurrency(1))
    async with make_app(wf) as app:
        run = await app.start(wf, "a")
        after = await app.start(wf, "b")
        meter.let_go("first a")
        await eventually(lambda: "second a" in meter.begun)
        await run.rewind("first")
        await eventually(lambda: meter.order.count("second a") == 2)
        assert (await run.get()).slot == 0
        meter.let_all_go()
        await asyncio.gather(run.result("20s"), after.result("20s"))
        assert meter.most[""] == 1
        await at_rest(runs)


async def test_a_retried_run_that_is_cancelled_in_line_is_undone_in_its_turn(make_app: Any, runs: Any) -> None:
    """What is being compensated is at work, and needs a slot like any other."""
    meter = Meter(hold=False)
    wf = three_steps(meter, concurrency=Concurrency(1), compensate_on={"cancelled"})
    async with make_app(wf) as app:
        failed = await app.start(wf, "fail a")
        assert (await failed.wait("20s")).status == "failed"
        meter.hold.clear()
        holder = await app.start(wf, "b")
        await eventually(lambda: meter.at_work() == 1)
        await failed.retry()
        await eventually(lambda: settled(runs, failed.id))
        await failed.cancel()
        await status_of(failed, "compensating")
        await asyncio.sleep(0.2)
        assert "undo fail a" not in meter.begun
        meter.let_all_go()
        await holder.result("20s")
        assert (await failed.wait("20s")).status == "compensated"
        assert meter.most[""] == 1
        await at_rest(runs)


async def test_a_fork_needs_a_slot_of_its_own(make_app: Any, runs: Any) -> None:
    meter = Meter()
    wf = three_steps(meter, concurrency=Concurrency(1))
    async with make_app(wf) as app:
        run = await app.start(wf, "a")
        meter.let_go("first a")
        await eventually(lambda: "second a" in meter.begun)
        fork = await app.fork(run.id, "second")
        assert (await fork.get()).queued_at is not None
        meter.let_all_go()
        assert (await run.result("20s"), await fork.result("20s")) == ("a", "a")
        assert (meter.most[""], meter.order.count("second a")) == (1, 2)
        await at_rest(runs)


DAMAGE = [
    {"$unset": {"rev": ""}},
    {"$set": {"rev": "many"}},
    {"$unset": {"event_seq": ""}},
    {"$set": {"event_seq": "many"}},
    {"$unset": {"workflow": ""}},
    {"$unset": {"version": ""}},
    {"$set": {"events": 5}},
    {"$set": {"slot_key": 5}},
    {"$set": {"throttle_key": {"a": 1}}},
    {"$set": {"steps": []}},
]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: repr(damage).replace("'", ""))
@pytest.mark.parametrize("where", ["due", "in line"])
async def test_a_damaged_run_before_the_gates_is_no_obstacle_to_others(
    make_app: Any, runs: Any, damage: Any, where: str
) -> None:
    meter = Meter(hold=False)
    wf = working(meter, concurrency=Concurrency(1), throttle=Throttle(1, "20ms"))
    async with make_app(wf, worker=False) as app:
        if where == "due":
            damaged = await app.start(wf, "damaged", priority=9, delay="1ms")
        else:
            await app.start(wf, "holder")
            damaged = await app.start(wf, "damaged", priority=9)
        others = [await app.start(wf, i) for i in range(3)]
        await runs.update_one({"_id": damaged.id}, damage)
    worker = Worker(lease="800ms", poll_interval="100ms", max_recoveries=1)
    async with make_app(wf, worker=worker) as app:
        for i, handle in enumerate(others):
            assert await app.handle(handle.id).result("10s") == i
