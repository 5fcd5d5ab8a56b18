"""Numbers that a handler adds up, and beats that it asks for."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from streamline import Context, RetryPolicy, Worker, Workflow
from streamline.errors import HeartbeatLost, InvalidInput, InvalidKey
from tests.waiting import eventually, status_of

QUICK_RETRY = RetryPolicy(max_attempts=3, delay=0)


def workflow(**options: Any) -> Workflow[Any, Any, Any]:
    return Workflow("telling", retry=QUICK_RETRY, **options)


async def nothing() -> None: ...


# ---- metric ----------------------------------------------------------------------------------------------------------


async def test_numbers_are_summed_over_steps_and_attempts(make_app: Any, runs: Any) -> None:
    wf = workflow()

    @wf.step
    async def first(ctx: Context[Any]) -> None:
        ctx.metric("tokens", 3)
        ctx.metric("tokens", 4)
        if ctx.attempt < 3:
            raise ValueError("again")

    @wf.step
    async def second(ctx: Context[Any]) -> None:
        ctx.metric("tokens", 100)
        ctx.metric("cost", 0.5)
        ctx.metric("refund", -2)

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.metrics == {"tokens": 3 * 7 + 100, "cost": 0.5, "refund": -2}
    assert (await runs.find_one({}))["metrics"] == run.metrics


async def test_a_run_without_numbers_has_none(make_app: Any) -> None:
    wf = workflow()

    @wf.step
    async def silent(ctx: Context[Any]) -> None: ...

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.metrics == {}


async def test_numbers_of_a_run_that_is_under_way_can_be_read(make_app: Any) -> None:
    wf = workflow()

    @wf.step
    async def waits(ctx: Context[Any]) -> None:
        ctx.metric("tokens", 5)
        await ctx.sleep("1h")

    async with make_app(wf) as app:
        run = await status_of(await app.start(wf), "waiting")
        assert run.metrics == {"tokens": 5}


async def test_a_number_inside_a_durable_call_counts_once_over_re_entry(make_app: Any) -> None:
    wf, entered = workflow(), list[int]()

    @wf.step
    async def agent(ctx: Context[Any]) -> None:
        entered.append(1)

        async def ask() -> str:
            ctx.metric("tokens", 5)
            return "answer"

        await ctx.call("ask", ask)
        await ctx.sleep(0.01)
        await ctx.sleep(0.01)

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert len(entered) == 3
    assert run.metrics == {"tokens": 5}


async def test_nothing_said_while_another_branch_writes_is_lost_or_counted_twice(make_app: Any) -> None:
    wf = workflow()

    @wf.step
    async def both(ctx: Context[Any]) -> None:
        async def talks() -> None:
            for n in range(60):
                ctx.metric("said", 1)
                ctx.log.info("line %d", n)
                await asyncio.sleep(0.001)

        async def writes() -> None:
            for n in range(30):
                await ctx.call(f"call-{n}", nothing)

        await ctx.gather("both", {"talks": talks, "writes": writes})

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.status == "done"
    assert run.metrics == {"said": 60}
    assert [line.message for line in run.logs] == [f"line {n}" for n in range(60)]


@pytest.fixture
def hectic_threads() -> Iterator[None]:
    """Let threads take turns after every few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hectic_threads")
async def test_nothing_said_in_threads_is_lost_or_counted_twice(make_app: Any) -> None:
    wf = workflow()

    @wf.step
    async def many(ctx: Context[Any]) -> None:
        def talks(item: int, index: int) -> None:
            for n in range(300):
                ctx.metric("said", 1)
                if n % 15 == 0:
                    ctx.log.info("item %d", item)

        async def writes() -> None:
            for n in range(40):
                await ctx.call(f"call-{n}", nothing)

        async def talkers() -> None:
            await ctx.each("items", range(8), talks)

        await ctx.gather("both", {"talkers": talkers, "writes": writes})

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.metrics == {"said": 8 * 300}
    assert sorted(line.message for line in run.logs) == sorted(f"item {n}" for n in range(8) for _ in range(20))


