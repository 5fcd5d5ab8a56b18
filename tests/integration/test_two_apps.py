"""Apps that share a database: each drives only its own workflows and versions, and all hear of what has ended."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamline import Context, RetryPolicy, Settings, Worker, Workflow
from streamline.errors import ResultTimeout
from tests.clocks import LONG_AGO
from tests.integration.conftest import QUICK
from tests.waiting import status_of

EAGER = Worker(lease="400ms", poll_interval="50ms")


def named(name: str, version: str, calls: list[str]) -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow(name, version=version)

    @wf.step(retry=RetryPolicy(max_attempts=2, delay=0))
    async def work(ctx: Context[Any]) -> str:
        calls.append(f"{name}@{version} drove {ctx.workflow}@{ctx.version}")
        if ctx.input in ("sleep", "sleep long"):
            await ctx.sleep(0.05 if ctx.input == "sleep" else 2)
        if ctx.input == "retry" and ctx.attempt == 1:
            raise ValueError
        return f"by {name}@{version}"

    return wf


async def test_a_worker_never_touches_the_runs_of_another_workflow(make_app: Any, runs: Any) -> None:
    calls: list[str] = []
    a, b = named("a", "1.0.0", calls), named("b", "1.0.0", calls)
    async with make_app(a, worker=EAGER) as app_a, make_app(b, worker=EAGER) as app_b:
        handles = [await app_a.start(b, i) for i in range(10)] + [await app_b.start(a, i) for i in range(10)]
        outputs = [await handle.result("20s") for handle in handles]
    assert outputs == ["by b@1.0.0"] * 10 + ["by a@1.0.0"] * 10
    assert set(calls) == {"a@1.0.0 drove a@1.0.0", "b@1.0.0 drove b@1.0.0"}


async def test_a_run_of_a_workflow_nobody_serves_is_left_as_it_is(make_app: Any, runs: Any) -> None:
    calls: list[str] = []
    async with make_app(named("b", "1.0.0", calls), worker=EAGER) as app:
        handle = await app.start(named("a", "1.0.0", calls), 1)
        before = await runs.find_one({"_id": handle.id})
        with pytest.raises(ResultTimeout):
            await handle.result(0.5)
        assert await runs.find_one({"_id": handle.id}) == before
        assert await app.run("b", timeout="20s") == "by b@1.0.0"


@pytest.mark.parametrize("given", ["plain", "sleep", "retry"])
async def test_a_run_is_only_driven_by_the_version_it_was_started_with(make_app: Any, given: str) -> None:
    calls: list[str] = []
    v1, v2 = named("a", "1.0.0", calls), named("a", "2.0.0", calls)
    async with make_app(v2, worker=EAGER), make_app(v1, worker=EAGER) as old:
        handles = [await old.start(v1, given) for _ in range(5)]
        assert [await handle.result("20s") for handle in handles] == ["by a@1.0.0"] * 5
    assert set(calls) == {"a@1.0.0 drove a@1.0.0"}


async def test_a_parked_run_of_an_old_version_waits_for_a_worker_of_it(make_app: Any) -> None:
    calls: list[str] = []
    v1, v2 = named("a", "1.0.0", calls), named("a", "2.0.0", calls)
    async with make_app(v1, worker=EAGER) as old:
        handle = await old.start(v1, "sleep long")
        await status_of(handle, "waiting")
    async with make_app(v2, worker=EAGER) as new:
        with pytest.raises(ResultTimeout):
            await new.handle(handle.id).result(0.3)
        assert await new.run("a", timeout="20s") == "by a@2.0.0"
        async with make_app(v1, v2, worker=EAGER):
            assert await new.handle(handle.id).result("20s") == "by a@1.0.0"


async def test_a_lost_run_of_an_old_version_waits_for_a_worker_of_it(make_app: Any, runs: Any) -> None:
    calls: list[str] = []
    v1, v2 = named("a", "1.0.0", calls), named("a", "2.0.0", calls)
    async with make_app(v1, worker=False) as starting:
        handle = await starting.start(v1)
    lease = {"worker": "dead", "token": "dead", "at": LONG_AGO, "until": LONG_AGO}
    change = {"$set": {"status": "running", "attempt": 1, "lease": lease}, "$unset": {"due_at": ""}}
    await runs.update_one({"_id": handle.id}, change)
    before = await runs.find_one({"_id": handle.id})
    async with make_app(v2, worker=EAGER) as new:
        with pytest.raises(ResultTimeout):
            await new.handle(handle.id).result(0.4)
        assert await runs.find_one({"_id": handle.id}) == before
    async with make_app(v1, worker=EAGER) as old:
        assert await old.handle(handle.id).result("20s") == "by a@1.0.0"


async def test_a_name_starts_the_highest_version(make_app: Any) -> None:
    calls: list[str] = []
    v1, v2 = named("a", "1.0.0", calls), named("a", "2.0.0", calls)
    async with make_app(v2, v1) as app:
        assert await app.run("a", timeout="20s") == "by a@2.0.0"
        assert await app.run(v1, timeout="20s") == "by a@1.0.0"


@pytest.mark.parametrize("wakes", [True, False])
async def test_the_end_of_a_run_wakes_those_who_wait_for_it_elsewhere(make_app: Any, *, wakes: bool) -> None:
    gate = asyncio.Event()
    wf: Workflow[Any, Any, Any] = Workflow("gated")

    @wf.step
    async def wait(ctx: Context[Any]) -> str:
        await gate.wait()
        return "here"

    settings = Settings(wake_channel=wakes)
    async with make_app(wf, settings=settings) as driving, make_app(worker=False, settings=settings) as asking:
        handle = await driving.start(wf)
        waiters = [asyncio.ensure_future(asking.handle(handle.id).result("20s")) for _ in range(3)]
        await asyncio.sleep(0.1)
        assert not any(waiter.done() for waiter in waiters)
        gate.set()
        assert await asyncio.wait_for(asyncio.gather(*waiters), 5) == ["here"] * 3


async def test_apps_with_different_prefixes_do_not_meet(make_app: Any) -> None:
    calls: list[str] = []
    wf = named("a", "1.0.0", calls)
    async with make_app(wf, worker=False, prefix="one") as one, make_app(wf, worker=QUICK, prefix="two") as two:
        handle = await one.start(wf)
        assert await two.run(wf, timeout="20s") == "by a@1.0.0"
        assert await handle.status() == "draft"
    assert len(calls) == 1


async def test_one_app_can_be_opened_by_many_processes_at_once(make_app: Any) -> None:
    calls: list[str] = []
    wf = named("a", "1.0.0", calls)
    apps = [make_app(wf) for _ in range(6)]
    await asyncio.gather(*(app.__aenter__() for app in apps))
    try:
        assert await asyncio.gather(*(app.run(wf, timeout="20s") for app in apps)) == ["by a@1.0.0"] * 6
    finally:
        await asyncio.gather(*(app.__aexit__(None, None, None) for app in apps))
