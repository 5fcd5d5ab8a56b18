"""How a step re-enters: from its top, with everything that was settled coming back at once."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streamline import Context, RetryPolicy, Workflow
from tests.clocks import MovableClock
from tests.integration.memo_runs import ended, memo_of, one_step
from tests.waiting import PATIENCE, eventually, status_of

AGAIN = RetryPolicy(max_attempts=2, delay=0)


async def test_code_after_a_sleep_runs_and_calls_before_it_do_not_run_again(make_app: Any) -> None:
    entered, calls = [], []

    async def handler(ctx: Context[Any]) -> list[str]:
        entered.append(ctx.attempt)
        before = await ctx.call("before", lambda: calls.append("before") or "b")
        await ctx.sleep(0.01)
        after = await ctx.call("after", lambda: calls.append("after") or "a")
        return [before, after]

    run = await ended(make_app, handler)
    assert run.output == ["b", "a"]
    assert calls == ["before", "after"]
    assert entered == [1, 1]  # to wake is not another attempt


async def test_a_run_started_in_one_app_ends_in_another_on_the_same_database(make_app: Any) -> None:
    calls: list[str] = []

    async def handler(ctx: Context[Any]) -> list[Any]:
        async def item(value: int, index: int) -> int:
            return await ctx.call("call", lambda: calls.append(f"item {value}") or value)

        found: list[Any] = [await ctx.choose("id", len(calls)), *await ctx.each("items", range(3), item)]
        found.append(await ctx.wait("restart"))
        found.append(await ctx.call("last", lambda: calls.append("last") or "last"))
        return found

    async with make_app(one_step(handler)) as first:
        handle = await first.start("only")
        await status_of(handle, "waiting")
    async with make_app(one_step(handler)) as second:
        await second.resume(handle.id, "resumed")
        assert await second.handle(handle.id).result(PATIENCE) == [0, 0, 1, 2, "resumed", "last"]
    assert sorted(calls) == ["item 0", "item 1", "item 2", "last"]


async def test_a_sleep_over_a_restart_ends_when_it_was_due(make_app: Any) -> None:
    clock = MovableClock()

    async def handler(ctx: Context[Any]) -> str:
        await ctx.sleep("1h")
        return "woken"

    async with make_app(one_step(handler), worker=False, clock=clock) as first:
        handle = await first.start("only")
        await first.tick()
        due_at = (await handle.get()).due_at
    clock.move(minutes=50)
    async with make_app(one_step(handler), worker=False, clock=clock) as second:
        assert await second.tick() == 0
        assert (await second.get(handle.id)).due_at == due_at
        clock.move(minutes=11)
        assert await second.tick() == 1
        assert (await second.get(handle.id)).output == "woken"


async def test_a_sleep_of_years_waits_and_is_due_by_query(make_app: Any) -> None:
    clock = MovableClock()

    async def handler(ctx: Context[Any]) -> str:
        await ctx.sleep("400d")
        await ctx.sleep_until(datetime(2200, 1, 1, tzinfo=UTC))
        return "woken"

    wf = one_step(handler)
    async with make_app(wf, clock=clock) as app:
        handle = await app.start(wf)
        run = await status_of(handle, "waiting")
        assert timedelta(days=399) < run.due_at - clock.now() <= timedelta(days=400)
        clock.move(days=401)
        await app.tick()
        assert (await status_of(handle, "waiting")).due_at == datetime(2200, 1, 1, tzinfo=UTC)


async def test_an_instant_that_is_over_does_not_park(make_app: Any) -> None:
    entered = []

    async def handler(ctx: Context[Any]) -> None:
        entered.append(1)
        await ctx.sleep_until(datetime(2000, 1, 1, tzinfo=UTC))
        await ctx.sleep(0)

    assert (await ended(make_app, handler)).status == "done"
    assert entered == [1]


async def test_three_apps_wake_a_run_once(make_app: Any) -> None:
    entered: list[str] = []

    async def handler(ctx: Context[Any]) -> None:
        entered.append(ctx.step_id)
        await ctx.sleep(0.3)

    wf = one_step(handler)
    wf.step("after")(lambda ctx: entered.append("after"))
    async with make_app(wf) as app, make_app(wf), make_app(wf):
        handles = [await app.start(wf) for _ in range(5)]
        for handle in handles:
            await handle.wait(PATIENCE)
            assert (await handle.get()).recovery_count == 0
    assert sorted(entered) == ["after"] * 5 + ["only"] * 10


async def test_what_finally_does_runs_at_each_suspension_but_can_suspend_no_more(make_app: Any) -> None:
    log: list[str] = []

    async def handler(ctx: Context[Any]) -> str:
        try:
            await ctx.sleep(0.01)
            return "woken"
        finally:
            log.append("finally")
            with contextlib.suppress(Exception):
                await ctx.call("undo", lambda: log.append("undone"))

    assert (await ended(make_app, handler)).output == "woken"
    assert log == ["finally", "finally", "undone"]


async def test_a_task_group_whose_task_sleeps_parks_the_run(make_app: Any, runs: Any) -> None:
    entered = []

    async def handler(ctx: Context[Any]) -> str:
        entered.append(1)
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.wait("answer", key="answer"))
            slept = group.create_task(ctx.sleep(0.01, key="sleep"))
        return repr(slept.result())

    wf = one_step(handler)
    async with make_app(wf) as app:
        handle = await app.start(wf)
        await eventually(lambda: len(entered) >= 1)
        await status_of(handle, "waiting")
        await app.resume(handle.id, "yes")
        assert await handle.result(PATIENCE) == "None"
    assert (await runs.find_one({"_id": handle.id}))["attempt"] == 1


async def test_a_task_group_whose_task_fails_fails_the_step_with_that_error(make_app: Any) -> None:
    async def handler(ctx: Context[Any]) -> None:
        async def fails() -> None:
            await asyncio.sleep(0.01)
            raise ValueError("in a task")

        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            group.create_task(asyncio.sleep(60))

    run = await ended(make_app, handler)
    assert run.error.message == "in a task"


async def test_gather_that_returns_exceptions_does_not_turn_a_suspension_into_a_value(make_app: Any) -> None:
    seen: list[Any] = []

    async def handler(ctx: Context[Any]) -> list[Any]:
        found = await asyncio.gather(ctx.sleep(0.01, key="a"), ctx.sleep(0.02, key="b"), return_exceptions=True)
        seen.append(found)
        return found

    assert (await ended(make_app, handler)).output == [None, None]
    assert seen[-1] == [None, None]


async def test_a_call_beside_a_wait_is_done_and_stored_before_the_run_parks(make_app: Any, runs: Any) -> None:
    calls: list[str] = []

    async def slow() -> str:
        await asyncio.sleep(0.05)
        calls.append("slow")
        return "slow"

    async def handler(ctx: Context[Any]) -> list[Any]:
        return list(await asyncio.gather(ctx.wait("who?"), ctx.call("slow", slow)))

    wf = one_step(handler)
    async with make_app(wf) as app:
        handle = await app.start(wf)
        await status_of(handle, "waiting")
        assert "slow" in await memo_of(runs, handle.id)
        await app.resume(handle.id, "ann")
        assert await handle.result(PATIENCE) == ["ann", "slow"]
    assert calls == ["slow"]


async def test_a_failed_attempt_keeps_what_was_settled(make_app: Any, runs: Any) -> None:
    calls: list[str] = []
    memos: list[set[str]] = []

    async def handler(ctx: Context[Any]) -> list[Any]:
        memos.append(set(await memo_of(runs, ctx.run_id)))
        found = [await ctx.call("a", lambda: calls.append("a") or 1), await ctx.choose("b", ctx.attempt)]
        await ctx.sleep(0.01)
        if ctx.attempt == 1:
            raise ValueError
        return found

    assert (await ended(make_app, handler, retry=AGAIN, max_attempts=None)).output == [1, 1]
    assert calls == ["a"]
    assert memos[-1] == {"a", "b", "sleep#1"}


async def test_a_retried_run_keeps_what_was_settled(make_app: Any) -> None:
    calls, broken = [], [True]

    async def handler(ctx: Context[Any]) -> int:
        await ctx.call("a", lambda: calls.append("a"))
        if broken:
            raise ValueError
        return len(calls)

    wf = one_step(handler)
    async with make_app(wf) as app:
        handle = await app.start(wf)
        assert (await handle.wait(PATIENCE)).status == "failed"
        broken.clear()
        await handle.retry()
        assert await handle.result(PATIENCE) == 1
    assert calls == ["a"]


@pytest.mark.parametrize("what", ["any", "poll", "wait"])
async def test_a_retried_run_tries_again_what_had_failed_for_good(make_app: Any, what: str) -> None:
    broken = [True]

    def look() -> int | None:
        if broken and what == "any":
            raise ValueError
        return None if broken else 1

    async def handler(ctx: Context[Any]) -> Any:
        if what == "any":
            return (await ctx.gather("g", {"a": look}, mode="any"))["a"]
        if what == "poll":
            return await ctx.poll("p", look, every=0.01, max_wait=0.02)
        return await ctx.wait("who?", timeout=0.05 if broken else "1h")

    wf = one_step(handler)
    async with make_app(wf) as app:
        handle = await app.start(wf)
        assert (await handle.wait(PATIENCE)).status == "failed"
        broken.clear()
        await handle.retry()
        if what == "wait":
            await eventually(lambda: _asks_or_ended(handle))
            assert (await handle.get()).status == "waiting"
            await app.resume(handle.id, 1)
        assert (await handle.wait(PATIENCE)).output == 1


async def _asks_or_ended(handle: Any) -> bool:
    run = await handle.get()
    return bool(run.ended_at or any(wait.kind == "wait" for wait in run.waits))


async def test_a_rewound_step_does_everything_again(make_app: Any) -> None:
    calls: list[str] = []
    wf: Workflow[Any, Any, Any] = Workflow("rewound")

    @wf.step
    async def first(ctx: Context[Any]) -> int:
        await ctx.call("a", lambda: calls.append("a"))
        await ctx.sleep(0.01)
        return len(calls)

    @wf.step
    async def second(ctx: Context[Any]) -> int:
        return ctx.output(first)

    async with make_app(wf) as app:
        handle = await app.start(wf)
        assert await handle.result(PATIENCE) == 1
        await handle.rewind(first)
        assert await handle.result(PATIENCE) == 2


async def test_two_runs_in_one_process_do_not_share_a_memo(make_app: Any) -> None:
    wf: Workflow[int, Any, Any] = Workflow("own", input=int)

    @wf.step
    async def only(ctx: Context[int]) -> list[int]:
        async def item(value: int, index: int) -> int:
            await ctx.sleep(0.01)
            return await ctx.call("k", lambda: ctx.input * 10 + value)

        return await ctx.each("items", range(3), item)

    async with make_app(wf) as app:
        handles = [await app.start(wf, n) for n in range(10)]
        for n, handle in enumerate(handles):
            assert await handle.result(PATIENCE) == [10 * n, 10 * n + 1, 10 * n + 2]
