"""Events for many: kept durably, they reach the runs that wait now and later, each once and in order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamline import Context, Workflow
from streamline.domain.heard import HEARD_MAX
from streamline.errors import InvalidKey, InvalidQuery, PayloadTooLarge, RunNotFound, SerializationError
from tests.waiting import eventually, status_of


def waiting_for(*names: str, **options: Any) -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow("waiting")

    @wf.step
    async def wait(ctx: Context[Any]) -> list[Any]:
        return [await ctx.wait_for(name, **options) for name in names]

    return wf


async def listens(runs: Any, name: str, count: int = 1) -> None:
    await eventually(lambda: _listens(runs, name, count))


async def _listens(runs: Any, name: str, count: int) -> bool:
    return bool(await runs.count_documents({"listens": name, "lease": None}) == count)


async def test_an_event_reaches_every_run_that_waits_for_it(make_app: Any, runs: Any) -> None:
    wf = waiting_for("go")
    async with make_app(wf) as app:
        handles = await app.start_many(wf, range(5))
        await listens(runs, "go", 5)
        assert await app.send_event("other") == 0
        assert await app.send_event("go", 7) == 5
        assert [await handle.result("10s") for handle in handles] == [[7]] * 5
    assert await runs.count_documents({"listens": {"$exists": True}}) == 0


async def test_an_event_that_comes_before_the_wait_is_kept(make_app: Any, runs: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("late")

    @wf.step
    async def late(ctx: Context[Any]) -> Any:
        await ctx.wait("begin")
        return await ctx.wait_for("go")

    async with make_app(wf) as app:
        handle = await app.start(wf)
        await status_of(handle, "waiting")
        assert await app.send_event("go", "early") == 0
        await handle.resume()
        assert await handle.result("10s") == "early"


async def test_an_event_that_reached_nobody_is_for_runs_that_start_soon_after(make_app: Any) -> None:
    wf = waiting_for("go")
    async with make_app(wf) as app:
        assert await app.send_event("go", "early") == 0
        assert await (await app.start(wf)).result("10s") == ["early"]


async def test_an_event_that_reached_somebody_is_not_for_runs_that_start_later(make_app: Any, runs: Any) -> None:
    wf = waiting_for("go")
    async with make_app(wf) as app:
        first = await app.start(wf)
        await listens(runs, "go")
        assert await app.send_event("go", 1) == 1
        assert await first.result("10s") == [1]
        second = await app.start(wf)
        await listens(runs, "go")
        await status_of(second, "waiting")
        assert "heard" not in await runs.find_one({"_id": second.id})


async def test_a_filter_says_which_runs_are_meant(make_app: Any, runs: Any) -> None:
    wf = waiting_for("paid")
    async with make_app(wf) as app:
        handles = [await app.start(wf, {"order": n}, metadata={"shop": n % 2}) for n in range(4)]
        await listens(runs, "paid", 4)
        assert await app.send_event("paid", "x", match={"input.order": 2}) == 1
        assert await handles[2].result("10s") == ["x"]
        assert await app.send_event("paid", "y", match={"metadata.shop": 1}) == 2
        assert await handles[0].status() == "waiting"


async def test_a_run_takes_each_event_once_and_in_order(make_app: Any, runs: Any) -> None:
    wf = waiting_for(*["tick"] * 30)
    async with make_app(wf) as app, make_app(worker=False) as other:
        handle = await app.start(wf)
        await listens(runs, "tick")
        for n in range(30):
            await (app if n % 2 else other).send_event("tick", n)
        assert await handle.result("20s") == list(range(30))


async def test_events_of_many_senders_at_once_all_arrive_once(make_app: Any, runs: Any) -> None:
    wf = waiting_for(*["tick"] * 40)
    async with make_app(wf) as app, make_app(worker=False) as one, make_app(worker=False) as two:
        handle = await app.start(wf)
        senders = [app, one, two]
        await asyncio.gather(*(senders[n % 3].send_event("tick", n) for n in range(40)))
        assert sorted(await handle.result("20s")) == list(range(40))


async def test_a_run_may_take_more_events_than_it_remembers(make_app: Any) -> None:
    count = HEARD_MAX + 10
    wf = waiting_for(*["tick"] * count)
    async with make_app(wf) as app:
        handle = await app.start(wf)
        await status_of(handle, "waiting")
        for n in range(count):
            await app.send_event("tick", n)
        assert await handle.result("20s") == list(range(count))


async def test_waits_outlast_restarts_and_other_processes_bring_the_event(make_app: Any, runs: Any) -> None:
    wf = waiting_for("go", "go")
    async with make_app(wf) as app:
        handle = await app.start(wf)
        await listens(runs, "go")
    async with make_app(worker=False) as stranger:
        assert await stranger.send_event("go", 1) == 1
        assert await stranger.send_event("go", 2) == 0  # nobody drives the run: it takes it when somebody does
    async with make_app(wf) as app:
        assert await app.handle(handle.id).result("10s") == [1, 2]


async def test_declared_steps_and_matches_of_payloads(make_app: Any, runs: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("declared")
    paid = wf.event_step("paid", event="paid", match={"order.id": 7})

    @wf.step
    async def after(ctx: Context[Any]) -> Any:
        return ctx.output(paid)

    async with make_app(wf) as app:
        handle = await app.start(wf)
        await listens(runs, "paid")
        assert await app.send_event("paid", {"order": {"id": 8}}) == 0
        assert await app.send_event("paid", {"order": {"id": 7}}) == 1
        assert await handle.result("10s") == {"order": {"id": 7}}


async def test_an_event_that_does_not_fit_the_model_is_passed_over(make_app: Any, runs: Any) -> None:
    wf = waiting_for("go", model=int)
    async with make_app(wf) as app:
        await app.send_event("go", "seven")
        handle = await app.start(wf)
        await listens(runs, "go")
        await app.send_event("go", "eight")
        await app.send_event("go", 9)
        assert await handle.result("10s") == [9]


async def test_a_run_hears_what_it_emits_only_where_it_waits_for_it(make_app: Any, runs: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("talking")

    @wf.step
    async def talk(ctx: Context[Any]) -> list[Any]:
        await ctx.emit("said", "by itself")
        return [await ctx.wait_for("said"), await ctx.wait_for("said")]

    other = waiting_for("said")
    async with make_app(wf, other) as app:
        waiting = await app.start(other)
        await listens(runs, "said")
        handle = await app.start(wf)
        assert await waiting.result("10s") == ["by itself"]
        await listens(runs, "said")
        await app.send_event("said", "by others")
        assert await handle.result("10s") == ["by itself", "by others"]


async def test_a_paused_run_keeps_the_event(make_app: Any, runs: Any) -> None:
    wf = waiting_for("go")
    async with make_app(wf) as app:
        handle = await app.start(wf)
        await listens(runs, "go")
        await handle.pause()
        assert await app.send_event("go", 1) == 1
        assert await handle.status() == "waiting"
        await handle.unpause()
        assert await handle.result("10s") == [1]


async def test_a_run_that_has_ended_is_not_reached(make_app: Any, runs: Any) -> None:
    wf = waiting_for("go")
    async with make_app(wf) as app:
        handle = await app.start(wf)
        await listens(runs, "go")
        await handle.cancel()
        assert await app.send_event("go") == 0
        await handle.retry()
        await listens(runs, "go", 0)
        assert await handle.result("10s") == [None]  # sent while it had ended, and taken when it goes on


async def test_a_filter_may_ask_for_the_state_as_it_is_stored(make_app: Any, runs: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("stateful", state=dict)

    @wf.step
    async def work(ctx: Context[Any, Any]) -> Any:
        ctx.state["stage"] = ctx.input
        await ctx.save()
        return await ctx.wait_for("go")

    async with make_app(wf) as app:
        one, two = [await app.start(wf, stage) for stage in ("a", "b")]
        await listens(runs, "go", 2)
        assert await app.send_event("go", 1, match={"state.stage": {"$in": ["b", "c"]}}) == 1
        assert await two.result("10s") == 1
        assert await one.status() == "waiting"


async def test_filters_of_kept_events_are_compared_when_a_wait_looks_back(make_app: Any) -> None:
    wf = waiting_for("go", "go")
    async with make_app(wf) as app:
        for n in range(50):
            await app.send_event("go", n, match={"input": n % 25})
        handle = await app.start(wf, 7)
        assert await handle.result("10s") == [7, 32]


HOSTILE = [
    {"$where": "sleep(1000)"},
    {"$expr": {"$function": {"body": "", "args": [], "lang": "js"}}},
    {"input.a": {"$regex": "(a+)+$"}},
    {"output": 1},
    {"tenant_id": {"$ne": None}},
    {"_id": {"$gt": ""}},
    {"listens": "other"},
    {"$or": [{"input.a": 1}, {"lease": 1}]},
    {"input.a": {"$in": 5}},
    "input",
    5,
]


@pytest.mark.parametrize("match", HOSTILE, ids=repr)
async def test_a_filter_that_reaches_too_far_is_refused_and_nothing_is_stored(
    make_app: Any, database: Any, match: Any
) -> None:
    async with make_app(worker=False) as app:
        with pytest.raises(InvalidQuery) as refused:
            await app.send_event("go", match=match)
        assert refused.value.field == "match"
    assert await database["streamline.inbox"].count_documents({}) == 0


@pytest.mark.parametrize(
    ("name", "payload", "options", "error"),
    [
        ("", None, {}, InvalidKey),
        ({"$gt": ""}, None, {}, InvalidKey),
        ("go", object(), {}, SerializationError),
        ("go", "x" * 5_000_000, {}, PayloadTooLarge),
        ("go", None, {"run_id": "a", "match": {"input": 1}}, InvalidQuery),
        ("go", None, {"run_id": "nobody"}, RunNotFound),
    ],
)
async def test_what_cannot_be_sent_is_refused_and_nothing_is_stored(
    make_app: Any, database: Any, name: Any, payload: Any, options: Any, error: Any
) -> None:
    async with make_app(worker=False) as app:
        with pytest.raises(error):
            await app.send_event(name, payload, **options)
    assert await database["streamline.inbox"].count_documents({}) == 0


async def test_values_that_look_like_operators_arrive_as_they_are(make_app: Any) -> None:
    wf = waiting_for("$go", match={"$a": "$b"})
    payload = {"$a": "$b", "$where": "1", "x.y": {"$set": {"status": "done"}}}
    async with make_app(wf) as app:
        handle = await app.start(wf, {"$eq": 1})
        await app.send_event("$go", payload, match={"input": {"$eq": {"$eq": 1}}})
        assert await handle.result("10s") == [payload]


async def test_a_filter_so_large_that_it_is_in_the_way_of_runs_that_look_back_is_refused(make_app: Any) -> None:
    wf = waiting_for("go")
    long = {"input": {"$in": ["x" * 250_000]}}
    async with make_app(wf) as app:
        with pytest.raises(InvalidQuery) as refused:
            await app.send_event("go", match={"input": {"$in": ["x" * 300_000]}})
        assert refused.value.field == "match"
        assert not await app.database["streamline.inbox"].count_documents({})
        await asyncio.gather(*(app.send_event("go", match=long) for _ in range(20)))
        await app.send_event("go", 7)
        assert await (await app.start(wf)).result("20s") == [7]
