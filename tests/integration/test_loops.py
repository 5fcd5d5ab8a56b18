"""ctx.loop: the state between two turns is kept, and what is over is not done again."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from streamline import Context, Continue, Done, RetryPolicy
from streamline.errors import InvalidPolicy
from tests.integration.memo_runs import Silence, ended, memo_of, one_step, taken_over
from tests.waiting import eventually, status_of

AGAIN = RetryPolicy(max_attempts=3, delay=0)
Turn = Continue[int] | Done[Any]


async def test_the_state_goes_from_turn_to_turn(make_app: Any) -> None:
    seen: list[tuple[int, int]] = []

    async def body(state: int, i: int) -> Turn:
        seen.append((state, i))
        return Done(f"sum {state}") if i == 4 else Continue(state + i)

    async def handler(ctx: Context[Any]) -> str:
        return await ctx.loop("sum", 0, body)

    assert (await ended(make_app, handler)).output == "sum 6"
    assert seen == [(0, 0), (0, 1), (1, 2), (3, 3), (6, 4)]


async def test_turns_that_are_over_are_not_done_again(make_app: Any) -> None:
    turns: list[int] = []

    async def handler(ctx: Context[Any]) -> list[Any]:
        async def body(state: list[int], i: int) -> Continue[list[int]] | Done[list[int]]:
            turns.append(i)
            await ctx.sleep(0.01)
            turns.append(i)
            if i == 1 and ctx.attempt == 1:
                raise ValueError
            return Done(state) if i == 3 else Continue([*state, i])

        found = await ctx.loop("turns", [], body)
        await ctx.sleep(0.01)
        return found

    run = await ended(make_app, handler, retry=AGAIN, max_attempts=None)
    assert run.output == [0, 1, 2]
    # Each turn is begun, sleeps, and is begun again; the second fails and is tried again after its sleep.
    assert turns == [0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3]


async def test_a_loop_that_is_over_is_not_entered_again(make_app: Any) -> None:
    turns = []

    def body(state: int, i: int) -> Turn:
        turns.append(i)
        return Done("over")

    async def handler(ctx: Context[Any]) -> str:
        said = await ctx.loop("once", 0, body)
        await ctx.sleep(0.01)
        await ctx.sleep(0.01)
        return said

    assert (await ended(make_app, handler)).output == "over"
    assert turns == [0]


async def test_states_and_values_come_back_as_they_were_annotated(make_app: Any) -> None:
    async def handler(ctx: Context[Any]) -> str:
        async def body(state: Decimal, i: int) -> Continue[Decimal] | Done[set[Decimal]]:
            assert isinstance(state, Decimal)
            await ctx.sleep(0.01)
            return Done({state}) if i == 2 else Continue(state + Decimal("0.1"))

        found = await ctx.loop("typed", Decimal(1), body)
        await ctx.sleep(0.01)
        return repr(found)

    assert (await ended(make_app, handler)).output == "{Decimal('1.2')}"


async def test_a_loop_has_only_so_many_turns_and_is_not_tried_again(make_app: Any) -> None:
    turns = []

    async def body(state: int, i: int) -> Turn:
        turns.append(i)
        return Continue(state)

    async def handler(ctx: Context[Any]) -> None:
        await ctx.loop("endless", 0, body, max_iterations=5)

    run = await ended(make_app, handler, retry=AGAIN, max_attempts=None)
    assert run.error.code == "step.non_retriable"
    assert "5 turns" in run.error.message
    assert turns == [0, 1, 2, 3, 4]


async def test_the_last_allowed_turn_may_end_the_loop(make_app: Any) -> None:
    async def body(state: int, i: int) -> Turn:
        return Done(i) if i == 4 else Continue(state)

    async def handler(ctx: Context[Any]) -> int:
        return await ctx.loop("five", 0, body, max_iterations=5)

    assert (await ended(make_app, handler)).output == 4


async def test_whoever_takes_the_run_over_goes_on_with_the_turn_that_was_not_over(make_app: Any, runs: Any) -> None:
    silence, turns = Silence(), []

    async def body(state: int, i: int) -> Turn:
        turns.append((state, i))
        if i == 2:
            await silence.falls()
        return Done(state) if i == 3 else Continue(state + 10)

    async def handler(ctx: Context[Any]) -> int:
        return await ctx.loop("long", 0, body)

    async with taken_over(make_app, runs, one_step(handler), silence) as handle:
        assert await handle.result("20s") == 30
    assert turns == [(0, 0), (10, 1), (20, 2), (20, 2), (30, 3)]


async def test_the_memo_of_a_loop_does_not_grow_with_its_turns(make_app: Any, runs: Any) -> None:
    async def handler(ctx: Context[Any]) -> None:
        async def body(state: int, i: int) -> Turn:
            await ctx.call("a", lambda: i)
            await ctx.call("b", lambda: i)
            if i == 40:
                await ctx.wait("look")
            return Done(state) if i == 40 else Continue(state + 1)

        await ctx.loop("long", 0, body)

    wf = one_step(handler)
    async with make_app(wf) as app:
        handle = await app.start(wf)
        await status_of(handle, "waiting")
        memo = await memo_of(runs, handle.id)
    assert set(memo) == {"long", "long[40]/a", "long[40]/b", "long[40]/wait#1"}
    assert memo["long"]["turn"] == 40


async def test_a_loop_may_ask_a_person_at_each_turn(make_app: Any, runs: Any) -> None:
    asked: list[str] = []

    async def handler(ctx: Context[Any]) -> list[str]:
        async def body(codes: list[str], i: int) -> Continue[list[str]] | Done[list[str]]:
            answer = await ctx.ask(f"code {i}?", model=str)
            asked.append(answer.data)
            codes = [*codes, answer.data]
            return Done(codes) if i == 2 else Continue(codes)

        return await ctx.loop("codes", [], body)

    wf = one_step(handler)
    async with make_app(wf) as app:
        handle = await app.start(wf)
        for i in range(3):

            async def question(i: int = i) -> bool:
                return [wait.reason for wait in await app.pending_waits("question")] == [f"code {i}?"]

            await eventually(question)
            await app.answer(handle.id, f"{i}{i}{i}")
        assert await handle.result("20s") == ["000", "111", "222"]
    assert asked == ["000", "111", "222"]


async def test_cancelling_the_run_ends_the_loop(make_app: Any) -> None:
    turns = []

    async def handler(ctx: Context[Any]) -> None:
        async def body(state: int, i: int) -> Turn:
            turns.append(i)
            await ctx.sleep(0.01)
            return Continue(state)

        await ctx.loop("endless", 0, body)

    wf = one_step(handler)
    async with make_app(wf) as app:
        handle = await app.start(wf)
        await eventually(lambda: 2 in turns)
        await handle.cancel()
        assert (await handle.wait("20s")).status == "cancelled"
        so_far = len(turns)
        await app.tick()
    assert len(turns) == so_far


@pytest.mark.parametrize("said", [None, 5, (1, 2)], ids=repr)
async def test_a_body_that_returns_neither_fails_the_step_at_once(make_app: Any, said: Any) -> None:
    async def body(state: int, i: int) -> Any:
        return said

    async def handler(ctx: Context[Any]) -> None:
        await ctx.loop("bad", 0, body)

    run = await ended(make_app, handler, retry=AGAIN, max_attempts=None)
    assert run.error.code == "step.non_retriable"
    assert "Continue" in run.error.message


@pytest.mark.parametrize("most", [0, -1, 1.5, True, None], ids=repr)
async def test_an_impossible_number_of_turns_fails_the_step_at_once(make_app: Any, most: Any) -> None:
    async def body(state: int, i: int) -> Turn:
        return Done(1)

    async def handler(ctx: Context[Any]) -> None:
        await ctx.loop("bad", 0, body, max_iterations=most)

    run = await ended(make_app, handler, retry=AGAIN, max_attempts=None)
    assert run.error.code == InvalidPolicy.code
    assert run.step("only").attempt == 1
