"""Compensation: what was done is undone, the step that was done last first, with what it brought."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from streamline import Context, NonRetriableError, RetryAfter, Workflow
from streamline.errors import RunFailed
from tests.integration.trips import UNDONE, Hold, Trip
from tests.waiting import eventually, status_of


async def test_a_run_that_goes_well_is_not_compensated(make_app: Any, runs: Any) -> None:
    trip = Trip()
    trip.fails = False
    async with make_app(trip.workflow) as app:
        run = await (await app.start(trip.workflow)).wait("20s")
    assert run.status == "done"
    assert trip.log == ["hotel", "flight", "pay"]
    assert [step.compensation for step in run.steps] == [None, None, None]


async def test_a_failed_run_is_undone_in_reverse_order_with_typed_outputs(make_app: Any, runs: Any) -> None:
    trip = Trip(retention="1d")
    async with make_app(trip.workflow) as app:
        handle = await app.start(trip.workflow)
        run = await handle.wait("20s")
        with pytest.raises(RunFailed) as caught:
            await handle.result("20s")
        events = [event async for event in handle.events()]
    assert trip.log == ["hotel", "flight", "pay", *UNDONE]
    assert run.status == "compensated"
    assert (run.error.type, run.error.message, run.error.step) == ("ValueError", "no money", "pay")
    assert caught.value.error["message"] == "no money"
    assert [(step.id, step.status) for step in run.steps] == [("hotel", "done"), ("flight", "done"), ("pay", "failed")]
    assert [step.compensation and step.compensation.status for step in run.steps] == ["done", "done", None]
    assert run.expire_at - run.ended_at == timedelta(days=1)
    told = [(event.type, event.step) for event in events][-5:]
    assert told == [
        ("step.failed", "pay"),
        ("run.compensating", None),
        ("step.compensated", "flight"),
        ("step.compensated", "hotel"),
        ("run.compensated", None),
    ]


async def test_skipped_steps_and_steps_not_reached_are_not_compensated(make_app: Any) -> None:
    log: list[str] = []
    wf: Workflow[Any, Any, Any] = Workflow("w")

    def declare(name: str, **rules: Any) -> None:
        @wf.step(name, max_attempts=1, **rules)
        async def work(ctx: Context[Any]) -> str:
            if name in ("broken", "fails"):
                raise ValueError(name)
            return name

        @work.compensate
        async def undo(ctx: Context[Any], output: str) -> None:
            log.append(output)

    declare("one")
    declare("unwanted", skip_if=lambda ctx: True)
    declare("broken", on_error="skip")
    declare("two")
    declare("fails")
    declare("never")
    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.status == "compensated"
    assert log == ["two", "one"]


async def test_a_run_with_nothing_to_undo_simply_fails(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("w")

    @wf.step(max_attempts=1)
    async def work(ctx: Context[Any]) -> str:
        raise ValueError

    @work.compensate
    async def undo(ctx: Context[Any], output: str) -> None:
        raise AssertionError

    async with make_app(wf) as app:
        assert (await (await app.start(wf)).wait("20s")).status == "failed"


async def test_compensation_is_entered_in_the_very_write_that_fails_the_run(make_app: Any, database: Any) -> None:
    trip, seen = Trip(), []
    async with make_app(trip.workflow) as app:
        driver = app._open_session.runtime.store.driver
        send = driver.command

        async def command(asked: Any) -> Any:
            seen.extend(
                row["u"]["$set"].get("status") for row in asked.get("updates", ()) if "$set" in row.get("u", {})
            )
            return await send(asked)

        driver.command = command
        await (await app.start(trip.workflow)).wait("20s")
    assert "failed" not in seen
    assert seen.count("compensating") == 1


async def test_a_compensation_has_a_retry_policy_of_its_own(make_app: Any) -> None:
    trip = Trip()

    async def twice(ctx: Context[Any]) -> None:
        if ctx.attempt < 3:
            raise RetryAfter(0.01)

    trip.undo_hotel = twice
    async with make_app(trip.workflow) as app:
        run = await (await app.start(trip.workflow)).wait("20s")
    assert run.status == "compensated"
    assert [entry[2] for entry in trip.log if entry[0] == "undo hotel"] == [1, 2, 3]
    assert run.step("hotel").compensation.attempt == 3


async def test_one_failing_compensation_does_not_stop_the_others(make_app: Any) -> None:
    trip = Trip()

    async def fail(ctx: Context[Any]) -> None:
        raise RuntimeError("no answer")

    trip.undo_flight = fail
    async with make_app(trip.workflow) as app:
        handle = await app.start(trip.workflow)
        run = await handle.wait("20s")
        with pytest.raises(RunFailed):
            await handle.result()
    assert run.status == "compensation_failed"
    assert trip.undone == ["undo flight", "undo hotel"]
    assert (run.error.type, run.error.step) == ("ValueError", "pay")
    assert run.step("flight").compensation.status == "failed"
    assert run.step("flight").compensation.error.message == "no answer"
    assert run.step("hotel").compensation.status == "done"
    assert run.ended_at is not None


async def test_the_idempotency_key_of_a_compensation_is_stable_and_its_own(make_app: Any) -> None:
    trip, keys = Trip(), []

    async def note(ctx: Context[Any]) -> None:
        keys.append((ctx.idempotency_key(), ctx.idempotency_key("bank")))
        if ctx.attempt < 3:
            raise RetryAfter(0)

    trip.undo_hotel = note

    async def first(ctx: Context[Any]) -> None:
        keys.append(("step", ctx.idempotency_key()))

    trip.last = first
    async with make_app(trip.workflow) as app:
        await (await app.start(trip.workflow)).wait("20s")
    step, *undone = keys
    assert len(undone) == 3
    assert len(set(undone)) == 1
    assert undone[0][0] != undone[0][1]
    assert step[1] not in undone[0]


async def test_a_compensation_may_sleep_and_call_and_is_entered_again(make_app: Any) -> None:
    trip, calls = Trip(), []

    async def slow(ctx: Context[Any]) -> None:
        await ctx.call("tell", lambda: calls.append(1))
        await ctx.sleep(0.05)
        await ctx.call("told", lambda: calls.append(2))

    trip.undo_hotel = slow
    async with make_app(trip.workflow) as app:
        run = await (await app.start(trip.workflow)).wait("20s")
    assert run.status == "compensated"
    assert calls == [1, 2]
    assert trip.undone == ["undo flight", "undo hotel", "undo hotel"]
    assert run.step("hotel").compensation.attempt == 1


async def test_a_person_can_answer_a_compensation(make_app: Any) -> None:
    trip, decided = Trip(), []

    async def ask(ctx: Context[Any]) -> None:
        decided.append((await ctx.approve("give it back?")).outcome)

    trip.undo_hotel = ask
    async with make_app(trip.workflow) as app:
        handle = await app.start(trip.workflow)
        found = await eventually(lambda: app.pending_waits("approval"))
        assert (found[0].step, await handle.status()) == ("hotel", "compensating")
        await app.approve(handle.id)
        assert (await handle.wait("20s")).status == "compensated"
    assert decided == ["approved"]


async def test_a_compensation_cannot_jump(make_app: Any) -> None:
    trip = Trip()

    async def jump(ctx: Context[Any]) -> None:
        ctx.goto("hotel")

    trip.undo_hotel = jump
    async with make_app(trip.workflow) as app:
        run = await (await app.start(trip.workflow)).wait("20s")
    assert run.status == "compensation_failed"
    assert "jump" in run.step("hotel").compensation.error.message
    assert trip.undone.count("undo hotel") == 1


async def test_a_step_that_jumped_forward_is_undone_without_an_output(make_app: Any) -> None:
    log: list[Any] = []
    wf: Workflow[Any, Any, Any] = Workflow("w")

    @wf.step
    async def start(ctx: Context[Any]) -> Hold:
        ctx.goto("end")

    @start.compensate(max_attempts=1)
    async def undo(ctx: Context[Any], hold: Hold | None) -> None:
        log.append(hold)

    @wf.step
    async def between(ctx: Context[Any]) -> None:
        log.append("between")

    @wf.step(max_attempts=1)
    async def end(ctx: Context[Any]) -> None:
        raise ValueError("no")

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("5s")
    assert run.status == "compensated"
    assert log == [None]


async def test_an_output_that_no_longer_fits_fails_its_compensation_and_not_the_others(
    make_app: Any, runs: Any
) -> None:
    trip = Trip()

    async def hold(ctx: Context[Any]) -> None:
        await ctx.sleep("1h")

    trip.last = hold
    async with make_app(trip.workflow) as app:
        handle = await app.start(trip.workflow)
        await status_of(handle, "waiting")
        trip.last = None
        damage = {"steps.1.output": {"no": "seat"}, "steps.2.memo": {}}
        await runs.update_one({"_id": handle.id}, {"$set": {**damage, "due_at": app._clock.now()}, "$inc": {"rev": 1}})
        await app.pause(handle.id)
        await app.unpause(handle.id)
        run = await eventually(lambda: finished(handle, runs))
    assert run["status"] == "compensation_failed"
    assert trip.undone == ["undo hotel"]
    assert run["steps"][1]["compensation"]["error"]["code"] == "run.corrupt"


async def finished(handle: Any, runs: Any) -> Any:
    return await runs.find_one({"_id": handle.id, "ended_at": {"$exists": True}})


async def test_a_group_is_undone_from_its_last_member_to_its_first(make_app: Any) -> None:
    log: list[str] = []
    wf: Workflow[Any, Any, Any] = Workflow("w")

    def member(name: str, *, fails: bool = False) -> None:
        @wf.step(name, group="g", max_attempts=1)
        async def work(ctx: Context[Any]) -> str:
            if fails:
                raise NonRetriableError(name)
            await asyncio.sleep(0.02)
            return name

        @work.compensate
        async def undo(ctx: Context[Any], output: str) -> None:
            log.append(output)

    member("a")
    member("b", fails=True)
    member("c")
    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.status == "compensated"
    assert log == ["c", "a"]
