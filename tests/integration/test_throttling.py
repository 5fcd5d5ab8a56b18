"""Throttles: no rolling window over all starts holds more than the limit, and none is dropped."""

from __future__ import annotations

import asyncio
import itertools
from datetime import datetime, timedelta
from typing import Any

import pytest

from streamline import Throttle
from tests.integration.meters import Meter, at_rest, by_first, most_in_a_window, working
from tests.waiting import eventually


async def starts(runs: Any, **query: Any) -> list[datetime]:
    return [run["started_at"] async for run in runs.find({**query, "started_at": {"$exists": True}})]


async def dues(runs: Any) -> list[datetime]:
    return sorted([run["due_at"] async for run in runs.find({"due_at": {"$exists": True}})])


async def test_the_first_begin_at_once_and_the_next_when_the_oldest_leaves_the_window(make_app: Any, runs: Any) -> None:
    meter = Meter(hold=False)
    wf = working(meter, throttle=Throttle(2, "600ms"))
    async with make_app(wf) as app:
        handles = [await app.start(wf, i) for i in range(3)]
        third = await handles[2].get()
        assert third.status == "draft"
        oldest = min(await starts(runs))
        assert third.due_at is not None
        assert third.due_at >= oldest + timedelta(milliseconds=600)
        assert third.due_at < oldest + timedelta(milliseconds=950)
        assert await asyncio.gather(*(handle.result("20s") for handle in handles)) == [0, 1, 2]
        assert most_in_a_window(await starts(runs), timedelta(milliseconds=600)) == 2
        await at_rest(runs)


@pytest.mark.parametrize("how", ["one by one", "together", "in bulk"])
async def test_a_burst_of_five_is_spread(make_app: Any, runs: Any, how: str) -> None:
    wf = working(Meter(), throttle=Throttle(2, "60s"))
    async with make_app(wf, worker=False) as app:
        if how == "one by one":
            handles = [await app.start(wf, i) for i in range(5)]
        elif how == "together":
            handles = await asyncio.gather(*(app.start(wf, i) for i in range(5)))
        else:
            handles = await app.start_many(wf, list(range(5)))
        assert len({handle.id for handle in handles}) == await runs.count_documents({}) == 5
        first, *_, last = due = await dues(runs)
        assert due[1] - first < timedelta(seconds=2)
        for later, seconds in zip(due[2:], (60, 90, 120), strict=True):
            assert abs((later - first).total_seconds() - seconds) < 2
        assert last == max(due)


async def test_sequential_starts_are_spread_in_their_order(make_app: Any) -> None:
    wf = working(Meter(), throttle=Throttle(1, "60s"))
    async with make_app(wf, worker=False) as app:
        due = [(await (await app.start(wf, i)).get()).due_at for i in range(6)]
    pairs = itertools.pairwise(due)
    assert all(later - earlier >= timedelta(seconds=60) for earlier, later in pairs if earlier and later)


async def test_keys_are_throttled_apart(make_app: Any) -> None:
    wf = working(Meter(hold=False), throttle=Throttle(1, "60s", key=by_first))
    async with make_app(wf) as app:
        for key in "abc":
            assert await (await app.start(wf, [key, 1])).result("20s") == [key, 1]
        assert (await (await app.start(wf, ["a", 2])).get()).status == "draft"


async def test_two_workflows_are_throttled_apart(make_app: Any) -> None:
    one, two = (working(Meter(hold=False), name, throttle=Throttle(1, "60s")) for name in ("one", "two"))
    async with make_app(one, two) as app:
        assert await (await app.start(one, 1)).result("20s") == 1
        assert await (await app.start(two, 2)).result("20s") == 2


