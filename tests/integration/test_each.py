"""ctx.each: every finished item is kept; results come in the order of the items."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from streamline import Context, NonRetriableError, RetryPolicy
from streamline.errors import InvalidPolicy
from tests.integration.memo_runs import Silence, ended, memo_of, one_step, taken_over
from tests.waiting import eventually, status_of

AGAIN = RetryPolicy(max_attempts=2, delay=0)


async def test_results_come_in_the_order_of_the_items(make_app: Any) -> None:
    async def item(value: int, index: int) -> str:
        await asyncio.sleep(0.02 * (4 - index))
        return f"{index}:{value}"

    async def handler(ctx: Context[Any]) -> list[str]:
        return await ctx.each("items", [10, 11, 12, 13], item)

    assert (await ended(make_app, handler)).output == ["0:10", "1:11", "2:12", "3:13"]


async def test_each_of_nothing_is_empty(make_app: Any) -> None:
    async def item(value: int, index: int) -> int:
        raise AssertionError

    async def handler(ctx: Context[Any]) -> list[Any]:
        found = await ctx.each("items", iter(()), item, on_error="collect")
        await ctx.sleep(0.02)
        return [found, found.errors]

    assert (await ended(make_app, handler)).output == [[], {}]


async def test_items_that_are_done_are_not_done_again_at_a_re_entry_or_attempt(make_app: Any) -> None:
    done, entered = [], []

    async def item(value: int, index: int) -> int:
        done.append(value)
        return value * 2

    async def handler(ctx: Context[Any]) -> list[int]:
        entered.append(ctx.attempt)
        doubled = await ctx.each("items", range(5), item)
        await ctx.sleep(0.02)
        if ctx.attempt == 1:
            raise ValueError
        return doubled

    run = await ended(make_app, handler, retry=AGAIN, max_attempts=None)
    assert run.output == [0, 2, 4, 6, 8]
    assert sorted(done) == [0, 1, 2, 3, 4]
    assert entered == [1, 1, 2]


async def test_only_unfinished_items_are_done_by_whoever_takes_the_run_over(make_app: Any, runs: Any) -> None:
    silence, done = Silence(), []

    async def item(value: int, index: int) -> int:
        if index == 3:
            await silence.falls()
        done.append(value)
        return value * 2

    async def handler(ctx: Context[Any]) -> list[int]:
        return await ctx.each("items", range(6), item, concurrency=1)

    async with taken_over(make_app, runs, one_step(handler), silence) as handle:
        run = await handle.wait("20s")
    assert run.output == [0, 2, 4, 6, 8, 10]
    assert done == [0, 1, 2, 3, 4, 5]
    assert run.recovery_count == 1


async def test_an_item_comes_back_as_it_was_annotated(make_app: Any) -> None:
    async def item(value: int, index: int) -> Decimal:
        return Decimal(value) / 10

    async def handler(ctx: Context[Any]) -> list[str]:
        found = await ctx.each("items", [1, 2], item)
        await ctx.sleep(0.02)
        return [f"{type(each).__name__} {each}" for each in found]

    assert (await ended(make_app, handler)).output == ["Decimal 0.1", "Decimal 0.2"]


async def test_no_more_items_are_at_work_than_concurrency_allows(make_app: Any) -> None:
    at_work, most = set(), []

    async def item(value: int, index: int) -> None:
        at_work.add(value)
        most.append(len(at_work))
        await asyncio.sleep(0.005)
        at_work.discard(value)

    async def handler(ctx: Context[Any]) -> None:
        await ctx.each("items", range(12), item, concurrency=3)

    assert (await ended(make_app, handler)).status == "done"
    assert max(most) == 3


async def test_an_item_that_sleeps_keeps_its_place_among_those_at_work(make_app: Any, runs: Any) -> None:
    begun: list[int] = []

    async def handler(ctx: Context[Any]) -> None:
        async def item(value: int, index: int) -> None:
            begun.append(value)
            await ctx.sleep("1h")

        await ctx.each("items", range(5), item, concurrency=2)

    wf = one_step(handler)
    async with make_app(wf) as app:
        run = await status_of(await app.start(wf), "waiting")
        assert set(await memo_of(runs, run.id)) >= {"items[0]/sleep#1", "items[1]/sleep#1"}
    assert sorted(begun) == [0, 1]


async def test_the_first_failure_ends_the_other_items_and_fails_the_step(make_app: Any) -> None:
    ended_items: list[str] = []

    async def item(value: int, index: int) -> int:
        if value == 1:
            raise NonRetriableError("item one")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended_items.append(f"cancelled {value}")
            raise
        return value

    async def handler(ctx: Context[Any]) -> list[int]:
        return await ctx.each("items", range(3), item)

    run = await ended(make_app, handler)
    assert run.status == "failed"
    assert run.error.message == "item one"
    assert sorted(ended_items) == ["cancelled 0", "cancelled 2"]


async def test_the_next_attempt_does_only_what_was_not_done(make_app: Any) -> None:
    done: list[int] = []

    async def handler(ctx: Context[Any]) -> list[int]:
        async def item(value: int, index: int) -> int:
            if value == 3 and ctx.attempt == 1:
                raise ValueError
            done.append(value)
            return value

        return await ctx.each("items", range(6), item, concurrency=1)

    assert (await ended(make_app, handler, retry=AGAIN, max_attempts=None)).output == [0, 1, 2, 3, 4, 5]
    assert done == [0, 1, 2, 3, 4, 5]


async def test_a_handler_may_go_on_after_a_failed_each(make_app: Any) -> None:
    async def item(value: int, index: int) -> int:
        raise ValueError(f"item {value}")

    async def handler(ctx: Context[Any]) -> list[Any]:
        try:
            await ctx.each("items", range(2), item, concurrency=1)
        except ValueError as error:
            said = str(error)
        await ctx.sleep(0.02)
        return [said, await ctx.call("after", lambda: "after")]

    assert (await ended(make_app, handler)).output == ["item 0", "after"]


async def test_collected_errors_are_kept_like_results(make_app: Any) -> None:
    done: list[int] = []

    async def item(value: int, index: int) -> int:
        done.append(value)
        if value % 2:
            raise ConnectionError(f"odd {value}")
        return value

    async def handler(ctx: Context[Any]) -> dict[str, Any]:
        found = await ctx.each("items", range(4), item, on_error="collect")
        await ctx.sleep(0.02)
        return {"found": list(found), "errors": {str(i): error["message"] for i, error in found.errors.items()}}

    run = await ended(make_app, handler)
    assert run.output == {"found": [0, None, 2, None], "errors": {"1": "odd 1", "3": "odd 3"}}
    assert sorted(done) == [0, 1, 2, 3]


async def test_a_plain_function_is_called_in_a_thread(make_app: Any) -> None:
    def item(value: int, index: int) -> int:
        return value + index

    async def handler(ctx: Context[Any]) -> list[int]:
        return await ctx.each("items", [5, 6], item)

    assert (await ended(make_app, handler)).output == [5, 7]


async def test_cancelling_the_run_ends_the_items_and_begins_no_more(make_app: Any, runs: Any) -> None:
    begun, told = [], []

    async def item(value: int, index: int) -> None:
        begun.append(value)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            told.append(value)
            raise

    async def handler(ctx: Context[Any]) -> None:
        await ctx.each("items", range(9), item, concurrency=3)

    wf = one_step(handler)
    async with make_app(wf) as app:
        handle = await app.start(wf)
        await eventually(lambda: len(begun) == 3)
        await handle.cancel(reason="enough")
        run = await handle.wait("20s")
        await eventually(lambda: len(told) == 3)
        before = await runs.find_one({"_id": handle.id})
    assert run.status == "cancelled"
    assert sorted(told) == begun == [0, 1, 2]
    assert await runs.find_one({"_id": handle.id}) == before


async def test_a_worker_that_lost_its_lease_stores_no_further_item(make_app: Any, runs: Any) -> None:
    silence, late, by = Silence(), asyncio.Event(), []

    async def handler(ctx: Context[Any]) -> list[str]:
        async def item(value: int, index: int) -> str:
            if value == 1 and not silence.reached.is_set():
                silence.reached.set()
                await late.wait()
                by.append("zombie")
                return "by the zombie"
            by.append(f"{value}")
            return f"by attempt {ctx.attempt}"

        return await ctx.each("items", range(3), item, concurrency=1)

    async with taken_over(make_app, runs, one_step(handler), silence) as handle:
        run = await handle.wait("20s")
        before = await runs.find_one({"_id": handle.id})
        late.set()
        await eventually(lambda: "zombie" in by)
        await asyncio.sleep(0.1)
        assert await runs.find_one({"_id": handle.id}) == before
    assert run.output == ["by attempt 1", "by attempt 2", "by attempt 2"]
    assert by == ["0", "1", "2", "zombie"]


@pytest.mark.parametrize("rules", [{"concurrency": 0}, {"concurrency": True}, {"on_error": "ignore"}], ids=repr)
async def test_impossible_rules_fail_the_step_at_once(make_app: Any, rules: Any) -> None:
    async def item(value: int, index: int) -> None: ...

    async def handler(ctx: Context[Any]) -> None:
        await ctx.each("items", [1], item, **rules)

    run = await ended(make_app, handler, retry=AGAIN, max_attempts=None)
    assert run.error.code == InvalidPolicy.code
    assert run.step("only").attempt == 1
