"""ctx.choose keeps the first value; ctx.checkpoint keeps the last, for the next entry."""

from __future__ import annotations

import random
from typing import Any
from uuid import UUID, uuid4

from pydantic import BaseModel

from streamline import Context, RetryPolicy
from tests.integration.memo_runs import Silence, ended, memo_of, one_step, taken_over

AGAIN = RetryPolicy(max_attempts=3, delay=0)


class Plan(BaseModel):
    name: str
    seats: set[int]


async def test_the_first_value_is_kept_over_entries_and_attempts(make_app: Any) -> None:
    chosen = []

    async def handler(ctx: Context[Any]) -> int:
        chosen.append(await ctx.choose("dice", random.random()))
        await ctx.sleep(0.01)
        if ctx.attempt < 3:
            raise ValueError
        return len(chosen)

    run = await ended(make_app, handler, retry=AGAIN, max_attempts=None)
    assert run.output == 4
    assert len(set(chosen)) == 1


async def test_a_choice_is_stored_before_it_is_returned(make_app: Any, runs: Any) -> None:
    async def handler(ctx: Context[Any]) -> Any:
        await ctx.choose("colour", "red")
        return (await memo_of(runs, ctx.run_id))["colour"]["output"]

    assert (await ended(make_app, handler)).output == "red"


async def test_none_and_false_are_choices(make_app: Any) -> None:
    entered = []

    async def handler(ctx: Context[Any]) -> list[Any]:
        entered.append(1)
        first = len(entered) == 1
        found = [await ctx.choose("a", None if first else 1), await ctx.choose("b", not first)]
        await ctx.sleep(0.01)
        return found

    assert (await ended(make_app, handler)).output == [None, False]


async def test_a_choice_comes_back_as_the_type_it_was(make_app: Any) -> None:
    ids: list[Any] = []

    async def handler(ctx: Context[Any]) -> str:
        ids.append(await ctx.choose("id", uuid4()))
        plan = await ctx.choose("plan", Plan(name="p", seats={1, 2}))
        await ctx.sleep(0.01)
        return repr(plan)

    assert (await ended(make_app, handler)).output == repr(Plan(name="p", seats={1, 2}))
    assert ids[0] == ids[1]
    assert isinstance(ids[1], UUID)


async def test_branches_choose_for_themselves(make_app: Any) -> None:
    async def handler(ctx: Context[Any]) -> list[int]:
        async def item(value: int, index: int) -> int:
            found = await ctx.choose("mine", random.randrange(10**9))
            await ctx.sleep(0.01)
            again = await ctx.choose("again", found)
            assert again == found
            return found

        return await ctx.each("items", range(5), item)

    run = await ended(make_app, handler)
    assert run.status == "done"
    assert len(set(run.output)) == 5


async def test_a_checkpoint_is_found_by_the_next_attempt_and_entry(make_app: Any) -> None:
    seen: list[Any] = []

    async def handler(ctx: Context[Any]) -> int:
        seen.append(ctx.get_checkpoint())
        done = ctx.get_checkpoint(0)
        await ctx.checkpoint(done + 1)
        await ctx.checkpoint(done + 2)
        if ctx.attempt == 1:
            raise ValueError
        await ctx.sleep(0.01)
        return int(ctx.get_checkpoint())

    run = await ended(make_app, handler, retry=AGAIN, max_attempts=None)
    assert run.output == 6
    assert seen == [None, 2, 4]


async def test_a_batch_goes_on_at_its_last_checkpoint_when_its_worker_died(make_app: Any, runs: Any) -> None:
    silence, done = Silence(), []

    async def handler(ctx: Context[Any]) -> list[int]:
        for i in range(ctx.get_checkpoint(0), 6):
            if i == 4:
                await silence.falls()
            done.append(i)
            await ctx.checkpoint(i + 1)
        return done

    async with taken_over(make_app, runs, one_step(handler), silence) as handle:
        assert await handle.result("20s") == [0, 1, 2, 3, 4, 5]
        assert (await handle.get()).recovery_count == 1
    assert done == [0, 1, 2, 3, 4, 5]


async def test_only_the_last_checkpoint_is_stored(make_app: Any, runs: Any) -> None:
    async def handler(ctx: Context[Any]) -> list[Any]:
        for i in range(5):
            await ctx.checkpoint({"at": i})
        memo = await memo_of(runs, ctx.run_id)
        return [list(memo), memo["#checkpoint"]["output"]]

    assert (await ended(make_app, handler)).output == [["#checkpoint"], {"at": 4}]


async def test_branches_and_turns_have_checkpoints_of_their_own(make_app: Any) -> None:
    seen: list[Any] = []

    async def handler(ctx: Context[Any]) -> None:
        async def item(value: str, index: int) -> None:
            seen.append((value, ctx.get_checkpoint()))
            await ctx.checkpoint(f"{value}'s")
            if ctx.attempt == 1:
                raise ValueError

        await ctx.checkpoint("the handler's")
        await ctx.each("items", ["a", "b"], item, on_error="collect" if ctx.attempt > 1 else "fail", concurrency=1)
        seen.append(ctx.get_checkpoint())

    run = await ended(make_app, handler, retry=AGAIN, max_attempts=None)
    assert run.status == "done"
    assert seen == [("a", None), ("a", "a's"), ("b", None), "the handler's"]


async def test_a_checkpoint_is_gone_with_its_step(make_app: Any, runs: Any) -> None:
    async def handler(ctx: Context[Any]) -> None:
        await ctx.checkpoint("x" * 100)

    run = await ended(make_app, handler)
    assert "memo" not in (await runs.find_one({"_id": run.id}))["steps"][0]


async def test_a_checkpoint_that_cannot_be_stored_fails_the_step(make_app: Any) -> None:
    async def handler(ctx: Context[Any]) -> None:
        await ctx.checkpoint({"bad": object()})

    assert (await ended(make_app, handler)).error.code == "payload.serialization"