@pytest.mark.parametrize("workers", [1, 3])
async def test_no_window_holds_more_than_the_limit_whoever_starts(make_app: Any, runs: Any, workers: int) -> None:
    meter, window = Meter(hold=False), timedelta(milliseconds=200)
    wf = working(meter, throttle=Throttle(3, window))
    async with make_app(wf) as one, make_app(wf, worker=workers > 1) as two, make_app(wf, worker=workers > 2) as three:
        apps = (one, two, three)
        handles = await asyncio.gather(*(apps[i % 3].start(wf, i) for i in range(24)))
        await asyncio.gather(*(handle.result("20s") for handle in handles))
        assert most_in_a_window(await starts(runs), window) == 3
        assert len(meter.begun) == 24
        await at_rest(runs)


async def test_a_worker_that_comes_late_does_not_make_up_for_it(make_app: Any, runs: Any) -> None:
    meter, window = Meter(hold=False), timedelta(milliseconds=300)
    wf = working(meter, throttle=Throttle(2, window))
    async with make_app(wf, worker=False) as app:
        handles = await app.start_many(wf, list(range(10)))
        await asyncio.sleep(1.0)  # by now most are due
        async with make_app(wf):
            await asyncio.gather(*(handle.result("20s") for handle in handles))
        assert most_in_a_window(await starts(runs), window) == 2
    # Seen from outside: a handler may be entered a little later than its run began, and the next at once.
    begun = sorted(meter.begun.values())
    assert all(third - first > 0.1 for first, third in zip(begun, begun[2:], strict=False))


async def test_delayed_runs_are_counted_when_they_begin(make_app: Any, runs: Any) -> None:
    window = timedelta(milliseconds=300)
    wf = working(Meter(hold=False), throttle=Throttle(1, window))
    async with make_app(wf) as app:
        handles = [await app.start(wf, i, delay="200ms") for i in range(4)]
        await asyncio.gather(*(handle.result("20s") for handle in handles))
        assert most_in_a_window(await starts(runs), window) == 1


async def test_a_delayed_run_costs_nothing_before_it_is_due(make_app: Any) -> None:
    wf = working(Meter(hold=False), throttle=Throttle(1, "60s"))
    async with make_app(wf) as app:
        await app.start(wf, "later", delay="1h")
        assert await (await app.start(wf, "now")).result("20s") == "now"


async def test_a_retry_begins_in_its_turn(make_app: Any, runs: Any) -> None:
    meter = Meter(hold=False)
    wf = working(meter, throttle=Throttle(1, "300ms"))
    async with make_app(wf) as app:
        run = await app.start(wf, "fail")
        first = await run.wait("20s")
        await run.retry()
        again = await run.wait("20s")
        assert (again.status, meter.order) == ("failed", ["fail", "fail"])
        assert first.started_at is not None
        assert again.ended_at is not None
        assert again.ended_at - first.started_at >= timedelta(milliseconds=300)
        await at_rest(runs)


async def test_a_start_with_a_taken_key_costs_no_turn(make_app: Any, runs: Any) -> None:
    wf = working(Meter(), throttle=Throttle(2, "60s"))
    async with make_app(wf, worker=False) as one, make_app(wf, worker=False) as two:
        handles = await asyncio.gather(*((one, two)[i % 2].start(wf, i, idempotency_key="k") for i in range(40)))
        assert len({handle.id for handle in handles}) == 1
        assert await runs.count_documents({}) == 1
        again = await one.start_many(wf, [1], idempotency_key="k")
        assert again[0].id == handles[0].id
        (ledger,) = [each async for each in runs.database["streamline.gates"].find()]
        assert len(ledger["plan"]) == 1
        other = await one.start(wf, "other")
        assert (await other.get()).due_at - (await handles[0].get()).created_at < timedelta(seconds=30)


