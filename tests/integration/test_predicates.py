"""skip_if, run_if and on_error: steps that are passed over."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from streamline import Context, RetryPolicy, Workflow
from streamline.errors import StepOutputMissing


class Receipt(BaseModel):
    charge_id: str


def three_steps(**rules: Any) -> tuple[Workflow[Any, Any, Any], list[str]]:
    wf: Workflow[Any, Any, Any] = Workflow("three")
    calls: list[str] = []

    @wf.step
    async def first(ctx: Context[Any]) -> str:
        calls.append("first")
        return "one"

    @wf.step(**rules)
    async def middle(ctx: Context[Any]) -> Receipt:
        calls.append("middle")
        return Receipt(charge_id="2")

    @wf.step
    async def last(ctx: Context[Any]) -> Any:
        calls.append("last")
        try:
            return ctx.output(middle).charge_id
        except StepOutputMissing:
            return [
                "missing",
                ctx.outputs.get("middle"),
                sorted(ctx.outputs),
                len(ctx.outputs),
                "middle" in ctx.outputs,
            ]

    return wf, calls


def plain(answer: Any) -> Any:
    return lambda ctx: answer


def later(answer: Any) -> Any:
    async def predicate(ctx: Context[Any]) -> Any:
        await asyncio.sleep(0)
        return answer

    return predicate


@pytest.mark.parametrize("kind", [plain, later])
@pytest.mark.parametrize(
    ("name", "answer", "skipped"),
    [("skip_if", True, True), ("skip_if", False, False), ("run_if", True, False), ("run_if", False, True)],
)
async def test_a_predicate_decides_whether_its_step_is_carried_out(
    make_app: Any, kind: Any, name: str, *, answer: bool, skipped: bool
) -> None:
    wf, calls = three_steps(**{name: kind(answer)})
    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.status == "done"
    assert ("middle" in calls) is not skipped
    assert run.step("middle").status == ("skipped" if skipped else "done")
    if skipped:
        assert run.output == ["missing", None, ["first"], 1, False]
        assert run.step("middle").output is None
        assert run.step("middle").ended_at is not None
        assert run.step("middle").error is None
    else:
        assert run.output == "2"


async def test_skip_if_and_run_if_must_both_allow_the_step(make_app: Any) -> None:
    wf, calls = three_steps(skip_if=plain(answer=False), run_if=plain(answer=False))
    async with make_app(wf) as app:
        await app.run(wf, timeout="20s")
    assert calls == ["first", "last"]


async def test_a_predicate_sees_the_input_and_earlier_outputs(make_app: Any) -> None:
    seen = []

    def look(ctx: Context[Any]) -> bool:
        seen.append((ctx.input, ctx.outputs["first"], ctx.step_id))
        return False

    wf, _ = three_steps(skip_if=look)
    async with make_app(wf) as app:
        await app.run(wf, "given", timeout="20s")
    assert seen == [("given", "one", "middle")]


def raises(error: BaseException) -> Any:
    def predicate(ctx: Context[Any]) -> bool:
        raise error

    return predicate


def raises_later(error: BaseException) -> Any:
    async def predicate(ctx: Context[Any]) -> bool:
        await asyncio.sleep(0)
        raise error

    return predicate


@pytest.mark.parametrize("kind", [raises, raises_later])
@pytest.mark.parametrize("name", ["skip_if", "run_if"])
@pytest.mark.parametrize(
    "error",
    [ValueError("broken"), asyncio.CancelledError(), SystemExit(1), GeneratorExit()],
    ids=lambda error: type(error).__name__,
)
async def test_a_predicate_that_raises_fails_the_step(
    make_app: Any, kind: Any, name: str, error: BaseException
) -> None:
    wf, calls = three_steps(**{name: kind(error)})
    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("10s")
    assert run.status == "failed"
    assert run.error.step == "middle"
    assert run.error.type == type(error).__name__
    assert run.step("middle").status == "failed"
    assert run.step("last").status == "pending"
    assert calls == ["first"]


async def test_a_predicate_that_would_wait_fails_the_step(make_app: Any) -> None:
    async def sleepy(ctx: Context[Any]) -> bool:
        await ctx.sleep("1h")
        return True

    wf, calls = three_steps(skip_if=sleepy)
    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("10s")
    assert run.status == "failed"
    assert run.error.step == "middle"
    assert calls == ["first"]


async def test_the_first_step_may_be_skipped(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("first")

    @wf.step(skip_if=plain(answer=True))
    async def optional(ctx: Context[Any]) -> str:
        return "never"

    @wf.step
    async def last(ctx: Context[Any]) -> str:
        return "done"

    async with make_app(wf) as app:
        assert await app.run(wf, timeout="20s") == "done"


@pytest.mark.parametrize("annotation", [Any, str, Receipt, None])
async def test_a_run_whose_last_step_was_skipped_is_done_without_output(make_app: Any, annotation: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("last")

    async def optional(ctx: Context[Any]) -> Any:
        return None

    optional.__annotations__["return"] = annotation
    wf.step(skip_if=plain(answer=True))(optional)
    async with make_app(wf) as app:
        handle = await app.start(wf)
        assert await handle.result("20s") is None
        run = await handle.get()
        assert [each.output for each in (await app.runs()).items] == [None]
    assert run.status == "done"
    assert run.output is None


async def test_a_run_without_output_is_done_even_where_its_type_allows_none(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("last", output=Receipt)

    @wf.step(skip_if=plain(answer=True))
    async def optional(ctx: Context[Any]) -> Receipt:
        return Receipt(charge_id="1")

    async with make_app(wf) as app:
        assert (await (await app.start(wf)).wait("20s")).output is None


async def test_a_tolerated_failure_lets_the_run_go_on(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("tolerant")
    attempts = []

    @wf.step(on_error="skip", retry=RetryPolicy(max_attempts=2, delay=0))
    async def shaky(ctx: Context[Any]) -> str:
        attempts.append(ctx.attempt)
        raise ValueError("broken")

    @wf.step
    async def after(ctx: Context[Any]) -> str:
        with pytest.raises(StepOutputMissing):
            ctx.output(shaky)
        return "went on"

    async with make_app(wf) as app:
        handle = await app.start(wf)
        run = await handle.wait("20s")
        events = [event async for event in handle.events()]
    assert attempts == [1, 2]
    assert run.output == "went on"
    assert run.error is None
    assert run.step("shaky").status == "skipped"
    assert run.step("shaky").error.message == "broken"
    assert [event.type for event in events if event.step == "shaky"] == [
        "step.started",
        "step.retrying",
        "step.started",
        "step.skipped",
    ]


async def test_a_tolerated_failure_of_the_last_step_ends_the_run_well(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("tolerant")

    @wf.step(on_error="skip", max_attempts=1)
    async def shaky(ctx: Context[Any]) -> str:
        raise ValueError("broken")

    async with make_app(wf) as app:
        handle = await app.start(wf)
        assert await handle.result("20s") is None
        assert (await handle.get()).status == "done"


async def test_a_predicate_that_raises_is_a_failure_that_can_be_tolerated(make_app: Any) -> None:
    wf, calls = three_steps(skip_if=raises(ValueError("broken")), on_error="skip")
    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.status == "done"
    assert calls == ["first", "last"]
    assert run.step("middle").status == "skipped"
