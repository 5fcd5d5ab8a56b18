"""A handler must ask for the same calls under the same keys at each entry; that it does not is said at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from streamline import Context, Done, RetryPolicy, Workflow
from streamline.errors import InvalidKey, NonDeterministicStep
from tests.integration.memo_runs import ended

AGAIN = RetryPolicy(max_attempts=3, delay=0)
Ask = Callable[[Context[Any]], Awaitable[Any]]

child: Workflow[Any, Any, Any] = Workflow("child")


@child.step
async def nothing(ctx: Context[Any]) -> None: ...


async def item(value: int, index: int) -> int:
    return value


def none() -> None: ...


ASKS: dict[str, Ask] = {
    "call": lambda ctx: ctx.call("k", int),
    "choose": lambda ctx: ctx.choose("k", 1),
    "sleep": lambda ctx: ctx.sleep(0.1, key="k"),
    "wait": lambda ctx: ctx.wait("w", timeout=0.1, default=1, key="k"),
    "wait_for": lambda ctx: ctx.wait_for("e", timeout=0.1, default=1, key="k"),
    "approve": lambda ctx: ctx.approve("a", timeout=0.1, key="k"),
    "ask": lambda ctx: ctx.ask("q", timeout=0.1, key="k"),
    "poll": lambda ctx: ctx.poll("k", lambda: 1, every=1),
    "each": lambda ctx: ctx.each("k", [1, 2], item),
    "gather": lambda ctx: ctx.gather("k", {"a": int}),
    "loop": lambda ctx: ctx.loop("k", 0, lambda state, i: Done(state)),
    "hook": lambda ctx: ctx.create_hook("k"),
    "child": lambda ctx: ctx.start_child(child, wait=False, key="k"),
}


@pytest.mark.parametrize("first", list(ASKS))
async def test_another_kind_under_a_stored_key_fails_the_step_for_good(make_app: Any, first: str) -> None:
    others = [kind for kind in ASKS if kind != first]
    wf: Workflow[Any, Any, Any] = Workflow("only")
    raised: dict[str, str] = {}

    @wf.step(retry=AGAIN)
    async def only(ctx: Context[Any]) -> None:
        if "entered" not in raised:
            raised["entered"] = "once"
            await ASKS[first](ctx)
            raise ValueError
        for kind in others[:-1]:
            ctx._attempt.root._asked.clear()  # so that one entry can ask under the same key again
            with pytest.raises(NonDeterministicStep) as caught:
                await ASKS[kind](ctx)
            raised[kind] = caught.value.code
        ctx._attempt.root._asked.clear()
        await ASKS[others[-1]](ctx)

    async with make_app(wf, child) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.error.code == NonDeterministicStep.code
    assert "k" in run.error.message
    assert set(raised) == {"entered", *others[:-1]}


async def test_calls_without_keys_in_another_order_are_found_out(make_app: Any) -> None:
    entered = []

    async def handler(ctx: Context[Any]) -> None:
        entered.append(1)
        if len(entered) == 1:
            await ctx.wait_for("a", timeout=0.1, default=1)
            await ctx.wait_for("b", timeout=0.1, default=1)
        else:
            await ctx.wait_for("b", timeout=0.1, default=1)
        await ctx.sleep(0.01)

    run = await ended(make_app, handler, retry=AGAIN, max_attempts=None)
    assert run.error.code == NonDeterministicStep.code


@pytest.mark.parametrize("ended_before", [0, 1])
@pytest.mark.parametrize("kind", ["each", "gather"])
async def test_other_items_or_branches_than_were_begun_are_found_out(
    make_app: Any, kind: str, ended_before: int
) -> None:
    """Also where none of them had ended when the run was parked."""
    entered = []

    async def handler(ctx: Context[Any]) -> None:
        entered.append(1)
        first = len(entered) == 1

        async def sleeps(value: int, index: int) -> None:
            if value >= ended_before:
                await ctx.sleep(0.2)  # not over before the run is parked, on a busy machine either

        if kind == "each":
            await ctx.each("k", range(3 if first else 2), sleeps)
        else:
            await ctx.gather("k", {name: lambda i=i: sleeps(i, i) for i, name in enumerate("abc" if first else "abd")})

    run = await ended(make_app, handler, retry=AGAIN, max_attempts=None)
    assert run.status == "failed"
    assert run.error.code == NonDeterministicStep.code
    assert len(entered) == 2


async def test_another_childs_workflow_under_a_stored_key_is_found_out(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("parent")
    other: Workflow[Any, Any, Any] = Workflow("other")
    other.step("nothing")(nothing.fn)

    @wf.step(retry=AGAIN)
    async def only(ctx: Context[Any]) -> None:
        await ctx.start_child(child if ctx.attempt == 1 else other, key="k")
        raise ValueError

    async with make_app(wf, child, other) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.error.code == NonDeterministicStep.code


@pytest.mark.parametrize("kind", list(ASKS))
async def test_a_key_that_is_used_twice_fails_the_step_for_good(make_app: Any, kind: str) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("only")

    @wf.step(retry=AGAIN)
    async def only(ctx: Context[Any]) -> None:
        await ASKS[kind](ctx)
        await ctx.call("k", int)

    async with make_app(wf, child) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.error.code == InvalidKey.code
    assert run.step("only").attempt == 1


async def test_the_same_key_in_two_items_or_turns_is_not_the_same_key(make_app: Any) -> None:
    async def handler(ctx: Context[Any]) -> list[int]:
        async def one(value: int, index: int) -> int:
            return await ctx.call("k", lambda: value)

        return [
            *await ctx.each("first", [1, 2], one),
            *await ctx.each("second", [3], one),
            await ctx.call("k", lambda: 4),
        ]

    assert (await ended(make_app, handler)).output == [1, 2, 3, 4]


async def test_tasks_that_use_one_key_at_the_same_time_are_found_out(make_app: Any) -> None:
    calls = []

    async def slow() -> None:
        calls.append(1)
        await asyncio.sleep(0.01)

    async def handler(ctx: Context[Any]) -> None:
        await asyncio.gather(ctx.call("k", slow), ctx.call("k", slow))

    run = await ended(make_app, handler)
    assert run.error.code == InvalidKey.code
    assert len(calls) <= 1


async def test_a_call_that_is_asked_for_no_more_is_not_an_error(make_app: Any) -> None:
    entered = []

    async def handler(ctx: Context[Any]) -> str:
        entered.append(1)
        if len(entered) == 1:
            await ctx.call("only at first", none)
        await ctx.sleep(0.01)
        return await ctx.call("in the end", lambda: "done")

    assert (await ended(make_app, handler)).output == "done"