@pytest.mark.parametrize("pause", [0, 0.0005, 0.001, 0.002])
async def test_a_branch_that_is_ended_while_its_progress_is_written_has_said_it_once(
    make_app: Any, pause: float
) -> None:
    wf = workflow()

    @wf.step
    async def races(ctx: Context[Any]) -> None:
        async def slow() -> None:
            ctx.metric("said", 1)
            ctx.log.info("said")
            await ctx.progress(0.5)
            await ctx.sleep("1h")

        async def fast() -> None:
            await asyncio.sleep(pause)

        await ctx.gather("both", {"slow": slow, "fast": fast}, mode="race")

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.status == "done"
    assert (run.metrics, len(run.logs), run.steps[0].progress.fraction) == ({"said": 1}, 1, 0.5)


@pytest.mark.parametrize("value", [True, math.nan, math.inf, "1", None])
async def test_a_number_is_a_finite_number(make_app: Any, value: Any) -> None:
    wf = workflow()

    @wf.step
    async def wrong(ctx: Context[Any]) -> str:
        with pytest.raises(InvalidInput) as caught:
            ctx.metric("n", value)
        with pytest.raises(InvalidKey):
            ctx.metric("a.b", 1)
        return str(caught.value.field)

    async with make_app(wf) as app:
        handle = await app.start(wf)
        assert await handle.result("20s") == "value"
        assert (await handle.get()).metrics == {}


@pytest.mark.parametrize("value", [2**70, -(2**70)])
async def test_a_number_that_the_database_cannot_hold_fails_the_step_at_most(make_app: Any, value: int) -> None:
    wf = workflow()

    @wf.step(max_attempts=1)
    async def large(ctx: Context[Any]) -> None:
        ctx.metric("n", value)

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("5s")  # above all, it ends
    assert run.ended


# ---- heartbeat -------------------------------------------------------------------------------------------------------


async def test_the_lease_grows_during_a_long_step(make_app: Any, runs: Any) -> None:
    wf, gate = workflow(), asyncio.Event()

    @wf.step
    async def long(ctx: Context[Any]) -> None:
        await gate.wait()

    async with make_app(wf, worker=Worker(lease="800ms")) as app:
        handle = await app.start(wf)
        until = (await eventually(lambda: runs.find_one({"lease.until": {"$exists": True}})))["lease"]["until"]
        await eventually(lambda: runs.find_one({"lease.until": {"$gt": until}}))
        gate.set()
        run = await handle.wait("20s")
    assert (run.status, run.recovery_count, run.attempt) == ("done", 0, 1)


async def test_a_heartbeat_of_the_handler_extends_the_lease_at_once(make_app: Any, runs: Any) -> None:
    wf, seen = workflow(), list[Any]()

    @wf.step
    async def beats(ctx: Context[Any]) -> None:
        seen.append((await runs.find_one({}))["lease"]["until"])
        await asyncio.sleep(0.005)
        await ctx.heartbeat()
        seen.append((await runs.find_one({}))["lease"]["until"])
        await ctx.heartbeat()  # at most once a second
        seen.append((await runs.find_one({}))["lease"]["until"])

    async with make_app(wf, worker=Worker(lease="1h")) as app:
        await app.run(wf, timeout="20s")
    assert seen[0] < seen[1] == seen[2]


async def test_a_heartbeat_tells_a_handler_that_its_lease_is_lost(make_app: Any, runs: Any) -> None:
    wf, told = workflow(), list[str]()

    @wf.step
    async def beats(ctx: Context[Any]) -> None:
        if ctx.attempt > 1 or told:
            return
        await runs.update_one({"_id": ctx.run_id}, {"$set": {"lease.token": "another's"}})
        try:
            await ctx.heartbeat()
        except HeartbeatLost:
            told.append("lost")
            raise

    async with make_app(wf, worker=Worker(lease="1s")) as app:
        run = await (await app.start(wf)).wait("20s")  # whoever had it died; it is taken again
    assert told == ["lost"]
    assert run.status == "done"
    assert run.recovery_count == 1
