"""What the meters tell: counts, durations and the queue; never by run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from streamline import Concurrency, Context, RetryPolicy, Streamline, Worker, Workflow
from streamline.engine.working import queue_sampling
from tests.integration.exported import Measured, measuring
from tests.waiting import eventually

UNITS = {
    "streamline.runs.started": "{run}",
    "streamline.runs.ended": "{run}",
    "streamline.runs.recovered": "{run}",
    "streamline.runs.due": "{run}",
    "streamline.runs.due.lag": "s",
    "streamline.run.duration": "s",
    "streamline.claim.latency": "s",
    "streamline.step.duration": "s",
    "streamline.step.retries": "{attempt}",
    "streamline.leases.lost": "{lease}",
    "streamline.writes.fenced": "{write}",
}
TOLD = {
    "db.namespace", "streamline.outcome", "streamline.status", "streamline.step", "streamline.version",
    "streamline.workflow",
}  # fmt: skip


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Iterator[Measured]:
    monkeypatch.setattr(queue_sampling, "_SECONDS", 0.05)
    with measuring(monkeypatch) as measured:
        yield measured


def flow() -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow("flow", retry=RetryPolicy(max_attempts=3, delay=0))

    @wf.step
    async def first(ctx: Context[Any]) -> Any:
        if ctx.input == "retry" and ctx.attempt < 3:
            raise ConnectionError
        return ctx.input

    @wf.step(max_attempts=1)
    async def then(ctx: Context[Any]) -> None:
        if ctx.input == "fail":
            raise ValueError
        if ctx.input == "hold":
            await asyncio.sleep(60)

    return wf


async def test_runs_steps_and_retries_are_counted(make_app: Any, measured: Measured) -> None:
    wf = flow()
    async with make_app(wf) as app:
        await app.run(wf, "well", timeout="20s")
        await app.run(wf, "retry", timeout="20s")
        assert (await (await app.start(wf, "fail")).wait(timeout="20s")).status == "failed"
        held = await app.start(wf, delay="1h")
        await held.cancel()
        many = await app.start_many(wf, [1, 2, 3])
        for run in many:
            await run.result(timeout="20s")

        assert measured.value("streamline.runs.started", workflow="flow") == 7
        assert measured.value("streamline.runs.ended", workflow="flow", status="done") == 5
        assert measured.value("streamline.runs.ended", status="failed") == 1
        assert measured.value("streamline.runs.ended", status="cancelled") == 1
        assert measured.value("streamline.run.duration", status="done") == 5
        assert measured.value("streamline.run.duration", status="cancelled") == 0, "it never began"
        assert measured.value("streamline.step.retries", step="first") == 2
        assert measured.value("streamline.step.duration", step="first", outcome="done") == 6
        assert measured.value("streamline.step.duration", step="first", outcome="failed") == 2
        assert measured.value("streamline.step.duration", step="then", outcome="failed") == 1
        # Three that were stored for whoever is free, and two attempts that were due again.
        assert measured.value("streamline.claim.latency", workflow="flow") == 5
        units = measured.units()
        assert units == {name: UNITS[name] for name in units}
        told = {key for name in units for point in measured.points(name) for key in point.attributes}
        assert told <= TOLD


async def test_the_queue_is_seen_and_no_longer_when_its_worker_has_stopped(
    make_app: Any, database_name: str, measured: Measured
) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("held", version="2.0.0", concurrency=Concurrency(1))

    @wf.step
    async def hold(ctx: Context[Any]) -> None:
        await asyncio.sleep(60)

    other: Workflow[Any, Any, Any] = Workflow("elsewhere")
    other.step("work")(lambda ctx: None)
    async with make_app(other, worker=False) as elsewhere, make_app(wf, worker=Worker(drain=0)) as app:
        await elsewhere.start_many(other, [1, 2, 3])
        await app.start(wf)
        await app.start(wf)  # it waits in line, and is not due
        await eventually(lambda: measured.value("streamline.runs.due", workflow="elsewhere") == 3)
        await eventually(lambda: measured.value("streamline.runs.due.lag", workflow="elsewhere") > 0.1)
        assert measured.value("streamline.runs.due", workflow="held") == 0
        point = measured.points("streamline.runs.due")[0]
        assert dict(point.attributes) == {
            "streamline.workflow": "elsewhere", "streamline.version": "1.0.0", "db.namespace": database_name,
        }  # fmt: skip
    assert not measured.points("streamline.runs.due")


async def test_lost_leases_fenced_writes_and_recoveries_are_counted(
    make_app: Any, runs: Any, measured: Measured
) -> None:
    wf, entered = Workflow[Any, Any, Any]("thief"), asyncio.Event()

    @wf.step
    async def work(ctx: Context[Any]) -> str:
        entered.set()
        if ctx.attempt == 1:
            await asyncio.sleep(60)
        return "done by who has the lease"

    worker = Worker(lease="1s", poll_interval="100ms", drain=0, cancel_grace="300ms")
    async with make_app(wf, worker=worker) as app:
        run = await app.start(wf)
        await entered.wait()
        stolen = {"$set": {"lease.token": "another's", "lease.until": run_out(await run.get())}}
        await runs.update_one({"_id": run.id}, stolen)
        assert await run.result(timeout="20s") == "done by who has the lease"
        await eventually(lambda: measured.value("streamline.leases.lost", workflow="thief") == 1)
        assert measured.value("streamline.runs.recovered", workflow="thief") == 1
        await eventually(lambda: measured.value("streamline.step.duration", outcome="lost") == 1)

        cancelled = await app.start(wf)
        await cancelled.cancel()
        assert measured.value("streamline.leases.lost") == 1, "what an operator ends is not lost"


async def test_a_refused_write_is_counted(make_app: Any, runs: Any, measured: Measured) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("robbed")

    @wf.step
    async def work(ctx: Context[Any]) -> None:
        await runs.update_one({"_id": ctx.run_id}, {"$set": {"lease.token": "another's"}})

    async with make_app(wf) as app:
        await app.start(wf)
        await eventually(lambda: measured.value("streamline.writes.fenced", workflow="robbed") == 1)
        assert measured.value("streamline.leases.lost", workflow="robbed") == 1


async def test_nothing_is_asked_of_the_database_where_nobody_measures(
    make_app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_sampling, "_SECONDS", 0.01)
    app: Streamline
    async with make_app(flow()) as app:
        session: Any = app._session
        asked: list[str] = []
        run = session.runtime.store.run

        async def noted(statement: Any, *args: Any) -> Any:
            asked.append(statement.name)
            return await run(statement, *args)

        monkeypatch.setattr(session.runtime.store, "run", noted)
        pulse = next(each for each in session.worker.pulses if each.name == "measuring the queue")
        for _ in range(5):
            before = pulse.passed_at
            await eventually(lambda before=before: pulse.passed_at != before)
    assert asked.count("count_due") <= 1, "by whoever warns of versions that nobody serves"


def run_out(run: Any) -> Any:
    return run.updated_at - timedelta(seconds=1)
