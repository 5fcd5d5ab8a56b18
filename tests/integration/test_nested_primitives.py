"""Durable calls nested at will: the run parks when nothing in it is awake, and wakes on the first thing due."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from streamline import Context, Continue, Done
from tests.clocks import MovableClock
from tests.integration.memo_runs import Silence, ended, memo_of, one_step, taken_over
from tests.waiting import eventually, status_of


async def test_an_each_of_calls_makes_each_call_once(make_app: Any) -> None:
    calls: Counter[str] = Counter()

    async def fetch(name: str) -> str:
        calls[name] += 1
        return name

    async def handler(ctx: Context[Any]) -> list[str]:
        async def item(value: int, index: int) -> str:
            first = await ctx.call("fetch", fetch, f"fetch {value}")
            await ctx.sleep(0.01 * (value % 3))
            second = await ctx.call("store", fetch, f"store {value}")
            await ctx.sleep(0.01)
            return f"{first}, {second}"

        return await ctx.each("items", range(8), item, concurrency=3)

    assert (await ended(make_app, handler)).output == [f"fetch {n}, store {n}" for n in range(8)]
    assert set(calls.values()) == {1}
    assert len(calls) == 16


async def test_an_each_within_an_each_within_a_gather(make_app: Any) -> None:
    done: Counter[str] = Counter()

    async def handler(ctx: Context[Any]) -> dict[str, Any]:
        async def grid(name: str) -> list[list[str]]:
            async def row(r: int, _: int) -> list[str]:
                async def cell(c: int, _: int) -> str:
                    await ctx.sleep(0.01)
                    done[f"{name}{r}{c}"] += 1
                    return f"{name}{r}{c}"

                return await ctx.each("cells", range(2), cell)

            return await ctx.each("rows", range(2), row)

        return await ctx.gather("grids", {name: lambda name=name: grid(name) for name in "ab"})

    run = await ended(make_app, handler)
    assert run.output == {name: [[f"{name}00", f"{name}01"], [f"{name}10", f"{name}11"]] for name in "ab"}
    assert set(done.values()) == {1}


async def test_paths_say_where_a_nested_call_stands(make_app: Any, runs: Any) -> None:
    async def handler(ctx: Context[Any]) -> None:
        async def item(value: str, index: int) -> None:
            async def body(state: int, i: int) -> Continue[int] | Done[int]:
                if i == 1:
                    await ctx.wait("stop", key="stop")
                return Continue(state)

            async def left() -> None:
                await ctx.loop("turns", 0, body)

            await ctx.gather("sides", {"left": left})

        await ctx.each("items", ["a"], item)

    wf = one_step(handler)
    async with make_app(wf) as app:
        run = await status_of(await app.start(wf), "waiting")
        memo = await memo_of(runs, run.id)
    assert "items[0]/sides/left/turns[1]/stop" in memo
    assert "items[0]/sides/left/turns" in memo
    assert [wait.key for wait in run.waits] == ["items[0]/sides/left/turns[1]/stop"]


async def test_branches_that_sleep_and_wait_end_in_whichever_order_they_are_due(make_app: Any) -> None:
    clock, over = MovableClock(), []

    async def handler(ctx: Context[Any]) -> list[Any]:
        async def sleeps() -> str:
            await ctx.sleep("2h")
            over.append("sleeps")
            return "slept"

        async def waits() -> Any:
            payload = await ctx.wait("who?", timeout="5h", default="nobody")
            over.append("waits")
            return payload

        async def polls() -> str:
            said = await ctx.poll("job", lambda: "ready" if len(over) == 2 else None, every="1h")
            over.append("polls")
            return said

        return list((await ctx.gather("g", {"sleeps": sleeps, "waits": waits, "polls": polls})).values())

    wf = one_step(handler)
    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        for hours in range(7):
            while await app.tick():
                pass
            if hours == 5:
                assert over[:2] == ["sleeps", "waits"]
            clock.move(hours=1, seconds=1)
        assert await handle.result("20s") == ["slept", "nobody", "ready"]
    assert over == ["sleeps", "waits", "polls"]


async def test_an_answer_wakes_the_run_though_other_branches_sleep_on(make_app: Any) -> None:
    went_on = []

    async def handler(ctx: Context[Any]) -> list[Any]:
        async def item(value: int, index: int) -> Any:
            if value == 2:
                payload = await ctx.wait("who?")
                went_on.append(payload)
                return payload
            return await ctx.sleep("1h")

        return await ctx.each("items", range(4), item)

    wf = one_step(handler)
    async with make_app(wf) as app:
        handle = await app.start(wf)
        due_at = (await status_of(handle, "waiting")).due_at
        await app.resume(handle.id, "ann")
        await eventually(lambda: went_on == ["ann"])
        run = await status_of(handle, "waiting")
        assert run.due_at == due_at
        assert not run.waits or all(wait.kind == "sleep" for wait in run.waits)


async def test_except_exception_around_nested_calls_swallows_no_suspension(make_app: Any) -> None:
    swallowed: list[str] = []

    async def handler(ctx: Context[Any]) -> list[str]:
        async def item(value: int, index: int) -> str:
            try:
                await ctx.sleep(0.01)
            except Exception as error:  # noqa: BLE001 - what users write
                swallowed.append(repr(error))
            return "woken"

        try:
            return await ctx.each("items", range(3), item, on_error="collect")
        except Exception as error:  # noqa: BLE001 - what users write
            swallowed.append(repr(error))
            return []

    assert (await ended(make_app, handler)).output == ["woken"] * 3
    assert swallowed == []


async def test_a_task_group_of_fans_parks_and_goes_on(make_app: Any) -> None:
    done: Counter[str] = Counter()

    async def handler(ctx: Context[Any]) -> list[Any]:
        async def item(value: str, index: int) -> str:
            await ctx.sleep(0.01)
            done[value] += 1
            return value

        async with asyncio.TaskGroup() as group:
            left = group.create_task(ctx.each("left", ["a", "b"], item))
            right = group.create_task(ctx.each("right", ["c", "d"], item))
        return [*left.result(), *right.result()]

    assert (await ended(make_app, handler)).output == ["a", "b", "c", "d"]
    assert set(done.values()) == {1}


async def test_gathered_calls_beside_a_sleep_are_all_kept(make_app: Any) -> None:
    calls: Counter[str] = Counter()

    async def work(name: str) -> str:
        await asyncio.sleep(0.01)
        calls[name] += 1
        return name

    async def handler(ctx: Context[Any]) -> list[Any]:
        return await asyncio.gather(
            ctx.call("a", work, "a"),
            ctx.sleep(0.03),
            ctx.call("b", work, "b"),
            ctx.wait("x", timeout=0.05, default="x"),
        )

    assert (await ended(make_app, handler)).output == ["a", None, "b", "x"]
    assert calls == {"a": 1, "b": 1}


async def test_a_save_beside_operations_of_other_branches_undoes_none(make_app: Any) -> None:
    async def handler(ctx: Context[Any, dict[str, Any]]) -> dict[str, Any]:
        if not ctx.state:
            ctx.state = {"n": 0, "saved": []}
            await ctx.save()

        async def counts() -> None:
            for _ in range(5):
                await ctx.inc("n", 1)

        async def saves() -> None:
            for i in range(5):
                ctx.state["saved"] = [*ctx.state["saved"], i]
                await ctx.save()

        await ctx.gather("g", {"counts": counts, "saves": saves})
        await ctx.sleep(0.01)  # what comes now is what was stored, not what the handler had in hand
        return ctx.state

    run = await ended(make_app, handler, state=dict[str, Any])
    assert run.state == {"n": 5, "saved": [0, 1, 2, 3, 4]}


async def test_a_failure_in_a_nested_branch_ends_all_that_is_around_it(make_app: Any) -> None:
    told: list[str] = []

    async def handler(ctx: Context[Any]) -> None:
        async def long(name: str) -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                told.append(name)
                raise

        async def item(value: int, index: int) -> None:
            async def fails() -> None:
                await asyncio.sleep(0.02)
                raise ValueError("inmost")

            if value:
                await ctx.gather("g", {"fails": fails, "long": lambda: long("inner")})
            else:
                await long("outer")

        await ctx.each("items", [0, 1], item)

    run = await ended(make_app, handler)
    assert run.error.message == "inmost"
    assert sorted(told) == ["inner", "outer"]


async def test_a_timed_out_step_ends_its_branches_before_the_next_attempt_begins(make_app: Any) -> None:
    log: list[str] = []

    async def handler(ctx: Context[Any]) -> list[str]:
        log.append(f"begin {ctx.attempt}")

        async def item(value: str, index: int) -> str:
            if value == "quick" or ctx.attempt == 2:
                log.append(f"{value} {ctx.attempt}")
                return f"{value} {ctx.attempt}"
            try:
                await asyncio.sleep(60)
            finally:
                log.append(f"end {value} {ctx.attempt}")
            return "never"

        return await ctx.each("items", ["quick", "slow"], item)

    run = await ended(make_app, handler, timeout="300ms", max_attempts=2)
    assert run.output == ["quick 1", "slow 2"]
    assert log == ["begin 1", "quick 1", "end slow 1", "begin 2", "slow 2"]
    assert run.step("only").attempt == 2


async def test_time_spent_parked_does_not_count_towards_the_timeout(make_app: Any) -> None:
    async def handler(ctx: Context[Any]) -> str:
        for _ in range(4):
            await ctx.sleep(0.2)
        return "woken"

    assert (await ended(make_app, handler, timeout="400ms")).output == "woken"


async def test_whoever_takes_a_nest_over_does_only_what_was_not_done(make_app: Any, runs: Any) -> None:
    silence, calls = Silence(), Counter[str]()

    async def fetch(name: str) -> str:
        calls[name] += 1
        return name

    async def handler(ctx: Context[Any]) -> list[list[str]]:
        async def item(value: int, index: int) -> list[str]:
            async def body(so_far: list[str], i: int) -> Continue[list[str]] | Done[list[str]]:
                got = [*so_far, await ctx.call("fetch", fetch, f"{value}.{i}")]
                await ctx.sleep(0.01)
                if (value, i) == (2, 1):
                    await silence.falls()
                return Done(got) if i == 2 else Continue(got)

            return await ctx.loop("turns", [], body)

        return await ctx.each("items", range(4), item, concurrency=2)

    async with taken_over(make_app, runs, one_step(handler), silence) as handle:
        assert await handle.result("20s") == [[f"{n}.{i}" for i in range(3)] for n in range(4)]
    assert set(calls.values()) == {1}
    assert len(calls) == 12
