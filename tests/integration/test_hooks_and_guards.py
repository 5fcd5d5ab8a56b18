"""Hooks observe and can do no harm; guards may refuse a step or one branch of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamline import Context, Hooks, NonRetriableError, RetryPolicy, Workflow
from tests.waiting import status_of


class Recorder(Hooks):
    """Writes down what it is told, and how long each handler took."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def before(self, ctx: Any, branch: str | None) -> None:
        self.told.append(("before", ctx.step_id, ctx.attempt, branch))

    async def after(self, ctx: Any, branch: str | None, output: Any) -> None:
        await asyncio.sleep(0)
        self.told.append(("after", ctx.step_id, ctx.attempt, branch, output))

    def failed(self, ctx: Any, branch: str | None, error: BaseException) -> None:
        self.told.append(("failed", ctx.step_id, ctx.attempt, branch, type(error).__name__))

    async def waiting(self, ctx: Any, branch: str | None) -> None:
        self.told.append(("waiting", ctx.step_id, ctx.attempt, branch))


class Harmful:
    """Raises whenever it is told anything."""

    def before(self, ctx: Any, branch: str | None) -> None:
        raise ValueError("before")

    async def after(self, ctx: Any, branch: str | None, output: Any) -> None:
        raise ValueError("after")

    def failed(self, ctx: Any, branch: str | None, error: BaseException) -> None:
        raise ValueError("failed")

    async def waiting(self, ctx: Any, branch: str | None) -> None:
        raise ValueError("waiting")


def workflow(hooks: Any = (), guards: Any = ()) -> Workflow[Any, Any, Any]:
    return Workflow("watched", hooks=hooks, guards=guards, retry=RetryPolicy(max_attempts=3, delay=0))


# ---- hooks -----------------------------------------------------------------------------------------------------------


async def test_hooks_are_told_of_every_attempt_and_its_output_in_order(make_app: Any) -> None:
    recorder = Recorder()
    wf = workflow([recorder])

    @wf.step
    async def first(ctx: Context[Any]) -> str:
        if ctx.attempt == 1:
            raise ValueError("once")
        return "one"

    @wf.step
    def second(ctx: Context[Any]) -> str:  # in a thread
        return "two"

    async with make_app(wf) as app:
        await app.run(wf, timeout="20s")
    assert recorder.told == [
        ("before", "first", 1, None),
        ("failed", "first", 1, None, "ValueError"),
        ("before", "first", 2, None),
        ("after", "first", 2, None, "one"),
        ("before", "second", 1, None),
        ("after", "second", 1, None, "two"),
    ]


async def test_hooks_are_told_that_a_handler_waits_and_is_entered_again(make_app: Any) -> None:
    recorder = Recorder()
    wf = workflow([recorder])

    @wf.step
    async def naps(ctx: Context[Any]) -> str:
        await ctx.sleep(0.01)
        return "rested"

    async with make_app(wf) as app:
        await app.run(wf, timeout="20s")
    assert recorder.told == [
        ("before", "naps", 1, None),
        ("waiting", "naps", 1, None),
        ("before", "naps", 1, None),
        ("after", "naps", 1, None, "rested"),
    ]


async def test_hooks_are_told_of_each_branch_by_its_key(make_app: Any) -> None:
    recorder = Recorder()
    wf = workflow([recorder])

    @wf.step
    async def fans(ctx: Context[Any]) -> None:
        async def item(value: str, index: int) -> str:
            if value == "bad":
                raise ValueError(value)
            return value

        async def left() -> str:
            return "l"

        def right() -> str:
            return "r"

        await ctx.each("items", ["a", "bad"], item, on_error="collect")
        await ctx.gather("both", {"left": left, "right": right})

    async with make_app(wf) as app:
        await app.run(wf, timeout="20s")
    assert sorted(told[0::3] + told[4:] for told in recorder.told if told[3] is not None) == [
        ("after", "both/left", "l"),
        ("after", "both/right", "r"),
        ("after", "items[0]", "a"),
        ("before", "both/left"),
        ("before", "both/right"),
        ("before", "items[0]"),
        ("before", "items[1]"),
        ("failed", "items[1]", "ValueError"),
    ]
    assert [told[0] for told in recorder.told if told[3] is None] == ["before", "after"]


