"""Which run is taken when: priorities, delays, and no run that delays another."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streamline import Context, RetryPolicy, Settings, Worker, Workflow
from tests.clocks import MovableClock
from tests.waiting import eventually

ONE = Worker(concurrency=1, claim_batch=1, lease="5s", poll_interval="1s")


def recording(order: list[Any], name: str = "recording", version: str = "1.0.0") -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow(name, version=version)

    @wf.step
    async def record(ctx: Context[Any]) -> Any:
        order.append(ctx.input)
        return ctx.input

    return wf


async def finish(app: Any, handles: list[Any]) -> None:
    for handle in handles:
        await app.handle(handle.id).result("20s")


async def test_larger_priorities_go_first_then_older_runs(make_app: Any) -> None:
    order: list[Any] = []
    wf = recording(order)
    handles = []
    async with make_app(wf, worker=False) as app:
        for name, priority in [
            ("a", 0),
            ("b", 5),
            ("c", -7),
            ("d", 5),
            ("e", 2**31 - 1),
            ("f", 0),
            ("g", -(2**31) + 1),
        ]:
            handles.append(await app.start(wf, name, priority=priority))
            await asyncio.sleep(0.003)
    async with make_app(wf, worker=ONE) as app:
        await finish(app, handles)
    assert order == ["e", "b", "d", "a", "f", "c", "g"]


async def test_priority_counts_for_delayed_and_retried_runs_too(make_app: Any) -> None:
    order: list[Any] = []
    wf: Workflow[Any, Any, Any] = Workflow("any")
    clock = MovableClock()

    @wf.step(retry=RetryPolicy(delay="60s"))
    async def work(ctx: Context[Any]) -> None:
        order.append(ctx.input)
        if ctx.input == "retried" and ctx.attempt == 1:
            raise ValueError
        if ctx.input == "woken":
            await ctx.sleep("60s")

    async with make_app(wf, worker=ONE, clock=clock) as app:
        for name, priority in (("retried", 3), ("woken", 2)):
            handle = await app.start(wf, name, priority=priority)
            await eventually(lambda handle=handle: is_waiting(handle))
    async with make_app(wf, worker=False, clock=clock) as app:
        handles = [await app.start(wf, "new", priority=1)]
        handles.append(await app.start(wf, "scheduled", priority=4, delay="30s"))
        order.clear()
        clock.move(minutes=5)
    async with make_app(wf, worker=ONE, clock=clock) as app:
        await finish(app, handles)
        await eventually(lambda: len(order) == 4)
    assert order == ["scheduled", "retried", "woken", "new"]


async def is_waiting(handle: Any) -> bool:
    return await handle.status() == "waiting"


async def test_priorities_hold_over_workflows_and_versions(make_app: Any) -> None:
    order: list[Any] = []
    workflows = [recording(order, "a"), recording(order, "b"), recording(order, "b", "2.0.0")]
    async with make_app(*workflows, worker=False) as app:
        handles = [await app.start(wf, i, priority=i) for i in range(9) for wf in [workflows[i % 3]]]
    async with make_app(*workflows, worker=ONE) as app:
        await finish(app, handles)
    assert order == list(range(8, -1, -1))


async def test_a_delayed_run_is_not_taken_before_its_time(make_app: Any) -> None:
    order: list[Any] = []
    wf = recording(order)
    clock = MovableClock()
    async with make_app(wf, worker=False, clock=clock) as app:
        handles = [
            await app.start(wf, "delay", delay="10m"),
            await app.start(wf, "run_at", run_at=clock.now() + timedelta(minutes=20)),
            await app.start(wf, "past", run_at=datetime(2000, 1, 1, tzinfo=UTC)),
            await app.start(wf, "no delay", delay=0),
        ]
        assert [run.status for run in [await handle.get() for handle in handles]] == ["draft"] * 4
        assert await app.tick() == 2
        clock.move(minutes=9)
        assert await app.tick() == 0
        clock.move(minutes=2)
        assert await app.tick() == 1
        clock.move(minutes=10)
        assert await app.tick() == 1
        run = await handles[1].get()
    assert sorted(order[:2]) == ["no delay", "past"]
    assert order[2:] == ["delay", "run_at"]
    assert run.started_at >= run.created_at + timedelta(minutes=20)


async def test_an_idle_app_wakes_for_a_run_that_falls_due(make_app: Any) -> None:
    order: list[Any] = []
    wf = recording(order)
    lazy = Worker(poll_interval="1h")
    async with make_app(wf, worker=lazy) as app:
        handle = await app.start(wf, 1, delay="300ms")
        run = await handle.wait("20s")
    late = run.started_at - (run.created_at + timedelta(milliseconds=300))
    assert timedelta(0) <= late < timedelta(seconds=1)


async def test_an_app_learns_of_work_from_another_process(make_app: Any) -> None:
    order: list[Any] = []
    wf = recording(order)
    lazy = Worker(poll_interval="1h")
    async with make_app(worker=False) as starting, make_app(wf, worker=lazy) as working:
        await working.run(wf, 0, timeout="20s")
        await asyncio.sleep(0.5)  # the cursor on the wake channel stands by now
        handle = await starting.start(wf, 1)
        later = await starting.start(wf, 2, delay="200ms")
        assert await handle.wait("5s")
        assert await later.wait("5s")
    assert order == [0, 1, 2]


async def test_without_the_wake_channel_work_is_found_by_polling(make_app: Any, database: Any) -> None:
    order: list[Any] = []
    wf = recording(order)
    deaf = Settings(wake_channel=False)
    async with (
        make_app(worker=False, settings=deaf) as starting,
        make_app(wf, worker=Worker(poll_interval="100ms"), settings=deaf),
    ):
        assert (await (await starting.start(wf, 1)).wait("10s")).status == "done"
        assert "streamline.wakes" not in await database.list_collection_names()


async def test_a_slow_run_delays_no_other(make_app: Any) -> None:
    gate = asyncio.Event()
    slow: Workflow[Any, Any, Any] = Workflow("slow")

    @slow.step
    async def wait(ctx: Context[Any]) -> str:
        await gate.wait()
        return "slow"

    order: list[Any] = []
    quick = recording(order)
    async with make_app(slow, quick, worker=Worker(concurrency=3, lease="5s")) as app:
        blocked = [await app.start(slow) for _ in range(2)]
        handles = await app.start_many(quick, list(range(30)))
        await finish(app, handles)
        assert sorted(order) == list(range(30))
        gate.set()
        await finish(app, blocked)


async def test_a_worker_never_holds_more_runs_than_it_may(make_app: Any, runs: Any) -> None:
    at_work, most = 0, 0
    wf: Workflow[Any, Any, Any] = Workflow("counted")

    @wf.step
    async def count(ctx: Context[Any]) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work, await runs.count_documents({"lease": {"$exists": True}}))
        await asyncio.sleep(0.005)
        at_work -= 1

    async with make_app(wf, worker=Worker(concurrency=4, lease="5s")) as app:
        handles = await app.start_many(wf, [None] * 30)
        handles += await asyncio.gather(*(app.start(wf) for _ in range(20)))
        await finish(app, handles)
    assert 1 < most <= 4


async def test_more_runs_than_places_are_all_carried_out(make_app: Any) -> None:
    order: list[Any] = []
    wf = recording(order)
    async with make_app(wf, worker=Worker(concurrency=5, claim_batch=2)) as app:
        await finish(app, await app.start_many(wf, list(range(150))))
    assert sorted(order) == list(range(150))


async def test_several_apps_share_the_work_and_nothing_is_done_twice(make_app: Any) -> None:
    done: dict[Any, list[str]] = {}

    def app_of(name: str) -> Any:
        wf: Workflow[Any, Any, Any] = Workflow("shared")

        @wf.step
        async def work(ctx: Context[Any]) -> None:
            done.setdefault(ctx.input, []).append(name)
            await asyncio.sleep(0.002)

        return make_app(wf, worker=Worker(concurrency=5, claim_batch=10, poll_interval="100ms"))

    async with make_app(worker=False) as starting:
        shared: Workflow[Any, Any, Any] = Workflow("shared")
        shared.step("work")(lambda ctx: None)
        handles = await starting.start_many(shared, list(range(120)))
        async with app_of("a"), app_of("b"), app_of("c"):
            await finish(starting, handles)
    assert all(len(names) == 1 for names in done.values())
    assert len(done) == 120


@pytest.mark.parametrize("steps", [1, 40])
async def test_a_run_with_many_steps_writes_each_once(make_app: Any, steps: int) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("long")
    for i in range(steps):
        wf.step(f"s{i}")(_adds(i))
    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.output == sum(range(steps))
    assert run.rev == 1 + steps


def _adds(i: int) -> Any:
    async def add(ctx: Context[Any]) -> int:
        return i + (ctx.outputs[f"s{i - 1}"] if i else 0)

    return add
