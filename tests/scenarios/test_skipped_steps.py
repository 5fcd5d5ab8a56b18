"""Steps that are passed over, in the company of waits, retries, groups, compensations and jumps."""

from __future__ import annotations

import asyncio
from typing import Any

from streamline import Context, NonRetriableError, RetryPolicy, Streamline, Workflow

QUICK_RETRY = RetryPolicy(max_attempts=2, delay=0)


def statuses(run: Any) -> dict[str, str]:
    return {step.id: step.status for step in run.steps}


async def test_a_run_whose_middle_steps_are_skipped_is_done(database: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("skipping")
    carried_out: list[str] = []

    async def work(ctx: Context[Any]) -> str:
        carried_out.append(ctx.step_id)
        return ctx.step_id

    wf.step("first")(work)
    wf.step("second", skip_if=lambda ctx: True)(work)
    wf.step("third", run_if=lambda ctx: False)(work)
    wf.step("last")(work)
    async with Streamline(database, workflows=[wf]) as app:
        run = await (await app.start(wf)).wait("20s")
    assert carried_out == ["first", "last"]
    assert (run.status, run.output) == ("done", "last")
    assert statuses(run) == {"first": "done", "second": "skipped", "third": "skipped", "last": "done"}
    stored = await database["streamline.runs"].find_one({})
    for step in stored["steps"][1:3]:
        assert "output" not in step
        assert step["ended_at"] is not None
    skips = [event["step"] for event in stored["events"] if event["type"] == "step.skipped"]
    assert skips == ["second", "third"]


async def test_a_run_whose_last_step_is_skipped_has_no_output(database: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("skipping")

    @wf.step
    async def first(ctx: Context[Any]) -> str:
        return "one"

    @wf.step(skip_if=lambda ctx: True)
    async def last(ctx: Context[Any]) -> str:
        return "two"

    async with Streamline(database, workflows=[wf]) as app:
        run = await (await app.start(wf)).wait("20s")
    assert (run.status, run.output) == ("done", None)


async def test_a_predicate_is_asked_once_before_its_step_begins(database: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("skipping", retry=QUICK_RETRY)
    asked: list[int] = []

    def wanted(ctx: Context[Any]) -> bool:
        asked.append(ctx.attempt)
        return True

    @wf.step(run_if=wanted)
    async def naps(ctx: Context[Any]) -> str:
        await ctx.sleep(0.01)
        if ctx.attempt == 1:
            raise ValueError("once")
        return "rested"

    async with Streamline(database, workflows=[wf]) as app:
        assert await app.run(wf, timeout="20s") == "rested"
    assert asked == [1]


async def test_a_step_that_fails_may_be_skipped_and_nothing_is_compensated(database: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("skipping", retry=QUICK_RETRY)
    undone: list[str] = []

    @wf.step
    async def first(ctx: Context[Any]) -> str:
        return "one"

    @first.compensate
    async def undo_first(ctx: Context[Any], output: str) -> None:
        undone.append("first")

    @wf.step(on_error="skip")
    async def optional(ctx: Context[Any]) -> str:
        await ctx.progress(0.5, "half")
        raise ValueError(f"attempt {ctx.attempt}")

    @wf.step
    async def last(ctx: Context[Any]) -> bool:
        return "optional" in ctx.outputs

    async with Streamline(database, workflows=[wf]) as app:
        run = await (await app.start(wf)).wait("20s")
    assert (run.status, run.output, run.error, undone) == ("done", False, None, [])
    skipped = run.step("optional")
    assert (skipped.status, skipped.attempt, skipped.error.message) == ("skipped", 2, "attempt 2")


async def test_skipped_steps_are_not_compensated_when_a_later_one_fails(database: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("skipping")
    undone: list[str] = []

    async def undo(ctx: Context[Any], output: Any) -> None:
        undone.append(ctx.step_id)

    async def work(ctx: Context[Any]) -> str:
        if ctx.step_id == "broken":
            raise NonRetriableError("no")
        return ctx.step_id

    wf.step("first")(work).compensate(undo)
    wf.step("passed-over", skip_if=lambda ctx: True)(work).compensate(undo)
    wf.step("broken", on_error="skip")(work).compensate(undo)
    wf.step("third")(work).compensate(undo)

    @wf.step
    async def last(ctx: Context[Any]) -> None:
        raise NonRetriableError("the end")

    async with Streamline(database, workflows=[wf]) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.status == "compensated"
    assert undone == ["third", "first"]


async def test_members_of_a_group_are_skipped_one_by_one(database: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("skipping")
    carried_out: list[str] = []

    async def work(ctx: Context[Any]) -> str:
        carried_out.append(ctx.step_id)
        if ctx.step_id == "b":
            raise NonRetriableError("no")
        await asyncio.sleep(0.01)
        return ctx.step_id

    wf.step("a", group="g")(work)
    wf.step("b", group="g", on_error="skip")(work)
    wf.step("c", group="g", skip_if=lambda ctx: True)(work)
    wf.step("d", group="g", run_if=lambda ctx: True)(work)
    wf.step("last")(work)
    async with Streamline(database, workflows=[wf]) as app:
        run = await (await app.start(wf)).wait("20s")
    assert (run.status, run.output) == ("done", "last")
    assert statuses(run) == {"a": "done", "b": "skipped", "c": "skipped", "d": "done", "last": "done"}
    assert sorted(carried_out) == ["a", "b", "d", "last"]


async def test_a_step_that_was_skipped_may_be_carried_out_after_a_jump_back(database: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("skipping", state=dict)
    carried_out: list[int] = []

    @wf.step
    async def first(ctx: Context[Any, Any]) -> None:
        await ctx.inc("turns", 1)

    @wf.step(run_if=lambda ctx: ctx.state["turns"] == 2)
    async def second(ctx: Context[Any, Any]) -> str:
        carried_out.append(ctx.state["turns"])
        return "carried out"

    @wf.step
    async def third(ctx: Context[Any, Any]) -> list[Any]:
        if ctx.state["turns"] == 1:
            ctx.goto(first)
        return [ctx.state["turns"], ctx.output(second)]

    async with Streamline(database, workflows=[wf]) as app:
        assert await app.run(wf, timeout="20s") == [2, "carried out"]
    assert carried_out == [2]
