"""``run_timeout`` and ``start_by``: how long a run may take, and how long it may wait to begin."""

from __future__ import annotations

import asyncio
import threading
from datetime import datetime, timedelta
from typing import Any

import pytest

from streamline import Context, RetryPolicy, Settings, Worker, Workflow
from streamline.errors import InvalidPolicy, RunFailed
from tests.clocks import MovableClock
from tests.waiting import eventually


def lasting(kind: str, log: list[str], **options: Any) -> Workflow[Any, Any, Any]:
    """A workflow whose second step lasts: at work, asleep, waiting, or failing again and again."""
    wf: Workflow[Any, Any, Any] = Workflow("lasting", **options)

    @wf.step
    async def begin(ctx: Context[Any]) -> str:
        log.append("begin")
        return "begun"

    @wf.step(retry=RetryPolicy(max_attempts=1000, delay="1h"))
    async def last(ctx: Context[Any]) -> str:
        log.append("last")
        if kind == "sleeping":
            await ctx.sleep("1h")
        if kind == "waiting":
            await ctx.wait("for ever")
        if kind == "failing":
            raise ValueError("not yet")
        try:
            await asyncio.sleep(60 if kind == "working" else 0)
        except asyncio.CancelledError:
            log.append("told")
            raise
        return "over"

    return wf


def is_about(span: timedelta, wanted: timedelta) -> bool:
    return abs(span - wanted) < timedelta(milliseconds=100)


@pytest.mark.parametrize("kind", ["working", "sleeping", "waiting", "failing"])
async def test_a_run_whose_time_is_over_fails_whatever_it_does(make_app: Any, kind: str) -> None:
    log: list[str] = []
    async with make_app(wf := lasting(kind, log, run_timeout="300ms", retention="1d")) as app:
        handle = await app.start(wf)
        run = await handle.wait("10s")
        with pytest.raises(RunFailed):
            await handle.result()
        events = [event.type async for event in handle.events()]
    assert run.status == "failed"
    assert (run.error.code, run.error.step) == ("run.timeout", "last")
    assert run.step("last").status == "failed"
    assert is_about(run.deadline_at - run.created_at, timedelta(milliseconds=300))
    assert timedelta(0) <= run.ended_at - run.deadline_at < timedelta(seconds=2)
    assert run.expire_at is not None
    assert events[-1] == "run.timed_out"
    assert log == ["begin", "last", *(["told"] if kind == "working" else [])]


async def test_a_run_that_ends_in_time_ends_well(make_app: Any) -> None:
    log: list[str] = []
    async with make_app(wf := lasting("quick", log, run_timeout="10s")) as app:
        assert await app.run(wf, timeout="20s") == "over"


async def test_the_caller_can_say_another_limit(make_app: Any) -> None:
    log: list[str] = []
    async with make_app(wf := lasting("waiting", log, run_timeout="1h")) as app:
        handle = await app.start(wf, timeout="200ms")
        assert (await handle.wait("10s")).error.code == "run.timeout"
        other = await app.start(wf)
        run = await other.get()
    assert is_about(run.deadline_at - run.created_at, timedelta(hours=1))


async def test_the_time_begins_when_the_run_may(make_app: Any) -> None:
    log: list[str] = []
    clock = MovableClock()
    async with make_app(wf := lasting("quick", log), worker=False, clock=clock) as app:
        handle = await app.start(wf, delay="1h", timeout="1m")
        run = await handle.get()
        assert is_about(run.deadline_at - run.due_at, timedelta(minutes=1))
        clock.move(minutes=60, seconds=30)
        await app.tick()
        assert await handle.result("5s") == "over"


async def test_a_draft_that_nobody_took_in_its_time_fails_without_being_begun(make_app: Any) -> None:
    log: list[str] = []
    clock = MovableClock()
    async with make_app(wf := lasting("quick", log, run_timeout="1m"), worker=False, clock=clock) as app:
        handle = await app.start(wf)
        clock.move(minutes=2)
        await app.tick()
        run = await handle.get()
    assert (run.status, run.error.code) == ("failed", "run.timeout")
    assert log == []


async def test_a_plain_handler_that_does_not_stop_does_not_hold_up_the_end(make_app: Any) -> None:
    let_go = threading.Event()
    wf: Workflow[Any, Any, Any] = Workflow("w", run_timeout="200ms")

    @wf.step
    def deaf(ctx: Context[Any]) -> None:
        let_go.wait(10)

    worker = Worker(lease="30s", cancel_grace="100ms", drain=0)
    try:
        async with make_app(wf, worker=worker) as app:
            run = await (await app.start(wf)).wait("8s")
    finally:
        let_go.set()
    assert run.status == "failed"
    assert run.error.code in ("run.timeout", "step.timeout")


async def test_a_paused_run_is_not_ended_before_it_is_unpaused(make_app: Any) -> None:
    log: list[str] = []
    clock = MovableClock()
    async with make_app(wf := lasting("waiting", log, run_timeout="1m"), worker=False, clock=clock) as app:
        handle = await app.start(wf)
        await app.tick()
        await handle.pause()
        clock.move(minutes=2)
        await app.tick()
        assert await handle.status() == "waiting"
        await handle.unpause()
        await app.tick()
        run = await handle.get()
    assert (run.status, run.error.code) == ("failed", "run.timeout")


