"""app.tick(): one bounded pass, for serverless functions and tests."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from streamline import Context, Worker, Workflow
from streamline.errors import InvalidPolicy


def echoing(order: list[Any] | None = None) -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow("echo")

    @wf.step
    async def echo(ctx: Context[Any]) -> Any:
        if order is not None:
            order.append(ctx.input)
        return ctx.input

    return wf


async def test_a_tick_drives_whatever_is_due_to_its_end(make_app: Any) -> None:
    wf = echoing()
    async with make_app(wf, worker=False) as app:
        assert await app.tick() == 0
        handles = await app.start_many(wf, list(range(20)))
        assert await app.tick() == 20
        assert [await handle.result(0) for handle in handles] == list(range(20))
        assert await app.tick() == 0


async def test_a_tick_takes_no_more_than_it_is_told(make_app: Any, runs: Any) -> None:
    order: list[Any] = []
    wf = echoing(order)
    async with make_app(wf, worker=False) as app:
        await app.start_many(wf, list(range(7)))
        assert [await app.tick(max_runs=3) for _ in range(4)] == [3, 3, 1, 0]
        assert await app.tick(max_runs=0) == 0
    assert sorted(order) == list(range(7))


async def test_a_tick_takes_more_runs_than_it_can_hold_at_once(make_app: Any) -> None:
    order: list[Any] = []
    wf = echoing(order)
    async with make_app(worker=False) as starting:
        await starting.start_many(wf, list(range(25)))
    app = make_app(wf, worker=Worker(concurrency=4, claim_batch=3, poll_interval="1h"))
    app._worker, settings = None, app._worker
    async with app:
        app._worker = settings
        assert await app.tick() == 25
    assert sorted(order) == list(range(25))


async def test_a_tick_ends_within_its_budget_and_releases_the_rest(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("slow")
    ended = []

    @wf.step
    async def slow(ctx: Context[Any]) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(ctx.run_id)

    async with make_app(wf, worker=False) as app:
        handles = await app.start_many(wf, [None] * 3)
        began = time.monotonic()
        assert await app.tick(budget="300ms") == 3
        assert time.monotonic() - began < 10
        runs = [await handle.get() for handle in handles]
    assert len(ended) == 3
    assert {run.status for run in runs} == {"waiting"}
    assert all(run.due_at is not None and run.worker is None for run in runs)
    assert all(run.attempt == 0 for run in runs)


async def test_a_tick_finishes_the_present_step_within_its_budget_but_begins_no_other(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("two")
    calls = []

    @wf.step
    async def first(ctx: Context[Any]) -> None:
        calls.append("first")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return

    @wf.step
    async def second(ctx: Context[Any]) -> None:
        calls.append("second")

    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        await app.tick(budget="200ms")
        run = await handle.get()
        assert calls == ["first"]
        assert run.status == "waiting"
        await app.tick()
        assert await handle.status() == "done"


async def test_a_tick_does_not_wait_for_what_falls_due_later(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("sleeper")

    @wf.step
    async def sleeper(ctx: Context[Any]) -> str:
        await ctx.sleep("50ms")
        return "woken"

    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        assert await app.tick() == 1
        assert await handle.status() == "waiting"
        await asyncio.sleep(0.06)
        assert await app.tick() == 1
        assert await handle.result(0) == "woken"


async def test_a_tick_begins_nothing_that_falls_due_while_it_works(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("self")
    app: Any = None

    @wf.step
    async def again(ctx: Context[Any]) -> None:
        if ctx.input < 3:
            await app.start(wf, ctx.input + 1)

    async with make_app(wf, worker=False) as opened:
        app = opened
        await app.start(wf, 0)
        taken = [await app.tick() for _ in range(5)]
    assert taken == [1, 1, 1, 1, 0]


async def test_ticks_at_once_share_the_work(make_app: Any) -> None:
    order: list[Any] = []
    wf = echoing(order)
    async with make_app(wf, worker=False) as app:
        await app.start_many(wf, list(range(20)))
        taken = await asyncio.gather(*(app.tick() for _ in range(4)))
    assert sorted(order) == list(range(20))
    assert sum(taken) == 20


async def test_a_cancelled_tick_releases_its_runs(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("slow")
    entered = asyncio.Event()

    @wf.step
    async def slow(ctx: Context[Any]) -> str:
        if entered.is_set():
            return "done"
        entered.set()
        await asyncio.sleep(60)
        return "never"

    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        ticking = asyncio.ensure_future(app.tick(budget="1s"))
        await entered.wait()
        ticking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(ticking, 25)
        assert await app.tick() == 1
        assert await handle.result(0) == "done"


@pytest.mark.parametrize(
    "wish", [{"budget": -1}, {"budget": "soon"}, {"max_runs": -1}, {"max_runs": "all"}, {"max_runs": True}], ids=repr
)
async def test_bounds_that_make_no_sense_are_refused(make_app: Any, wish: dict[str, Any]) -> None:
    async with make_app(echoing(), worker=False) as app:
        await app.start("echo")
        with pytest.raises(InvalidPolicy) as caught:
            await app.tick(**wish)
        assert caught.value.field in wish
