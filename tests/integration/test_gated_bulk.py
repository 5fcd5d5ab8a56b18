"""Bulk starts of workflows with gates: few round trips, and the same guarantees for each run."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from streamline import Concurrency, Throttle, Worker
from streamline.errors import ConcurrencyLimitReached, InvalidInput, InvalidKey
from tests.integration.counted_commands import Commands, counted_app
from tests.integration.meters import Meter, at_rest, by_first, most_in_a_window, working
from tests.integration.test_throttling import dues, starts

STILL = Worker(lease="1h", poll_interval="1h", concurrency=1, drain=0)


async def test_a_limited_workflow(make_app: Any, runs: Any) -> None:
    meter = Meter(hold=False, pace=0.002)
    wf = working(meter, concurrency=Concurrency(4, key=by_first))
    async with make_app(wf) as app:
        inputs = [[key, i] for i in range(20) for key in "ab"]
        handles = await app.start_many(wf, inputs, tags=["bulk"])
        assert all(handle.created for handle in handles)
        assert await asyncio.gather(*(handle.result("20s") for handle in handles)) == inputs
        assert max(meter.most["a"], meter.most["b"]) <= 4
        await at_rest(runs)


async def test_those_of_a_bulk_go_by_priority_then_age(make_app: Any) -> None:
    meter = Meter(hold=False)
    wf = working(meter, concurrency=Concurrency(1))
    async with make_app(wf, worker=False) as app:
        low = await app.start_many(wf, ["low 1", "low 2"], priority=-1)
        plain = await app.start_many(wf, ["plain 1", "plain 2"])
        high = await app.start_many(wf, ["high 1", "high 2"], priority=1)
        async with make_app(wf):
            await asyncio.gather(*(handle.result("20s") for handle in (*low, *plain, *high)))
    # Those of one call are as old as one another.
    assert [name.split()[0] for name in meter.order] == ["high", "high", "plain", "plain", "low", "low"]


async def test_a_throttled_workflow(make_app: Any, runs: Any) -> None:
    window = timedelta(milliseconds=200)
    wf = working(Meter(hold=False), throttle=Throttle(4, window))
    async with make_app(wf) as app:
        handles = await app.start_many(wf, list(range(16)))
        assert await asyncio.gather(*(handle.result("20s") for handle in handles)) == list(range(16))
        assert most_in_a_window(await starts(runs), window) <= 4
        await at_rest(runs)


async def test_the_keys_of_a_bulk_are_spread_apart(make_app: Any, runs: Any) -> None:
    wf = working(Meter(), throttle=Throttle(1, "60s", key=by_first))
    async with make_app(wf, worker=False) as app:
        await app.start_many(wf, [[key, i] for i in range(3) for key in "ab"])
        first, *_ = due = await dues(runs)
    after = [round((instant - first).total_seconds() / 60) for instant in due]
    assert after == [0, 0, 1, 1, 2, 2]


async def test_ten_thousand_in_few_round_trips(mongo_uri: str, database_name: str, database: Any) -> None:
    commands, many = Commands(), 10_000
    wf = working(Meter(), concurrency=Concurrency(2, key=by_first), throttle=Throttle(5, "1s"))
    async with counted_app(mongo_uri, database_name, commands, wf, worker=STILL) as app:
        await app.pause_workflow(wf)
        handles = await app.start_many(wf, [[i % 7, i] for i in range(many)])
        assert len({handle.id for handle in handles}) == many
        assert commands.writes <= many / 250
        assert commands.reads <= 10
        assert await database["streamline.runs"].estimated_document_count() == many


async def test_a_bulk_that_is_started_again_finds_its_runs_many_at_a_time(
    mongo_uri: str, database_name: str, database: Any
) -> None:
    commands, many = Commands(), 1000
    wf = working(Meter(), idempotency_key=lambda number: f"k{number}")
    async with counted_app(mongo_uri, database_name, commands, wf, worker=STILL) as app:
        await app.pause_workflow(wf)
        first = await app.start_many(wf, list(range(many)))
        commands.clear()
        again = await app.start_many(wf, list(range(many + 1)))
        assert [handle.id for handle in again[:many]] == [handle.id for handle in first]
        assert [handle.created for handle in again] == [False] * many + [True]
        assert commands.by_name["insert"] <= many / 10
        assert await database["streamline.runs"].estimated_document_count() == many + 1


async def test_one_key_makes_one_run_of_a_bulk(make_app: Any, runs: Any) -> None:
    meter = Meter()
    wf = working(meter, concurrency=Concurrency(2), throttle=Throttle(2, "60s"), idempotency_key=lambda given: given[0])
    async with make_app(wf) as app:
        handles = await app.start_many(wf, [[key, i] for i in range(5) for key in "ab"])
        assert [handle.created for handle in handles] == [True, True] + [False] * 8
        assert len({handle.id for handle in handles}) == await runs.count_documents({}) == 2
        meter.let_all_go()
        await asyncio.gather(*(handle.result("5s") for handle in handles))
        await at_rest(runs)


async def test_a_bulk_that_does_not_fit_is_refused_as_a_whole(make_app: Any, runs: Any) -> None:
    wf = working(Meter(), concurrency=Concurrency(2, on_limit="reject"))
    async with make_app(wf, worker=False) as app:
        with pytest.raises(ConcurrencyLimitReached):
            await app.start_many(wf, list(range(3)))
        assert await runs.count_documents({}) == 0
        assert len(await app.start_many(wf, list(range(2)))) == await runs.count_documents({}) == 2


async def test_a_bulk_that_begins_later_takes_no_slots_now(make_app: Any, runs: Any) -> None:
    wf = working(Meter(hold=False), concurrency=Concurrency(1), throttle=Throttle(1, "60s"))
    async with make_app(wf) as app:
        await app.start_many(wf, list(range(3)), delay="1h")
        assert not await runs.count_documents({"$or": [{"slot": {"$exists": True}}, {"queued_at": {"$exists": True}}]})
        assert await (await app.start(wf, "now")).result("5s") == "now"


async def test_what_is_not_allowed_is_refused_before_anything_is_stored(make_app: Any, runs: Any) -> None:
    wf = working(Meter(), input=list[int], concurrency=Concurrency(1, key=lambda given: "" if given[0] == 3 else "k"))
    async with make_app(wf, worker=False) as app:
        with pytest.raises(InvalidKey):
            await app.start_many(wf, [[1], [2], [3]])
        with pytest.raises(InvalidInput):
            await app.start_many(wf, [[1], ["x"]])
        assert await runs.count_documents({}) == 0
        assert await app.start_many(wf, []) == []