async def test_a_branch_that_has_ended_is_not_told_again_after_a_wait(make_app: Any) -> None:
    recorder = Recorder()
    wf = workflow([recorder])

    @wf.step
    async def fans(ctx: Context[Any]) -> None:
        async def item(seconds: float, index: int) -> float:
            if seconds:
                await ctx.sleep(seconds)
            return seconds

        await ctx.each("items", [0, 0.1], item)

    async with make_app(wf) as app:
        await app.run(wf, timeout="20s")
    told = [(each[0], each[3]) for each in recorder.told]
    assert told.count(("before", "items[0]")) == told.count(("after", "items[0]")) == 1
    assert told.count(("waiting", "items[1]")) == 1
    assert told.count(("before", "items[1]")) == 2
    assert told.count(("after", "items[1]")) == 1


async def test_a_hook_that_raises_changes_nothing(make_app: Any, caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    wf = workflow([Harmful(), recorder])

    @wf.step
    async def works(ctx: Context[Any]) -> list[str]:
        if ctx.attempt == 1:
            raise ValueError("once")
        await ctx.sleep(0.01)

        async def item(value: str, index: int) -> str:
            return value

        return list(await ctx.each("items", ["a"], item))

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert (run.status, run.output, run.steps[0].attempt) == ("done", ["a"], 2)
    assert {told[0] for told in recorder.told} == {"before", "failed", "waiting", "after"}  # others still hear
    assert "a hook's before failed" in caplog.text


@pytest.mark.parametrize("error", [asyncio.CancelledError(), SystemExit(1)], ids=repr)
async def test_a_hook_that_raises_what_is_no_exception_changes_nothing_either(
    make_app: Any, error: BaseException
) -> None:
    entered: list[int] = []

    class Worse:
        async def before(self, ctx: Any, branch: str | None) -> None:
            raise error

        def after(self, ctx: Any, branch: str | None, output: Any) -> None:
            raise error

    wf = workflow([Worse()])

    @wf.step
    async def works(ctx: Context[Any]) -> str:
        entered.append(1)
        return "done"

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert (run.status, run.output, entered) == ("done", "done", [1])


# ---- guards ----------------------------------------------------------------------------------------------------------


def says(answer: Any) -> Any:
    return lambda ctx, branch: answer


def says_later(answer: Any) -> Any:
    async def guard(ctx: Any, branch: str | None) -> Any:
        await asyncio.sleep(0)
        return answer

    return guard


def raises(error: BaseException) -> Any:
    def guard(ctx: Any, branch: str | None) -> Any:
        raise error

    return guard


@pytest.mark.parametrize("kind", [says, says_later])
@pytest.mark.parametrize(("answer", "reason"), [(False, ""), ("no budget left", "no budget left")])
async def test_a_guard_fails_the_step_after_one_attempt(make_app: Any, kind: Any, answer: Any, reason: str) -> None:
    recorder, entered = Recorder(), list[str]()
    wf = workflow([recorder], [kind(answer)])

    @wf.step
    async def works(ctx: Context[Any]) -> None:
        entered.append("works")

    @wf.step
    async def later(ctx: Context[Any]) -> None:
        entered.append("later")

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert entered == []
    assert (run.status, run.steps[0].status, run.steps[0].attempt) == ("failed", "failed", 1)
    assert "guard refused" in run.error.message
    assert reason in run.error.message
    assert recorder.told == []


@pytest.mark.parametrize(
    "error", [PermissionError("not on Sundays"), asyncio.CancelledError("not on Sundays")], ids=repr
)
async def test_a_guard_that_raises_refuses(make_app: Any, error: BaseException) -> None:
    entered: list[int] = []
    wf = workflow(guards=[raises(error)])

    @wf.step
    async def works(ctx: Context[Any]) -> None:
        entered.append(1)

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert (run.status, run.steps[0].attempt, entered) == ("failed", 1, [])
    assert "not on Sundays" in run.error.message


@pytest.mark.parametrize("answer", [True, None])
async def test_a_guard_that_does_not_refuse_changes_nothing(make_app: Any, answer: Any) -> None:
    wf = workflow(guards=[says(answer), says_later(answer)])

    @wf.step
    async def works(ctx: Context[Any]) -> str:
        return "done"

    async with make_app(wf) as app:
        assert await app.run(wf, timeout="20s") == "done"


async def test_a_guard_denies_one_branch_only_where_errors_are_collected(make_app: Any) -> None:
    carried_out: list[int] = []
    recorder = Recorder()
    wf = workflow([recorder], [lambda ctx, branch: "the second may not" if branch == "items[1]" else None])

    @wf.step
    async def fans(ctx: Context[Any]) -> list[Any]:
        async def item(value: int, index: int) -> int:
            carried_out.append(value)
            return value * 10

        results = await ctx.each("items", [1, 2, 3], item, on_error="collect")
        return [list(results), {str(i): error["message"] for i, error in results.errors.items()}]

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.output == [[10, None, 30], {"1": "a guard refused: the second may not"}]
    assert sorted(carried_out) == [1, 3]
    assert run.steps[0].attempt == 1
    assert not [told for told in recorder.told if told[3] == "items[1]"]


async def test_a_guard_that_denies_a_branch_fails_the_step_for_good_where_errors_are_not_collected(
    make_app: Any,
) -> None:
    carried_out: list[str] = []
    wf = workflow(guards=[lambda ctx, branch: branch != "both/right"])

    @wf.step
    async def fans(ctx: Context[Any]) -> None:
        async def left() -> None:
            carried_out.append("left")
            await ctx.sleep("1h")

        async def right() -> None:
            carried_out.append("right")

        await ctx.gather("both", {"left": left, "right": right})

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert (run.status, run.steps[0].attempt) == ("failed", 1)
    assert "right" not in carried_out


async def test_a_guard_sees_the_run_and_may_let_a_retry_of_an_operator_pass(make_app: Any) -> None:
    seen: list[Any] = []
    allowed = False

    def guard(ctx: Any, branch: str | None) -> bool:
        seen.append((ctx.input, ctx.step_id, ctx.attempt, branch))
        return allowed

    wf = workflow(guards=[guard])

    @wf.step
    async def works(ctx: Context[Any]) -> str:
        return "done"

    async with make_app(wf) as app:
        handle = await app.start(wf, {"amount": 5})
        await status_of(handle, "failed")
        allowed = True
        await handle.retry()
        assert await handle.result("20s") == "done"
    assert [each[:2] + each[3:] for each in seen] == [({"amount": 5}, "works", None)] * 2


async def test_a_step_that_a_guard_refuses_may_be_passed_over(make_app: Any) -> None:
    wf = workflow(guards=[lambda ctx, branch: ctx.step_id != "optional"])

    @wf.step(on_error="skip")
    async def optional(ctx: Context[Any]) -> None:
        raise AssertionError("not reached")

    @wf.step
    async def last(ctx: Context[Any]) -> str:
        return "done"

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert (run.status, run.output, run.steps[0].status) == ("done", "done", "skipped")


async def test_guards_and_hooks_see_compensations(make_app: Any) -> None:
    recorder, asked = Recorder(), list[str]()

    def guard(ctx: Any, branch: str | None) -> None:
        asked.append(ctx.step_id)

    wf = workflow([recorder], [guard])

    @wf.step
    async def first(ctx: Context[Any]) -> int:
        return 1

    @first.compensate
    async def undo(ctx: Context[Any], output: int) -> None: ...

    @wf.step
    async def second(ctx: Context[Any]) -> None:
        raise NonRetriableError("no")

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.status == "compensated"
    assert asked == ["first", "second", "first"]
    assert [told[:2] for told in recorder.told][-2:] == [("before", "first"), ("after", "first")]