async def test_a_retried_run_is_not_ended_by_the_time_that_was_over(make_app: Any) -> None:
    log: list[str] = []
    async with make_app(wf := lasting("waiting", log, run_timeout="200ms")) as app:
        handle = await app.start(wf)
        assert (await handle.wait("10s")).error.code == "run.timeout"
        await handle.retry()
        await eventually(app.pending_waits)
        assert (await handle.get()).deadline_at is None
        await handle.resume()
        assert await handle.result("10s") == "over"
    assert log.count("begin") == 1


async def test_a_run_that_does_not_begin_in_time_fails_without_being_begun(make_app: Any) -> None:
    log: list[str] = []
    clock = MovableClock()
    async with make_app(wf := lasting("quick", log, start_by="1m"), worker=False, clock=clock) as app:
        handle = await app.start(wf)
        clock.move(seconds=61)
        await app.tick()
        run = await handle.get()
    assert (run.status, run.error.code, run.error.step) == ("failed", "run.expired", "begin")
    assert run.ended_at is not None
    assert log == []


async def test_a_run_that_began_in_time_may_go_on(make_app: Any) -> None:
    log: list[str] = []
    clock = MovableClock()
    async with make_app(wf := lasting("sleeping", log, start_by="1m"), worker=False, clock=clock) as app:
        handle = await app.start(wf)
        await app.tick()
        clock.move(hours=2)
        await app.tick()
        assert (await handle.get()).error is None


async def test_a_first_step_that_waits_has_begun(make_app: Any) -> None:
    clock = MovableClock()
    wf: Workflow[Any, Any, Any] = Workflow("w", start_by="1m")

    @wf.step
    async def ask(ctx: Context[Any]) -> Any:
        return await ctx.wait("name")

    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        await app.tick()
        clock.move(hours=2)
        await handle.resume("ann")
        await app.tick()
        assert await handle.result("5s") == "ann"


async def test_a_first_step_that_is_tried_again_has_begun(make_app: Any) -> None:
    clock = MovableClock()
    entered: list[int] = []
    wf: Workflow[Any, Any, Any] = Workflow("w", start_by="1m")

    @wf.step(retry=RetryPolicy(delay="1h", max_delay="1h", jitter=0))
    async def flaky(ctx: Context[Any]) -> str:
        entered.append(ctx.attempt)
        if len(entered) == 1:
            raise ValueError
        return "done"

    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        await app.tick()
        clock.move(hours=2)
        await app.tick()
        assert await handle.result("5s") == "done"


async def test_start_by_may_be_an_instant_and_counts_from_when_the_run_may_begin(make_app: Any) -> None:
    log: list[str] = []
    clock = MovableClock()
    async with make_app(wf := lasting("quick", log), worker=False, clock=clock) as app:
        until: datetime = clock.now() + timedelta(minutes=5)
        exact = await app.start(wf, start_by=until)
        later = await app.start(wf, delay="1h", start_by="1m")
        assert abs((await exact.get()).start_by - until) < timedelta(milliseconds=1)
        clock.move(minutes=60, seconds=30)
        await app.tick()
        assert (await exact.get()).error.code == "run.expired"
        assert await later.result("5s") == "over"


@pytest.mark.parametrize("options", [{"run_timeout": 0}, {"run_timeout": "-1s"}, {"start_by": "soon"}])
def test_limits_that_cannot_be_kept_are_refused(options: Any) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        Workflow("w", **options)
    assert caught.value.field == next(iter(options))


async def test_a_start_with_an_impossible_limit_stores_nothing(make_app: Any, runs: Any) -> None:
    log: list[str] = []
    async with make_app(wf := lasting("quick", log), worker=False) as app:
        for options in ({"timeout": 0}, {"start_by": app._clock.now() - timedelta(seconds=1)}, {"timeout": "soon"}):
            with pytest.raises(InvalidPolicy):
                await app.start(wf, **options)
    assert await runs.count_documents({}) == 0


async def test_a_cancel_reaches_a_handler_in_another_process_within_a_heartbeat(make_app: Any) -> None:
    """Without the wake channel it is the heartbeat that brings the news."""
    log: list[str] = []
    worker, quiet = Worker(lease="2s", poll_interval="1h"), Settings(wake_channel=False)
    wf = lasting("working", log)
    async with make_app(wf, worker=worker, settings=quiet) as app, make_app(wf, worker=False, settings=quiet) as other:
        handle = await app.start(wf)
        await eventually(lambda: "last" in log)
        began = asyncio.get_running_loop().time()
        await other.cancel(handle.id, reason="enough")
        await eventually(lambda: "told" in log)
        took = asyncio.get_running_loop().time() - began
        run = await other.handle(handle.id).get()
    assert took < worker.beat_seconds + 0.5
    assert (run.status, run.cancel["reason"]) == ("cancelled", "enough")
