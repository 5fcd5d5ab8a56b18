"""Cancelling: whatever the run is doing, it ends, and nothing writes to it any more."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from streamline import Context, RetryPolicy, Workflow
from streamline.errors import RunCancelled, StreamlineError
from tests.waiting import eventually, status_of


class Gated:
    """A workflow of two steps, whose first waits at a gate."""

    def __init__(self, **options: Any) -> None:
        self.gate, self.entered, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.calls: list[str] = []
        self.workflow: Workflow[Any, Any, Any] = Workflow("gated", **options)

        @self.workflow.step
        async def first(ctx: Context[Any]) -> str:
            self.calls.append("first")
            self.entered.set()
            try:
                await self.gate.wait()
            finally:
                self.ended.set()
            return "through"

        @self.workflow.step
        async def second(ctx: Context[Any]) -> str:
            self.calls.append("second")
            return "done"


async def test_cancelling_in_the_middle_of_a_step_ends_its_handler(make_app: Any) -> None:
    gated = Gated()
    async with make_app(gated.workflow) as app:
        handle = await app.start(gated.workflow)
        await gated.entered.wait()
        await handle.cancel(reason="no longer wanted", by="ann")
        await asyncio.wait_for(gated.ended.wait(), 10)
        run = await handle.get()
        with pytest.raises(RunCancelled) as caught:
            await handle.result("20s")
    assert caught.value.reason == "no longer wanted"
    assert caught.value.run_id == run.id
    assert run.status == "cancelled"
    assert run.ended
    assert run.ended_at == run.cancel["at"]
    assert (run.cancel["reason"], run.cancel["by"]) == ("no longer wanted", "ann")
    assert run.error.code == "run.cancelled"
    assert run.error.message == "no longer wanted"
    assert (run.error.step, run.error.attempt) == ("first", 1)
    assert [step.status for step in run.steps] == ["pending", "pending"]
    assert run.worker is None
    assert run.due_at is None
    assert gated.calls == ["first"]


async def test_cancelling_without_a_reason_stores_none(make_app: Any) -> None:
    gated = Gated()
    async with make_app(gated.workflow) as app:
        handle = await app.start(gated.workflow)
        await handle.cancel()
        run = await handle.get()
        with pytest.raises(RunCancelled) as caught:
            await handle.result("20s")
    assert run.cancel.keys() == {"at"}
    assert caught.value.reason is None


async def test_a_cancelled_runs_late_result_is_refused(make_app: Any, runs: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("deaf")
    gate, entered, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @wf.step
    async def deaf(ctx: Context[Any]) -> str:
        entered.set()
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue
        ended.set()
        return "too late"

    async with make_app(wf) as app:
        handle = await app.start(wf)
        await entered.wait()
        await handle.cancel()
        before = await runs.find_one({"_id": handle.id})
        gate.set()
        await ended.wait()
    assert await runs.find_one({"_id": handle.id}) == before


async def test_a_cancelled_runs_late_calls_are_refused(make_app: Any, runs: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("deaf")
    entered, tried = asyncio.Event(), asyncio.Event()
    errors = []

    @wf.step
    async def deaf(ctx: Context[Any]) -> None:
        entered.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            for late in (ctx.call("late", int), ctx.save()):
                ctx.state["late"] = 1
                try:
                    await late
                except StreamlineError as error:
                    errors.append(type(error).__name__)
        finally:
            tried.set()

    async with make_app(wf) as app:
        handle = await app.start(wf)
        await entered.wait()
        await handle.cancel()
        await tried.wait()
        document = await runs.find_one({"_id": handle.id})
    assert errors == ["HeartbeatLost", "HeartbeatLost"]
    assert document["status"] == "cancelled"
    assert "state" not in document
    assert "memo" not in document["steps"][0]


async def test_cancelling_a_draft(make_app: Any) -> None:
    gated = Gated()
    async with make_app(gated.workflow) as app:
        handle = await app.start(gated.workflow, delay=0.2)
        await handle.cancel()
        assert await handle.status() == "cancelled"
        other = await app.start(gated.workflow, delay=0.3)
        await eventually(lambda: gated.calls)
        assert gated.calls == ["first"]
        await other.cancel()


async def test_cancelling_a_sleeping_run(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("sleeper")
    entered = []

    @wf.step
    async def sleeper(ctx: Context[Any]) -> None:
        entered.append(1)
        await ctx.sleep("1h")

    async with make_app(wf) as app:
        handle = await app.start(wf)
        await status_of(handle, "waiting")
        await handle.cancel()
        run = await handle.get()
    assert run.status == "cancelled"
    assert run.due_at is None
    assert run.step("sleeper").status == "pending"
    assert entered == [1]


async def test_cancelling_between_attempts(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("flaky")

    @wf.step(retry=RetryPolicy(delay="1h"))
    async def flaky(ctx: Context[Any]) -> None:
        raise ValueError("kept")

    async with make_app(wf) as app:
        handle = await app.start(wf)
        await status_of(handle, "waiting")
        await handle.cancel()
        run = await handle.get()
    assert run.status == "cancelled"
    assert run.error.code == "run.cancelled"
    assert run.step("flaky").error.message == "kept"


@pytest.mark.parametrize("end", ["done", "failed", "cancelled"])
async def test_cancelling_a_run_that_has_ended_changes_nothing(make_app: Any, runs: Any, end: str) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("ends")

    @wf.step(max_attempts=1)
    async def work(ctx: Context[Any]) -> None:
        if end == "failed":
            raise ValueError
        if end == "cancelled":
            await asyncio.sleep(60)

    async with make_app(wf) as app:
        handle = await app.start(wf)
        if end == "cancelled":
            await handle.cancel(reason="first")
        await handle.wait("20s")
        before = await runs.find_one({"_id": handle.id})
        await handle.cancel(reason="second")
        assert await runs.find_one({"_id": handle.id}) == before
    assert before["status"] == end


async def test_many_cancels_at_once_make_one(make_app: Any) -> None:
    gated = Gated()
    async with make_app(gated.workflow) as app:
        handle = await app.start(gated.workflow)
        await asyncio.gather(*(handle.cancel(reason=str(i)) for i in range(10)))
        events = [event async for event in handle.events()]
    assert [event.type for event in events].count("run.cancelled") == 1


async def test_cancel_and_end_at_once_agree(make_app: Any) -> None:
    for _ in range(10):
        gated = Gated()
        gated.gate.set()
        async with make_app(gated.workflow) as app:
            handle = await app.start(gated.workflow)
            await asyncio.gather(handle.cancel(), asyncio.sleep(0))
            run = await handle.wait("20s")
            events = [event async for event in handle.events()]
        assert run.status in ("done", "cancelled")
        assert events[-1].type == f"run.{run.status}"
        assert [event.type for event in events if event.type in ("run.done", "run.cancelled")] == [events[-1].type]


async def test_a_run_can_be_cancelled_from_an_app_that_does_not_drive_it(make_app: Any) -> None:
    gated = Gated()
    async with make_app(gated.workflow) as driving, make_app(worker=False) as asking:
        handle = await driving.start(gated.workflow)
        await gated.entered.wait()
        await asking.cancel(handle.id, reason="from afar")
        await asyncio.wait_for(gated.ended.wait(), 10)
        assert (await handle.wait("20s")).cancel["reason"] == "from afar"
    assert gated.calls == ["first"]


async def test_the_driver_learns_of_it_without_the_wake_channel_too(make_app: Any) -> None:
    from streamline import Settings, Worker

    gated = Gated()
    deaf = Settings(wake_channel=False)
    quick = Worker(lease="800ms", poll_interval="200ms")
    async with (
        make_app(gated.workflow, settings=deaf, worker=quick) as driving,
        make_app(worker=False, settings=deaf) as asking,
    ):
        handle = await driving.start(gated.workflow)
        await gated.entered.wait()
        await asking.cancel(handle.id)
        await asyncio.wait_for(gated.ended.wait(), 10)


async def test_a_cancelled_run_is_kept_as_long_as_the_workflow_says(make_app: Any) -> None:
    gated = Gated(retention={"cancelled": "2d"})
    async with make_app(gated.workflow) as app:
        handle = await app.start(gated.workflow)
        await handle.cancel()
        run = await handle.get()
    assert run.expire_at - run.ended_at == timedelta(days=2)
