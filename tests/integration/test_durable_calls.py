"""ctx.call and ctx.sleep: what is awaited on the context happens once."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streamline import Context, NonRetriableError, RetryPolicy, Workflow
from streamline.errors import ContextClosed, InvalidKey, InvalidPolicy, StepTimeout
from tests.clocks import MovableClock

AGAIN = RetryPolicy(max_attempts=3, delay=0)


async def only(make_app: Any, handler: Any, given: Any = None, **rules: Any) -> Any:
    """The run of a workflow of one step, once it has ended."""
    wf: Workflow[Any, Any, Any] = Workflow("only")
    wf.step("only", **{"retry": AGAIN, **rules})(handler)
    async with make_app(wf) as app:
        return await (await app.start(wf, given)).wait("20s")


async def test_a_call_is_carried_out_once_over_all_attempts(make_app: Any) -> None:
    calls, attempts = [], []

    async def charge(amount: int) -> str:
        calls.append(amount)
        return f"charged {amount}"

    async def handler(ctx: Context[Any]) -> list[str]:
        attempts.append(ctx.attempt)
        first = await ctx.call("first", charge, 1)
        if ctx.attempt == 1:
            raise ValueError
        second = await ctx.call("second", charge, 2)
        if ctx.attempt == 2:
            raise ValueError
        return [first, second]

    run = await only(make_app, handler)
    assert run.output == ["charged 1", "charged 2"]
    assert attempts == [1, 2, 3]
    assert calls == [1, 2]


async def test_a_call_is_stored_before_it_is_returned(make_app: Any, runs: Any) -> None:
    async def handler(ctx: Context[Any]) -> Any:
        await ctx.call("key", lambda: {"a": 1})
        return (await runs.find_one({"_id": ctx.run_id}))["steps"][0]["memo"]["key"]["output"]

    assert (await only(make_app, handler)).output == {"a": 1}


async def test_a_result_of_none_is_a_result(make_app: Any) -> None:
    calls = []

    async def nothing() -> None:
        calls.append(1)

    async def handler(ctx: Context[Any]) -> None:
        await ctx.call("key", nothing)
        if ctx.attempt < 3:
            raise ValueError

    assert (await only(make_app, handler)).status == "done"
    assert calls == [1]


async def test_a_result_comes_back_as_it_was_annotated(make_app: Any) -> None:
    async def when() -> set[datetime]:
        return {datetime(2024, 1, 1, tzinfo=UTC)}

    async def handler(ctx: Context[Any]) -> bool:
        first = await ctx.call("key", when)
        if ctx.attempt == 1:
            raise ValueError
        return first == {datetime(2024, 1, 1, tzinfo=UTC)}

    assert (await only(make_app, handler)).output is True


async def test_a_plain_function_is_called_in_a_thread(make_app: Any) -> None:
    def where(a: int, b: int) -> list[Any]:
        return [threading.current_thread() is threading.main_thread(), a + b]

    async def handler(ctx: Context[Any]) -> list[Any]:
        return await ctx.call("key", where, 1, 2)

    assert (await only(make_app, handler)).output == [False, 3]


async def test_a_plain_function_may_return_an_awaitable(make_app: Any) -> None:
    async def three() -> int:
        return 3

    async def handler(ctx: Context[Any]) -> int:
        return await ctx.call("key", lambda: three())  # noqa: PLW0108 - what is called is plain

    assert (await only(make_app, handler)).output == 3


async def test_a_failing_call_is_not_stored(make_app: Any) -> None:
    calls = []

    async def shaky() -> int:
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionError("away")
        return len(calls)

    async def handler(ctx: Context[Any]) -> int:
        return await ctx.call("key", shaky)

    run = await only(make_app, handler)
    assert run.output == 3
    assert run.step("only").attempt == 3


async def test_a_call_has_attempts_of_its_own(make_app: Any) -> None:
    calls = []

    async def shaky() -> int:
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionError("away")
        return len(calls)

    async def handler(ctx: Context[Any]) -> int:
        return await ctx.call("key", shaky, retry=RetryPolicy(max_attempts=3, delay=0))

    run = await only(make_app, handler)
    assert run.output == 3
    assert run.step("only").attempt == 1


async def test_an_error_that_rules_out_another_attempt_ends_a_calls_attempts(make_app: Any) -> None:
    calls = []

    async def refused() -> int:
        calls.append(1)
        raise NonRetriableError("no")

    async def handler(ctx: Context[Any]) -> int:
        return await ctx.call("key", refused, retry=AGAIN)

    run = await only(make_app, handler)
    assert run.error.code == "step.non_retriable"
    assert calls == [1]


async def test_a_default_takes_the_place_of_a_failed_call_for_good(make_app: Any) -> None:
    calls = []

    async def refused() -> int | None:
        calls.append(1)
        raise ConnectionError

    async def handler(ctx: Context[Any]) -> list[Any]:
        values = [await ctx.call("a", refused, default=-1), await ctx.call("b", refused, default=None)]
        if ctx.attempt == 1:
            raise ValueError
        return values

    run = await only(make_app, handler)
    assert run.output == [-1, None]
    assert calls == [1, 1]


async def test_a_call_may_take_only_so_long(make_app: Any) -> None:
    async def slow() -> int:
        await asyncio.sleep(60)
        return 1

    async def handler(ctx: Context[Any]) -> str:
        with pytest.raises(StepTimeout):
            await ctx.call("slow", slow, timeout=0.05)
        return str(await ctx.call("default", slow, timeout=0.05, default=0))

    assert (await only(make_app, handler)).output == "0"


async def test_a_thread_may_take_only_so_long(make_app: Any) -> None:
    async def handler(ctx: Context[Any]) -> str:
        with pytest.raises(StepTimeout):
            await ctx.call("slow", time.sleep, 0.3, timeout=0.05)
        return "went on"

    assert (await only(make_app, handler)).output == "went on"


async def test_calls_may_be_gathered(make_app: Any) -> None:
    calls = []

    async def square(n: int) -> int:
        calls.append(n)
        await asyncio.sleep(0.01 * (5 - n))
        return n * n

    async def handler(ctx: Context[Any]) -> list[int]:
        squares = await asyncio.gather(*(ctx.call(f"n{n}", square, n) for n in range(5)))
        if ctx.attempt == 1:
            raise ValueError
        return squares

    run = await only(make_app, handler)
    assert run.output == [0, 1, 4, 9, 16]
    assert sorted(calls) == [0, 1, 2, 3, 4]


async def test_a_call_whose_function_stops_an_iteration_fails_like_any_other(make_app: Any) -> None:
    async def handler(ctx: Context[Any]) -> Any:
        return await ctx.call("key", next, iter(()), default="empty")

    run = await only(make_app, handler, timeout="5s", max_attempts=1, retry=None)
    assert run.error is None
    assert run.output == "empty"


async def test_a_key_can_be_used_once(make_app: Any) -> None:
    async def handler(ctx: Context[Any]) -> int:
        await ctx.call("key", int)
        return await ctx.call("key", int)

    run = await only(make_app, handler)
    assert run.error.code == "key.invalid"
    assert run.step("only").attempt == 1


@pytest.mark.parametrize("key", ["", "a.b", "$a", "a\0", 5, "k" * 257, "\ud800"], ids=repr)
async def test_a_key_that_could_be_a_path_is_refused(make_app: Any, key: Any) -> None:
    async def handler(ctx: Context[Any]) -> str:
        with pytest.raises(InvalidKey):
            await ctx.call(key, int)
        return "refused"

    assert (await only(make_app, handler)).output == "refused"


@pytest.mark.parametrize("key", ["0", "a/b", "items[3]/fetch", "a-$b", "é", "status", "#"])
async def test_other_keys_are_kept_apart(make_app: Any, key: str) -> None:
    async def handler(ctx: Context[Any]) -> list[Any]:
        found = [await ctx.call(key, lambda: ctx.attempt), await ctx.call("other", lambda: "other")]
        if ctx.attempt == 1:
            raise ValueError
        return found

    assert (await only(make_app, handler)).output == [1, "other"]


async def test_another_kind_of_call_under_a_stored_key_is_an_error(make_app: Any) -> None:
    async def handler(ctx: Context[Any]) -> None:
        if ctx.attempt == 1:
            await ctx.call("key", int)
            raise ValueError
        await ctx.sleep(1, key="key")

    run = await only(make_app, handler)
    assert run.error.code == "step.non_deterministic"
    assert run.error.attempt == 2


@pytest.mark.parametrize("fn", [None, 5, "name"])
async def test_what_is_not_a_function_is_not_called(make_app: Any, fn: Any) -> None:
    async def handler(ctx: Context[Any]) -> None:
        await ctx.call("key", fn)

    assert (await only(make_app, handler)).error.code == "definition.policy"


async def test_a_result_that_cannot_be_stored_fails_the_step(make_app: Any) -> None:
    async def handler(ctx: Context[Any]) -> None:
        await ctx.call("key", object)

    run = await only(make_app, handler)
    assert run.error.code == "payload.serialization"
    assert "call key" in run.error.message


async def test_a_default_that_cannot_be_stored_fails_the_step(make_app: Any) -> None:
    async def broken() -> int:
        raise ValueError

    async def handler(ctx: Context[Any]) -> None:
        await ctx.call("key", broken, default=object())  # type: ignore[arg-type]

    assert (await only(make_app, handler)).error.code == "payload.serialization"


@pytest.mark.parametrize("use", ["call", "sleep", "sleep_until", "save"])
async def test_a_context_is_closed_once_its_attempt_has_ended(make_app: Any, use: str) -> None:
    kept = []
    wf: Workflow[Any, Any, Any] = Workflow("keeper")

    @wf.step
    async def keep(ctx: Context[Any]) -> None:
        kept.append(ctx)

    async with make_app(wf) as app:
        await app.run(wf, timeout="20s")
        ctx = kept[0]
        arguments: dict[str, Any] = {
            "call": ("k", int),
            "sleep": (1,),
            "sleep_until": (datetime(2030, 1, 1, tzinfo=UTC),),
            "save": (),
        }
        with pytest.raises(ContextClosed):
            await getattr(ctx, use)(*arguments[use])


async def test_code_after_a_sleep_runs_and_code_before_it_runs_again(make_app: Any) -> None:
    lines = []

    async def handler(ctx: Context[Any]) -> str:
        lines.append("before")
        await ctx.sleep(0.05)
        lines.append("between")
        await ctx.sleep("50ms")
        lines.append("after")
        return "woken"

    run = await only(make_app, handler)
    assert run.output == "woken"
    assert run.step("only").attempt == 1
    assert lines == ["before", "before", "between", "before", "between", "after"]


async def test_a_sleeping_run_is_parked_until_exactly_then(make_app: Any) -> None:
    clock = MovableClock()
    wf: Workflow[Any, Any, Any] = Workflow("sleeper")
    entered = []

    @wf.step
    async def sleeper(ctx: Context[Any]) -> int:
        entered.append(ctx.attempt)
        await ctx.sleep("40d")
        return ctx.attempt

    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        assert await app.tick() == 1
        run = await handle.get()
        assert run.status == "waiting"
        assert run.step("sleeper").status == "waiting"
        assert [(wait.kind, wait.due_at) for wait in run.waits] == [("sleep", run.due_at)]
        assert run.worker is None
        assert timedelta(0) <= run.due_at - run.created_at - timedelta(days=40) < timedelta(seconds=30)
        clock.move(days=40, seconds=-60)
        assert await app.tick() == 0
        clock.move(seconds=120)
        assert await app.tick() == 1
        run = await handle.get()
    assert run.output == 1
    assert run.waits == ()
    assert run.due_at is None
    assert entered == [1, 1]


async def test_sleep_until_is_kept_whatever_the_handler_asks_for_when_it_is_entered_again(make_app: Any) -> None:
    clock = MovableClock()
    wf: Workflow[Any, Any, Any] = Workflow("sleeper")

    @wf.step
    async def sleeper(ctx: Context[Any]) -> str:
        await ctx.sleep_until(clock.now() + timedelta(hours=1))
        return "woken"

    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        await app.tick()
        clock.move(hours=2)
        await app.tick()
        assert await handle.status() == "done"


async def test_sleep_until_the_past_returns_soon(make_app: Any) -> None:
    async def handler(ctx: Context[Any]) -> str:
        await ctx.sleep_until(datetime(2000, 1, 1, tzinfo=UTC))
        await ctx.sleep(0)
        return "woken"

    assert (await only(make_app, handler)).output == "woken"


@pytest.mark.parametrize("duration", [-1, float("nan"), float("inf"), 1e20, "soon", None, True], ids=repr)
async def test_an_impossible_sleep_fails_the_step_at_once(make_app: Any, duration: Any) -> None:
    async def handler(ctx: Context[Any]) -> None:
        await ctx.sleep(duration)

    run = await only(make_app, handler)
    assert run.error.code == "definition.policy"
    assert run.step("only").attempt == 1


@pytest.mark.parametrize("instant", [datetime(2030, 1, 1), "tomorrow", None, 5], ids=repr)
async def test_an_impossible_instant_fails_the_step_at_once(make_app: Any, instant: Any) -> None:
    async def handler(ctx: Context[Any]) -> None:
        await ctx.sleep_until(instant)

    run = await only(make_app, handler)
    assert run.error.code == InvalidPolicy.code
    assert run.step("only").attempt == 1


async def test_a_handler_cannot_swallow_a_suspension(make_app: Any) -> None:
    entered = []

    async def handler(ctx: Context[Any]) -> str:
        entered.append(1)
        try:
            await ctx.sleep(0.02)
        except Exception:  # noqa: BLE001 - what users write
            return "swallowed by except Exception"
        try:
            await ctx.sleep(0.02)
        except BaseException:  # noqa: BLE001 - what users write
            return "swallowed by except BaseException"
        return "woken"

    run = await only(make_app, handler)
    assert run.output == "woken"
    assert len(entered) == 3


async def test_gathered_sleeps_all_pass(make_app: Any) -> None:
    async def handler(ctx: Context[Any]) -> str:
        await asyncio.gather(ctx.sleep(0.05, key="a"), ctx.sleep(0.02, key="b"))
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.sleep(0.02, key="c"))
            group.create_task(ctx.sleep(0.03, key="d"))
        return "woken"

    assert (await only(make_app, handler)).output == "woken"


async def test_a_failure_after_a_sleep_does_not_sleep_again(make_app: Any) -> None:
    clock = MovableClock()
    wf: Workflow[Any, Any, Any] = Workflow("sleeper")
    entered = []

    @wf.step(retry=AGAIN)
    async def sleeper(ctx: Context[Any]) -> int:
        entered.append(ctx.attempt)
        await ctx.sleep("1h")
        if ctx.attempt < 3:
            raise ValueError
        return ctx.attempt

    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        await app.tick()
        clock.move(hours=1, seconds=5)
        for _ in range(4):
            await app.tick()
            clock.move(seconds=1)
        run = await handle.get()
    assert run.output == 3
    assert entered == [1, 1, 2, 3]


async def test_a_sleep_in_a_later_step_starts_with_numbers_of_its_own(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("two")

    @wf.step
    async def first(ctx: Context[Any]) -> int:
        await ctx.sleep(0.02)
        return await ctx.call("key", lambda: 1)

    @wf.step
    async def second(ctx: Context[Any]) -> int:
        await ctx.sleep(0.02)
        return await ctx.call("key", lambda: 2)

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
        assert [step.output for step in run.steps] == [1, 2]


async def test_the_memo_of_a_finished_step_is_gone(make_app: Any, runs: Any) -> None:
    async def handler(ctx: Context[Any]) -> int:
        await ctx.sleep(0.02)
        return await ctx.call("key", lambda: 1)

    run = await only(make_app, handler)
    (step,) = (await runs.find_one({"_id": run.id}))["steps"]
    assert "memo" not in step
    assert "waits" not in step


async def test_the_idempotency_key_is_the_same_at_every_attempt(make_app: Any, stored_name: Any) -> None:
    keys = []

    async def handler(ctx: Context[Any]) -> None:
        keys.append((ctx.idempotency_key(), ctx.idempotency_key("mail")))
        if ctx.attempt < 3:
            raise ValueError

    run = await only(make_app, handler)
    assert keys == [(stored_name(f"{run.id}/only"), stored_name(f"{run.id}/only/mail"))] * 3