async def test_a_ledger_is_kept_as_long_as_it_says_something(make_app: Any, runs: Any) -> None:
    wf, gates = working(Meter(hold=False), throttle=Throttle(1, "60s")), runs.database["streamline.gates"]
    async with make_app(wf) as app:
        await app.start(wf, 1)
        second = await (await app.start(wf, 2)).get()
        ledger = await gates.find_one({})
        assert ledger["expire_at"] >= second.due_at + timedelta(seconds=60)
        index = (await gates.index_information())["gates_expire"]
        assert (index["key"], index["expireAfterSeconds"]) == ([("expire_at", 1)], 0)
        # The database removes it in time; whoever remembers it finds out.
        await gates.delete_one({})
        assert await (await app.start(wf, 3)).result("20s") == 3


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1)])
async def test_a_deploy_changes_the_limit(make_app: Any, runs: Any, before: int, after: int) -> None:
    window = timedelta(milliseconds=400)
    old, new = (working(Meter(hold=False), throttle=Throttle(limit, window)) for limit in (before, after))
    async with make_app(old) as app:
        handles = await asyncio.gather(*(app.start(old, i) for i in range(3)))
        first = min(await eventually(lambda: starts(runs)))
    async with make_app(new) as app:
        handles += await asyncio.gather(*(app.start(new, i) for i in range(3, 6)))
        for handle in handles:
            await app.handle(handle.id).result("20s")
    all_starts = await starts(runs)
    assert most_in_a_window(all_starts, window) <= max(before, after)
    assert most_in_a_window([at for at in all_starts if at >= first + window], window) <= after


async def test_a_cancelled_run_does_not_begin(make_app: Any, runs: Any) -> None:
    meter = Meter(hold=False)
    wf = working(meter, throttle=Throttle(1, "300ms"))
    async with make_app(wf) as app:
        first, second, third = [await app.start(wf, i) for i in range(3)]
        await second.cancel()
        assert await first.result("20s") == 0
        assert await third.result("20s") == 2
        assert meter.order == [0, 2]
        await at_rest(runs)


async def test_a_start_by_limit_ends_a_run_whose_turn_comes_too_late(make_app: Any, runs: Any) -> None:
    wf = working(Meter(hold=False), throttle=Throttle(1, "700ms"))
    async with make_app(wf) as app:
        await app.start(wf, 1)
        late = await (await app.start(wf, 2, start_by="100ms")).wait("20s")
        assert late.status == "failed"
        assert late.error is not None
        assert late.error.code == "run.expired"
        await at_rest(runs)


async def test_a_ledger_that_was_removed_and_begun_anew_is_not_taken_for_the_one_that_is_remembered(
    make_app: Any, runs: Any
) -> None:
    wf = working(Meter(hold=False), throttle=Throttle(1, "30s"))
    async with make_app(wf) as one, make_app(wf) as other:
        await (await one.start(wf, 1)).result("10s")
        # As the server does, a day after the last start.
        await runs.database["streamline.gates"].delete_many({})
        await runs.delete_many({})
        await (await other.start(wf, 2)).result("10s")
        third = await (await one.start(wf, 3)).get()
        assert third.status == "draft"
        assert third.due_at is not None
        assert third.due_at >= min(await starts(runs)) + timedelta(seconds=30)


async def test_the_lease_of_a_start_counts_from_when_it_is_stored(make_app: Any, runs: Any) -> None:
    meter = Meter()
    wf = working(meter, throttle=Throttle(5, "30s"))
    async with make_app(wf) as app:
        runtime = app._open_session.runtime
        store, write = runtime.store, runtime.store.run

        async def slow(statement: Any, *arguments: Any) -> Any:
            answer = await write(statement, *arguments)
            if getattr(statement, "name", "") == "insert_gate":
                await asyncio.sleep(1.5)  # the answer is late
            return answer

        store.run = slow
        handle = await app.start(wf, 1)
        (run,) = [run async for run in runs.find({})]
        assert run["lease"]["at"] - run["started_at"] > timedelta(seconds=1)
        assert run["lease"]["until"] - run["lease"]["at"] >= timedelta(seconds=5)
        meter.let_all_go()
        assert await handle.result("10s") == 1
