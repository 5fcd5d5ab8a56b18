"""Timeouts: the handler is told to end, and has ended before anything else happens to its run."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

from streamline import Context, RetryPolicy, Worker, Workflow
from tests.waiting import eventually

AGAIN = RetryPolicy(max_attempts=3, delay=0)
GRACE = Worker(lease="5s", poll_interval="1s", cancel_grace="0.3s", drain="0.1s")


class Ledger:
    """Who is at work, as a handler itself says it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.at_work = 0
        self.most = 0
        self.entered: list[int] = []
        self.left = 0

    def enter(self, attempt: int) -> None:
        with self.lock:
            self.entered.append(attempt)
            self.at_work += 1
            self.most = max(self.most, self.at_work)

    def leave(self) -> None:
        with self.lock:
            self.at_work -= 1
            self.left += 1


async def test_a_slow_handler_is_cancelled_and_the_step_fails_with_a_timeout(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("slow")
    ended = []

    @wf.step(timeout=0.05, max_attempts=1)
    async def slow(ctx: Context[Any]) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append(ctx.cancelled)
            raise

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert ended == [True]
    assert run.error.code == "step.timeout"
    assert run.error.type == "StepTimeout"
    assert "0.05" in run.error.message


async def test_a_fast_handler_is_left_alone(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("fast")

    @wf.step(timeout="30s")
    async def fast(ctx: Context[Any]) -> str:
        return "in time"

    async with make_app(wf) as app:
        assert await app.run(wf, timeout="20s") == "in time"


async def test_the_old_attempt_has_ended_before_the_next_begins(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("lingering")
    ledger = Ledger()

    @wf.step(timeout=0.05, retry=AGAIN)
    async def linger(ctx: Context[Any]) -> None:
        ledger.enter(ctx.attempt)
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.2)  # cleans up
            ledger.leave()

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert ledger.entered == [1, 2, 3]
    assert ledger.most == 1
    assert ledger.left == 3
    assert run.error.code == "step.timeout"
    assert run.error.attempt == 3


async def test_a_handler_that_swallows_the_cancellation_has_still_timed_out(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("stubborn")
    attempts = []

    @wf.step(timeout=0.05, retry=RetryPolicy(max_attempts=2, delay=0))
    async def stubborn(ctx: Context[Any]) -> str:
        attempts.append(ctx.attempt)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "too late"
        return "never"

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert attempts == [1, 2]
    assert run.error.code == "step.timeout"


async def test_a_handler_that_never_ends_is_abandoned_and_gets_no_further_attempt(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("deaf")
    ledger, gate = Ledger(), asyncio.Event()

    @wf.step(timeout=0.05, retry=AGAIN)
    async def deaf(ctx: Context[Any]) -> None:
        ledger.enter(ctx.attempt)
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue
        ledger.leave()

    async with make_app(wf, worker=GRACE) as app:
        run = await (await app.start(wf)).wait("20s")
        assert run.error.code == "step.timeout"
        assert ledger.entered == [1]
        assert ledger.at_work == 1
        gate.set()
        await eventually(lambda: ledger.at_work == 0)
        assert (await app.get(run.id)).rev == run.rev


async def test_a_thread_can_ask_whether_it_is_told_to_end(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("polite")
    ledger = Ledger()

    @wf.step(timeout=0.05, retry=AGAIN)
    def polite(ctx: Context[Any]) -> None:
        ledger.enter(ctx.attempt)
        while not ctx.cancelled:
            time.sleep(0.005)
        time.sleep(0.1)
        ledger.leave()

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert ledger.entered == [1, 2, 3]
    assert ledger.most == 1
    assert ledger.left == 3
    assert run.error.code == "step.timeout"


async def test_a_thread_that_ignores_it_is_abandoned_and_gets_no_further_attempt(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("deaf")
    ledger, gate = Ledger(), threading.Event()

    @wf.step(timeout=0.05, retry=AGAIN)
    def deaf(ctx: Context[Any]) -> None:
        ledger.enter(ctx.attempt)
        gate.wait(30)
        ledger.leave()

    async with make_app(wf, worker=GRACE) as app:
        run = await (await app.start(wf)).wait("20s")
        assert run.error.code == "step.timeout"
        assert ledger.entered == [1]
        gate.set()
        await eventually(lambda: ledger.at_work == 0)


async def test_the_timeout_is_for_each_attempt(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("second")
    attempts = []

    @wf.step(timeout=0.2, retry=RetryPolicy(max_attempts=2, delay=0))
    async def second(ctx: Context[Any]) -> int:
        attempts.append(ctx.attempt)
        if ctx.attempt == 1:
            await asyncio.sleep(60)
        return ctx.attempt

    async with make_app(wf) as app:
        assert await app.run(wf, timeout="20s") == 2
    assert attempts == [1, 2]


async def test_the_timeout_of_the_workflow_holds_for_steps_without_their_own(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("default", timeout=0.05, retry=RetryPolicy(max_attempts=1))

    @wf.step(timeout="30s")
    async def patient(ctx: Context[Any]) -> None:
        await asyncio.sleep(0.15)

    @wf.step
    async def slow(ctx: Context[Any]) -> None:
        await asyncio.sleep(60)

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.error.step == "slow"
    assert run.step("patient").status == "done"


async def test_parked_time_does_not_count(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("sleeper")

    @wf.step(timeout=0.2, max_attempts=1)
    async def sleeper(ctx: Context[Any]) -> str:
        await ctx.sleep(0.3)
        return "woken"

    async with make_app(wf) as app:
        assert await app.run(wf, timeout="20s") == "woken"


async def test_a_timeout_error_of_the_handlers_own_is_an_ordinary_error(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("own", timeout="30s")

    @wf.step(max_attempts=1)
    async def own(ctx: Context[Any]) -> None:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(60)

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.error.code == "step.error"
    assert run.error.type == "TimeoutError"


async def test_leaving_the_app_ends_a_handler_and_hands_its_run_on(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("handover")
    entered, ended = asyncio.Event(), []

    @wf.step
    async def work(ctx: Context[Any]) -> int:
        if entered.is_set():
            return ctx.attempt
        entered.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append(ctx.cancelled)
            raise
        return 0

    async with make_app(wf, worker=GRACE) as app:
        handle = await app.start(wf)
        await entered.wait()
    assert ended == [True]
    async with make_app(wf) as app:
        released = await app.get(handle.id)
        assert released.recovery_count == 0
        assert await app.handle(handle.id).result("20s") == 1


async def test_leaving_the_app_lets_a_short_step_finish(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("short")
    calls: list[str] = []

    @wf.step
    async def first(ctx: Context[Any]) -> str:
        calls.append("first")
        await asyncio.sleep(0.2)
        return "one"

    @wf.step
    async def second(ctx: Context[Any]) -> str:
        calls.append("second")
        return "two"

    async with make_app(wf) as app:
        handle = await app.start(wf)
        await eventually(lambda: calls)
    async with make_app(wf) as app:
        assert await app.handle(handle.id).result("20s") == "two"
    assert calls == ["first", "second"]
