"""What lets a run be undone, and what may come between: the end of its time, a death, a pause, an operator."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamline import Context, Worker, Workflow
from streamline.errors import AlreadyFinished, IllegalTransition, InvalidPolicy, RunCancelled
from tests.clocks import MovableClock
from tests.integration.trips import UNDONE, Hold, Trip, abandon, done_steps
from tests.waiting import eventually, status_of


@pytest.mark.parametrize("ends", [("failed",), ("cancelled",), ("failed", "cancelled"), ()])
async def test_which_ends_are_compensated_is_for_the_workflow_to_say(make_app: Any, ends: tuple[str, ...]) -> None:
    async def one(how: str) -> Any:
        trip, gate = Trip(compensate_on=set(ends)), asyncio.Event()
        if how == "cancelled":
            trip.last = lambda ctx: gate.wait()
        async with make_app(trip.workflow) as app:
            handle = await app.start(trip.workflow)
            await eventually(lambda: "pay" in trip.log)
            if how == "cancelled":
                await handle.cancel(reason="changed my mind", by="ann")
            return await handle.wait("20s"), trip.undone

    for how in ("failed", "cancelled"):
        run, undone = await one(how)
        assert run.status == ("compensated" if how in ends else how)
        assert undone == (["undo flight", "undo hotel"] if how in ends else [])


async def test_a_run_that_was_cancelled_and_undone_says_so(make_app: Any) -> None:
    trip, gate = Trip(compensate_on={"failed", "cancelled"}), asyncio.Event()
    ended = asyncio.Event()

    async def wait(ctx: Context[Any]) -> None:
        try:
            await gate.wait()
        finally:
            ended.set()

    trip.last = wait
    async with make_app(trip.workflow) as app:
        handle = await app.start(trip.workflow)
        await eventually(lambda: "pay" in trip.log)
        await handle.cancel(reason="changed my mind")
        await asyncio.wait_for(ended.wait(), 10)
        run = await handle.wait("20s")
        with pytest.raises(RunCancelled) as caught:
            await handle.result()
    assert (run.status, run.cancel["reason"], caught.value.reason) == ("compensated", *["changed my mind"] * 2)
    assert run.error.code == "run.cancelled"
    assert trip.undone == ["undo flight", "undo hotel"]


@pytest.mark.parametrize("wrong", ["failed", {"done"}, 7, {"failed", "lost"}])
def test_an_end_that_cannot_be_compensated_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        Workflow("w", compensate_on=wrong)
    assert caught.value.field == "compensate_on"


async def test_a_run_whose_time_is_over_is_compensated_beyond_it(make_app: Any) -> None:
    trip, gate = Trip(run_timeout="300ms"), asyncio.Event()
    trip.last = lambda ctx: gate.wait()

    async def slow(ctx: Context[Any]) -> None:
        await ctx.sleep(0.1)

    trip.undo_hotel = slow
    async with make_app(trip.workflow) as app:
        run = await (await app.start(trip.workflow)).wait("20s")
    assert run.status == "compensated"
    assert run.error.code == "run.timeout"
    assert trip.undone == ["undo flight", "undo hotel", "undo hotel"]


async def test_a_run_that_was_given_up_is_compensated(make_app: Any, runs: Any) -> None:
    trip, clock = Trip(), MovableClock()
    async with make_app(trip.workflow, worker=Worker(max_recoveries=2, lease="400ms"), clock=clock) as app:
        handle = await app.start(trip.workflow, delay="1h")
        await abandon(runs, handle.id, clock, 2, **done_steps())
        run = await handle.wait("20s")
    assert run.status == "compensated"
    assert run.error.code == "dead_lettered"
    assert trip.log == UNDONE


async def test_a_death_in_the_middle_repeats_no_compensation_that_is_done(make_app: Any, runs: Any) -> None:
    trip, clock = Trip(), MovableClock()
    async with make_app(trip.workflow, worker=False, clock=clock) as app:
        handle = await app.start(trip.workflow)
        undoing = {
            "steps.2.status": "failed",
            "status": "compensating",
            "error": {"code": "step.error", "type": "ValueError", "message": "no money", "step": "pay", "attempt": 1},
            "steps.0.compensation": {"status": "pending"},
            "steps.1.compensation": {"status": "done", "attempt": 1},
        }
        await abandon(runs, handle.id, clock, 0, **(done_steps() | undoing))
        assert await app.tick() == 1
        run = await handle.get()
    assert trip.log == [("undo hotel", Hold(room=7), 2)]
    assert run.status == "compensated"
    assert run.recovery_count == 1


async def test_a_compensation_that_kills_its_workers_is_given_up_and_the_others_go_on(make_app: Any, runs: Any) -> None:
    trip, clock = Trip(), MovableClock()
    async with make_app(trip.workflow, worker=Worker(max_recoveries=1, lease="400ms"), clock=clock) as app:
        handle = await app.start(trip.workflow, delay="1h")
        undoing = {
            "steps.2.status": "failed",
            "status": "compensating",
            "error": {"code": "step.error", "type": "ValueError", "message": "no money", "step": "pay", "attempt": 1},
            "steps.0.compensation": {"status": "pending"},
            "steps.1.compensation": {"status": "pending"},
        }
        await abandon(runs, handle.id, clock, 1, **(done_steps() | undoing))
        run = await handle.wait("20s")
    assert run.status == "compensation_failed"
    assert trip.undone == ["undo hotel"]
    assert "died" in run.step("flight").compensation.error.message


async def test_a_stopping_worker_hands_a_compensation_over(make_app: Any, runs: Any) -> None:
    trip, entered = Trip(), asyncio.Event()
    block = asyncio.Event()

    async def wait(ctx: Context[Any]) -> None:
        entered.set()
        await block.wait()

    trip.undo_hotel = wait
    async with make_app(trip.workflow, worker=Worker(lease="30s", drain=0, cancel_grace="1s")) as app:
        handle = await app.start(trip.workflow)
        await asyncio.wait_for(entered.wait(), 10)
    stored = await runs.find_one({"_id": handle.id})
    assert stored["status"] == "compensating"
    assert "lease" not in stored
    block.set()
    async with make_app(trip.workflow) as app:
        assert (await app.handle(handle.id).wait("20s")).status == "compensated"
    assert trip.undone == ["undo flight", "undo hotel", "undo hotel"]


async def test_a_rewound_run_can_be_compensated_again(make_app: Any) -> None:
    trip = Trip()
    async with make_app(trip.workflow) as app:
        handle = await app.start(trip.workflow)
        assert (await handle.wait("20s")).status == "compensated"
        await handle.rewind("hotel")
        run = await handle.wait("20s")
        assert run.status == "compensated"
        trip.fails = False
        await handle.rewind("hotel")
        assert await handle.result("20s") == "paid"
        run = await handle.get()
    assert trip.log == ["hotel", "flight", "pay", *UNDONE] * 2 + ["hotel", "flight", "pay"]
    assert [step.compensation for step in run.steps] == [None, None, None]
    assert run.error is None


async def test_a_compensated_run_cannot_be_retried_and_a_compensating_one_not_rewound(make_app: Any) -> None:
    trip, block = Trip(), asyncio.Event()
    trip.undo_flight = lambda ctx: block.wait()
    async with make_app(trip.workflow) as app:
        handle = await app.start(trip.workflow)
        await status_of(handle, "compensating")
        for verb in (handle.retry(), handle.rewind("hotel")):
            with pytest.raises(IllegalTransition):
                await verb
        await handle.cancel(reason="too late")
        block.set()
        run = await handle.wait("20s")
        assert (run.status, run.cancel) == ("compensated", None)
        with pytest.raises(IllegalTransition):
            await handle.retry()
        with pytest.raises(AlreadyFinished):
            await handle.pause()


async def test_a_pause_holds_the_next_compensation(make_app: Any, runs: Any) -> None:
    trip, entered, block = Trip(), asyncio.Event(), asyncio.Event()

    async def wait(ctx: Context[Any]) -> None:
        entered.set()
        await block.wait()

    trip.undo_flight = wait
    async with make_app(trip.workflow) as app:
        handle = await app.start(trip.workflow)
        await asyncio.wait_for(entered.wait(), 10)
        await handle.pause()
        block.set()
        await eventually(lambda: runs.find_one({"_id": handle.id, "lease": {"$exists": False}}))
        run = await handle.get()
        assert (run.status, run.paused) == ("compensating", True)
        assert trip.undone == ["undo flight"]
        await handle.unpause()
        assert (await handle.wait("20s")).status == "compensated"
    assert trip.undone == ["undo flight", "undo hotel"]


async def test_a_run_holds_its_idempotency_key_while_it_is_compensated(make_app: Any) -> None:
    trip, block = Trip(), asyncio.Event()
    trip.undo_flight = lambda ctx: block.wait()
    async with make_app(trip.workflow) as app:
        handle = await app.start(trip.workflow, idempotency_key="k")
        await status_of(handle, "compensating")
        same = await app.start(trip.workflow, idempotency_key="k")
        assert (same.id, same.created) == (handle.id, False)
        block.set()
        assert (await handle.wait("20s")).status == "compensated"
        trip.fails = False
        assert (await app.start(trip.workflow, idempotency_key="k")).created
