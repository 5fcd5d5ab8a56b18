"""A workflow that is held up: no step of it begins anywhere, nothing is lost, and it goes on when it may."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamline import Concurrency, Context, Throttle, Worker, Workflow
from streamline.errors import InvalidName
from tests.integration.meters import Meter, at_rest, working
from tests.waiting import eventually

SLOW_LOOKS = Worker(concurrency=50, lease="5s", poll_interval="10m", drain="2s")


async def test_nothing_of_it_begins_and_other_workflows_go_on(make_app: Any) -> None:
    held, free = Meter(hold=False), Meter(hold=False)
    one, two = working(held, "one"), working(free, "two")
    async with make_app(one, two) as app:
        await app.pause_workflow("one")
        handle = await app.start(one, 1)
        assert await (await app.start(two, 2)).result("20s") == 2
        await asyncio.sleep(0.2)
        assert not held.begun
        assert (await handle.get()).status == "draft"
        await app.unpause_workflow(one)
        assert await handle.result("5s") == 1


async def test_all_processes_hear_of_it_at_once(make_app: Any) -> None:
    meters = Meter(hold=False), Meter(hold=False)
    one, two = (working(meter) for meter in meters)
    async with make_app(one, worker=SLOW_LOOKS) as first, make_app(two, worker=SLOW_LOOKS) as second:
        await first.pause_workflow(one)

        async def heard() -> bool:
            return bool((await second.stats()).paused == ("metered",))

        await eventually(heard, within=2)
        handles = [await app.start("metered", i) for i, app in enumerate((first, second))]
        await asyncio.sleep(0.2)
        assert not meters[0].begun
        assert not meters[1].begun
        await second.unpause_workflow("metered")
        for handle in handles:
            await handle.result("3s")


async def test_it_holds_over_a_restart(make_app: Any) -> None:
    meter = Meter(hold=False)
    wf = working(meter)
    async with make_app(wf) as app:
        await app.pause_workflow(wf)
        handle = await app.start(wf, 1)
    async with make_app(wf) as app:
        await asyncio.sleep(0.2)
        assert not meter.begun
        await app.unpause_workflow(wf)
        assert await app.handle(handle.id).result("5s") == 1


async def test_the_present_step_finishes_and_the_next_does_not_begin(make_app: Any) -> None:
    meter = Meter()
    wf: Workflow[Any, Any, Any] = Workflow("two-steps")

    @wf.step
    async def first(ctx: Context[Any]) -> None:
        await meter.work("first")

    @wf.step
    async def second(ctx: Context[Any]) -> str:
        await meter.work("second")
        return "done"

    async with make_app(wf) as app:
        handle = await app.start(wf)
        await eventually(lambda: "first" in meter.begun)
        await app.pause_workflow(wf)
        meter.let_go("first", "second")

        async def first_is_done() -> bool:
            return (await handle.get()).steps[0].status == "done"

        await eventually(first_is_done)
        await asyncio.sleep(0.1)
        assert "second" not in meter.begun
        assert (await handle.get()).status in ("running", "waiting")
        await app.unpause_workflow(wf)
        assert await handle.result("5s") == "done"


async def test_timers_fire_when_it_goes_on(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("sleeper")
    woken: list[int] = []

    @wf.step
    async def nap(ctx: Context[Any]) -> None:
        await ctx.sleep("100ms")
        woken.append(1)

    async with make_app(wf) as app:
        handle = await app.start(wf)
        await app.pause_workflow(wf)
        await asyncio.sleep(0.3)
        assert not woken
        await app.unpause_workflow(wf)
        await handle.wait("5s")
        assert woken == [1]


async def test_runs_can_be_cancelled_meanwhile(make_app: Any) -> None:
    wf = working(Meter())
    async with make_app(wf) as app:
        await app.pause_workflow(wf)
        handle = await app.start(wf, 1)
        await handle.cancel()
        assert (await handle.get()).status == "cancelled"


async def test_lines_and_ledgers_stand_still_and_go_on(make_app: Any, runs: Any) -> None:
    meter = Meter(hold=False)
    wf = working(meter, concurrency=Concurrency(1), throttle=Throttle(50, "1s"))
    async with make_app(wf, worker=SLOW_LOOKS) as app:
        await app.pause_workflow(wf)
        handles = [await app.start(wf, i) for i in range(4)]
        await handles[0].cancel()
        await asyncio.sleep(0.2)
        assert not meter.begun
        await app.unpause_workflow(wf)
        assert await asyncio.gather(*(handle.result("5s") for handle in handles[1:])) == [1, 2, 3]
        assert meter.most[""] == 1
        await at_rest(runs)


async def test_twice_is_once(make_app: Any) -> None:
    wf = working(Meter(hold=False))
    async with make_app(wf) as app:
        await app.unpause_workflow(wf)
        for _ in range(2):
            await app.pause_workflow(wf)
        assert (await app.stats()).paused == ("metered",)
        for _ in range(2):
            await app.unpause_workflow(wf)
        assert (await app.stats()).paused == ()
        assert await (await app.start(wf, 1)).result("5s") == 1


async def test_a_tick_takes_nothing_of_it(make_app: Any) -> None:
    meter = Meter(hold=False)
    wf = working(meter)
    async with make_app(wf, worker=False) as app:
        await app.start(wf, 1)
        await app.pause_workflow(wf)
        assert await app.tick() == 0
        await app.unpause_workflow(wf)
        assert await app.tick() == 1
        assert meter.order == [1]


@pytest.mark.parametrize("name", ["", "a.b", "$where", None, 5, "a/b"])
async def test_what_is_no_name_is_refused(make_app: Any, database: Any, name: Any) -> None:
    async with make_app(working(Meter()), worker=False) as app:
        for verb in (app.pause_workflow, app.unpause_workflow):
            with pytest.raises(InvalidName):
                await verb(name)
        assert not (await app.stats()).paused
