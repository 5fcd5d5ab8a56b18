"""An operator's hold: the present step finishes, the next does not begin, and timers wait."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from streamline import Context, RetryPolicy, Workflow
from streamline.errors import AlreadyFinished
from tests.clocks import MovableClock
from tests.waiting import eventually, status_of


def two_steps(gate: asyncio.Event, calls: list[str], **rules: Any) -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow("two")

    @wf.step(**rules)
    async def first(ctx: Context[Any]) -> str:
        calls.append("first")
        await gate.wait()
        if ctx.input == "fail once" and ctx.attempt == 1:
            raise ValueError
        return "one"

    @wf.step
    async def second(ctx: Context[Any]) -> str:
        calls.append("second")
        return f"{ctx.output(first)}, two"

    return wf


async def test_pausing_in_the_middle_of_a_step_lets_it_finish(make_app: Any) -> None:
    gate, calls = asyncio.Event(), []
    wf = two_steps(gate, calls)
    async with make_app(wf) as app:
        handle = await app.start(wf)
        await eventually(lambda: calls)
        await handle.pause(reason="look closer", by="ann")
        run = await handle.get()
        assert run.paused
        assert run.status == "running"
        gate.set()
        run = await status_of(handle, "waiting")
        assert [step.status for step in run.steps] == ["done", "pending"]
        assert run.paused
        assert run.due_at is None
        assert await app.tick() == 0
        assert calls == ["first"]
        await handle.unpause()
        assert await handle.result("20s") == "one, two"
        assert not (await handle.get()).paused
        events = [event async for event in handle.events()]
    assert calls == ["first", "second"]
    (paused,) = [event for event in events if event.type == "run.paused"]
    assert paused.data["reason"] == "look closer"
    assert [event.type for event in events].count("run.unpaused") == 1
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


async def test_pausing_during_the_last_step_lets_the_run_end(make_app: Any) -> None:
    gate, calls = asyncio.Event(), []
    wf: Workflow[Any, Any, Any] = Workflow("one")

    @wf.step
    async def only(ctx: Context[Any]) -> str:
        calls.append("only")
        await gate.wait()
        return "done"

    async with make_app(wf) as app:
        handle = await app.start(wf)
        await eventually(lambda: calls)
        await handle.pause()
        gate.set()
        assert await handle.result("20s") == "done"
        assert not (await handle.get()).paused


async def test_a_paused_sleep_ends_only_after_the_hold(make_app: Any) -> None:
    clock = MovableClock()
    wf: Workflow[Any, Any, Any] = Workflow("sleeper")
    entered = []

    @wf.step
    async def sleeper(ctx: Context[Any]) -> str:
        entered.append(ctx.attempt)
        await ctx.sleep("1h")
        return "woken"

    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        await app.tick()
        await handle.pause()
        run = await handle.get()
        assert (run.status, run.paused, run.due_at) == ("waiting", True, None)
        clock.move(hours=2)
        assert await app.tick() == 0
        assert (await handle.get()).step("sleeper").status == "waiting"
        await handle.unpause()
        assert (await handle.get()).due_at is not None
        assert await app.tick() == 1
        run = await handle.get()
    assert run.output == "woken"
    assert entered == [1, 1]


async def test_a_hold_that_is_over_before_the_timer_is_changes_nothing(make_app: Any) -> None:
    clock = MovableClock()
    wf: Workflow[Any, Any, Any] = Workflow("sleeper")

    @wf.step
    async def sleeper(ctx: Context[Any]) -> str:
        await ctx.sleep("1h")
        return "woken"

    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        await app.tick()
        due_at = (await handle.get()).due_at
        await handle.pause()
        clock.move(minutes=10)
        await handle.unpause()
        assert (await handle.get()).due_at == due_at
        assert await app.tick() == 0


async def test_pausing_between_attempts_holds_the_next(make_app: Any) -> None:
    clock = MovableClock()
    gate, calls = asyncio.Event(), []
    gate.set()
    wf = two_steps(gate, calls, retry=RetryPolicy(delay="60s", jitter=0))
    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf, "fail once")
        await app.tick()
        await handle.pause()
        clock.move(hours=1)
        assert await app.tick() == 0
        assert (await handle.get()).step("first").attempt == 1
        await handle.unpause()
        assert await app.tick() == 1
        run = await handle.get()
    assert run.output == "one, two"
    assert calls == ["first", "first", "second"]


async def test_a_step_that_fails_while_its_run_is_held_is_tried_again_after_the_hold(make_app: Any) -> None:
    gate, calls = asyncio.Event(), []
    wf = two_steps(gate, calls, retry=RetryPolicy(delay=0))
    async with make_app(wf) as app:
        handle = await app.start(wf, "fail once")
        await eventually(lambda: calls)
        await handle.pause()
        gate.set()
        run = await status_of(handle, "waiting")
        assert run.due_at is None
        assert run.step("first").error is not None
        await handle.unpause()
        assert await handle.result("20s") == "one, two"


async def test_a_sleep_that_begins_while_its_run_is_held_is_kept(make_app: Any) -> None:
    gate, entered = asyncio.Event(), []
    wf: Workflow[Any, Any, Any] = Workflow("sleeper")

    @wf.step
    async def sleeper(ctx: Context[Any]) -> str:
        entered.append(ctx.attempt)
        await gate.wait()
        await ctx.sleep(0.05)
        return "woken"

    async with make_app(wf) as app:
        handle = await app.start(wf)
        await eventually(lambda: entered)
        await handle.pause()
        gate.set()
        run = await status_of(handle, "waiting")
        assert run.due_at is None
        assert run.waits[0].kind == "sleep"
        await handle.unpause()
        assert await handle.result("20s") == "woken"
    assert entered == [1, 1]


async def test_a_held_draft_is_not_taken(make_app: Any) -> None:
    gate, calls = asyncio.Event(), []
    gate.set()
    wf = two_steps(gate, calls)
    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        await handle.pause()
        run = await handle.get()
        assert (run.status, run.paused) == ("draft", True)
        assert await app.tick() == 0
        await handle.unpause()
        assert await app.tick() == 1
        assert await handle.result("20s") == "one, two"


async def test_pausing_twice_keeps_the_first_hold(make_app: Any, runs: Any) -> None:
    wf = two_steps(asyncio.Event(), [])
    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        await handle.pause(reason="first")
        before = await runs.find_one({"_id": handle.id})
        await handle.pause(reason="second")
        assert await runs.find_one({"_id": handle.id}) == before
        await handle.unpause()
        after = await runs.find_one({"_id": handle.id})
        await handle.unpause()
        assert await runs.find_one({"_id": handle.id}) == after


@pytest.mark.parametrize("verb", ["pause", "unpause"])
@pytest.mark.parametrize("end", ["done", "cancelled"])
async def test_a_run_that_has_ended_cannot_be_held(make_app: Any, verb: str, end: str) -> None:
    gate = asyncio.Event()
    wf = two_steps(gate, [])
    async with make_app(wf) as app:
        handle = await app.start(wf)
        if end == "cancelled":
            await handle.cancel()
        gate.set()
        run = await handle.wait("20s")
        with pytest.raises(AlreadyFinished) as caught:
            await getattr(handle, verb)()
        assert (await handle.get()).rev == run.rev
    assert caught.value.http_status == 409


async def test_cancelling_a_held_run_ends_it(make_app: Any) -> None:
    wf = two_steps(asyncio.Event(), [])
    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        await handle.pause()
        await handle.cancel()
        run = await handle.get()
    assert (run.status, run.paused) == ("cancelled", False)


async def test_a_worker_that_stops_keeps_the_hold_of_its_run(make_app: Any) -> None:
    from streamline import Worker

    gate, calls = asyncio.Event(), []
    wf = two_steps(gate, calls)
    async with make_app(wf, worker=Worker(drain=0, cancel_grace="1s")) as app:
        handle = await app.start(wf)
        await eventually(lambda: calls)
        await handle.pause()
    gate.set()
    async with make_app(wf, worker=False) as app:
        run = await app.get(handle.id)
        assert (run.status, run.paused, run.due_at) == ("waiting", True, None)
        assert await app.tick() == 0
        await app.unpause(run.id)
        assert await app.tick() == 1
        assert await app.handle(run.id).result("20s") == "one, two"
    assert calls == ["first", "first", "second"]


async def test_a_held_run_of_a_dead_worker_does_not_begin_its_next_step(make_app: Any, runs: Any) -> None:
    gate, calls = asyncio.Event(), []
    gate.set()
    wf = two_steps(gate, calls)
    clock = MovableClock()
    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        now = clock.now()
        lease = {"worker": "dead", "token": "t", "at": now, "until": now - timedelta(seconds=1)}
        change = {"$set": {"status": "running", "attempt": 1, "lease": lease, "steps.0.status": "running"}}
        await runs.update_one({"_id": handle.id}, change | {"$unset": {"due_at": ""}})
        await handle.pause()
        await app.tick()
        run = await handle.get()
        assert run.paused
        assert run.step("second").status == "pending"
        assert run.due_at is None
        await handle.unpause()
        await app.tick()
        assert await handle.status() == "done"
