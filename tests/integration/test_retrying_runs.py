"""The verb retry: again from the step where a run stopped."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamline import Context, NonRetriableError, RetryPolicy, Workflow
from streamline.errors import IllegalTransition
from tests.waiting import eventually


class Mending:
    """A workflow whose second step fails until it is mended."""

    def __init__(self, **options: Any) -> None:
        self.mended = False
        self.calls: list[Any] = []
        self.workflow: Workflow[Any, Any, Any] = Workflow("mending", **options)

        @self.workflow.step
        async def first(ctx: Context[Any]) -> str:
            self.calls.append(("first", ctx.attempt))
            return "one"

        @self.workflow.step(retry=RetryPolicy(max_attempts=2, delay=0))
        async def second(ctx: Context[Any]) -> str:
            self.calls.append(("second", ctx.attempt))
            paid = await ctx.call("pay", lambda: self.calls.append("paid") or "paid")
            if not self.mended:
                raise ValueError("broken")
            return f"{ctx.output(first)}, {paid}"


async def test_a_failed_run_goes_on_from_the_failed_step_with_fresh_attempts(make_app: Any) -> None:
    mending = Mending(retention="30d")
    async with make_app(mending.workflow) as app:
        handle = await app.start(mending.workflow)
        failed = await handle.wait("20s")
        assert failed.status == "failed"
        assert failed.expire_at is not None
        await handle.retry()
        again = await handle.wait("20s")
        assert again.status == "failed"
        mending.mended = True
        await handle.retry()
        assert await handle.result("20s") == "one, paid"
        run = await handle.get()
        events = [event async for event in handle.events()]
    seconds = [("second", 1), "paid", ("second", 2), ("second", 1), ("second", 2), ("second", 1)]
    assert mending.calls == [("first", 1), *seconds]
    assert run.error is None
    assert run.step("second").error is None
    assert run.step("second").attempt == 1
    assert [event.type for event in events].count("run.retried") == 2
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


async def test_a_retried_run_has_not_ended(make_app: Any) -> None:
    mending = Mending(retention="30d")
    async with make_app(mending.workflow, worker=False) as app:
        handle = await app.start(mending.workflow)
        while not (await handle.get()).ended:
            await app.tick()
        await handle.retry()
        run = await handle.get()
    assert run.status == "waiting"
    assert run.due_at is not None
    assert run.ended_at is None
    assert run.expire_at is None
    assert run.error is None
    assert run.step("second").status == "pending"
    assert run.step("second").ended_at is None
    assert run.step("first").output == "one"


async def test_a_cancelled_run_can_be_retried(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("gated")
    gate, entered = asyncio.Event(), []

    @wf.step
    async def wait(ctx: Context[Any]) -> str:
        entered.append(1)
        await gate.wait()
        return "through"

    async with make_app(wf) as app:
        handle = await app.start(wf)
        await eventually(lambda: entered)
        await handle.cancel(reason="wrong one")
        assert await handle.status() == "cancelled"
        gate.set()
        await handle.retry()
        assert await handle.result("20s") == "through"
        run = await handle.get()
    assert run.cancel is None
    assert run.error is None


async def test_a_run_that_was_cancelled_while_it_slept_goes_on_sleeping(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("sleeper")

    @wf.step
    async def sleeper(ctx: Context[Any]) -> str:
        await ctx.sleep(1)
        return "woken"

    async with make_app(wf) as app:
        handle = await app.start(wf)
        await eventually(lambda: waiting(handle))
        await handle.cancel()
        await handle.retry()
        assert await handle.result("20s") == "woken"
        run = await handle.get()
    assert (run.ended_at - run.created_at).total_seconds() >= 1
    assert run.step("sleeper").attempt == 1


async def waiting(handle: Any) -> bool:
    return await handle.status() == "waiting"


@pytest.mark.parametrize("status", ["draft", "running", "waiting", "done"])
async def test_a_run_that_has_not_failed_cannot_be_retried(make_app: Any, status: str) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("any")
    gate = asyncio.Event()

    @wf.step
    async def work(ctx: Context[Any]) -> None:
        if status == "waiting":
            await ctx.sleep("1h")
        if status == "running":
            await gate.wait()

    async with make_app(wf) as app:
        handle = await app.start(wf, delay="1h" if status == "draft" else None)
        await eventually(lambda: has(handle, status))
        before = await handle.get()
        with pytest.raises(IllegalTransition) as caught:
            await handle.retry()
        assert await handle.get() == before
        gate.set()
    assert caught.value.field == "status"


async def has(handle: Any, status: str) -> bool:
    return bool(await handle.status() == status)


async def test_two_retries_at_once_make_one(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("fails")
    calls = []

    @wf.step
    async def fail(ctx: Context[Any]) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise NonRetriableError

    async with make_app(wf) as app:
        handle = await app.start(wf)
        await handle.wait("20s")
        outcomes = await asyncio.gather(*(handle.retry() for _ in range(5)), return_exceptions=True)
        assert (await handle.wait("20s")).status == "done"
    assert [type(outcome) for outcome in outcomes if outcome is not None] == [IllegalTransition] * 4
    assert len(calls) == 2
