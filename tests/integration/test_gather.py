"""ctx.gather: named branches at the same time, each kept; the run parks only when no branch is awake."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from streamline import Context, NonRetriableError, RetryPolicy
from streamline.errors import InvalidKey, InvalidPolicy
from tests.clocks import MovableClock
from tests.integration.memo_runs import Silence, ended, memo_of, one_step, taken_over
from tests.waiting import eventually, status_of

AGAIN = RetryPolicy(max_attempts=2, delay=0)


async def test_all_returns_what_the_branches_return_by_name(make_app: Any) -> None:
    async def slow() -> str:
        await asyncio.sleep(0.03)
        return "slow"

    def threaded() -> int:
        return 5

    async def handler(ctx: Context[Any]) -> dict[str, Any]:
        return await ctx.gather("g", {"slow": slow, "threaded": threaded})

    assert (await ended(make_app, handler)).output == {"slow": "slow", "threaded": 5}


async def test_a_gather_of_nothing_is_empty(make_app: Any) -> None:
    async def handler(ctx: Context[Any]) -> list[Any]:
        modes: Any = ("all", "any", "race", "settled")
        return [await ctx.gather(f"g-{mode}", {}, mode=mode) for mode in modes]

    assert (await ended(make_app, handler)).output == [{}, {}, {}, {}]


async def test_branches_are_at_work_at_the_same_time(make_app: Any) -> None:
    one, two = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        one.set()
        await asyncio.wait_for(two.wait(), 10)

    async def second() -> None:
        two.set()
        await asyncio.wait_for(one.wait(), 10)

    async def handler(ctx: Context[Any]) -> str:
        await ctx.gather("g", {"first": first, "second": second})
        return "met"

    assert (await ended(make_app, handler)).output == "met"


async def test_a_branch_that_ended_is_not_done_again_while_others_wait(make_app: Any) -> None:
    done: list[str] = []

    async def handler(ctx: Context[Any]) -> dict[str, Any]:
        async def quick() -> str:
            done.append("quick")
            return "quick"

        async def sleeps() -> str:
            await ctx.sleep(0.03)
            done.append("sleeps")
            return "woken"

        async def asks() -> Any:
            payload = await ctx.wait("who?")
            done.append("asks")
            return payload

        return await ctx.gather("g", {"quick": quick, "sleeps": sleeps, "asks": asks})

    wf = one_step(handler)
    async with make_app(wf) as app:
        handle = await app.start(wf)
        await eventually(lambda: done == ["quick", "sleeps"])
        await status_of(handle, "waiting")
        await app.resume(handle.id, "ann")
        assert await handle.result("20s") == {"quick": "quick", "sleeps": "woken", "asks": "ann"}
    assert done == ["quick", "sleeps", "asks"]


async def test_the_run_parks_only_when_every_branch_has_ended_or_waits(make_app: Any, runs: Any) -> None:
    gate, parked = asyncio.Event(), asyncio.Event()

    async def handler(ctx: Context[Any]) -> None:
        async def sleeps() -> None:
            parked.set()
            await ctx.sleep("1h")

        async def computes() -> str:
            await gate.wait()
            return "computed"

        await ctx.gather("g", {"sleeps": sleeps, "computes": computes})

    wf = one_step(handler)
    async with make_app(wf) as app:
        handle = await app.start(wf)
        await parked.wait()
        # What waits is stored already, while the other branch is at work.
        await eventually(lambda: _has(runs, handle.id, "g/sleeps/sleep#1"))
        assert (await handle.get()).status == "running"
        gate.set()
        run = await status_of(handle, "waiting")
        memo = await memo_of(runs, handle.id)
    assert memo["g/computes"]["output"] == "computed"
    assert run.due_at == memo["g/sleeps/sleep#1"]["due_at"]


async def _has(runs: Any, run_id: str, address: str) -> bool:
    return address in await memo_of(runs, run_id)


async def test_the_run_wakes_on_the_first_of_its_branches_that_is_due(make_app: Any) -> None:
    clock, woken = MovableClock(), []

    async def handler(ctx: Context[Any]) -> list[str]:
        async def sleeps(name: str, duration: str) -> str:
            await ctx.sleep(duration)
            woken.append(name)
            return name

        found = await ctx.gather(
            "g", {name: lambda name=name, d=d: sleeps(name, d) for name, d in (("c", "3h"), ("a", "1h"), ("b", "2h"))}
        )
        return list(found)

    wf = one_step(handler)
    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        began = clock.now()
        await app.tick()
        for hours, so_far in ((1, ["a"]), (2, ["a", "b"])):
            due = (await handle.get()).due_at
            assert abs(due - began - timedelta(hours=hours)) < timedelta(seconds=10)
            clock.move(hours=1, seconds=5)
            await app.tick()
            assert woken == so_far
            assert (await handle.get()).status == "waiting"
        clock.move(hours=1)
        await app.tick()
        assert await handle.result("20s") == ["c", "a", "b"]
    assert woken == ["a", "b", "c"]


async def test_a_branch_whose_sleep_ends_goes_on_in_the_same_entry_while_another_computes(make_app: Any) -> None:
    slept, entered = asyncio.Event(), []

    async def handler(ctx: Context[Any]) -> list[Any]:
        entered.append(1)

        async def sleeps() -> str:
            await ctx.sleep(0.05)
            slept.set()
            return "slept"

        async def computes() -> str:
            await asyncio.wait_for(slept.wait(), 10)  # it ends only once the other has gone on
            return "computed"

        return list((await ctx.gather("g", {"sleeps": sleeps, "computes": computes})).values())

    assert (await ended(make_app, handler)).output == ["slept", "computed"]
    assert entered == [1]


async def test_a_branch_that_is_answered_goes_on_in_the_same_entry_while_another_computes(
    make_app: Any, runs: Any
) -> None:
    answered, entered = asyncio.Event(), []

    async def handler(ctx: Context[Any]) -> list[Any]:
        entered.append(1)

        async def asks() -> Any:
            payload = await ctx.wait("who?")
            answered.set()
            return payload

        async def computes() -> str:
            while not answered.is_set():
                await ctx.checkpoint(1)  # a write tells its worker that somebody else has written the run
                await asyncio.sleep(0.02)
            return "computed"

        return list((await ctx.gather("g", {"asks": asks, "computes": computes})).values())

    wf = one_step(handler)
    async with make_app(wf) as app:
        handle = await app.start(wf)
        await eventually(lambda: _has(runs, handle.id, "g/asks/wait#1"))
        await app.resume(handle.id, "ann")
        assert await handle.result("20s") == ["ann", "computed"]
    assert entered == [1]


async def test_the_first_failure_of_all_ends_the_others(make_app: Any) -> None:
    told = []

    async def fails() -> None:
        await asyncio.sleep(0.02)
        raise NonRetriableError("branch b")

    async def long() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            told.append("a")
            raise

    async def handler(ctx: Context[Any]) -> None:
        await ctx.gather("g", {"a": long, "b": fails})

    run = await ended(make_app, handler)
    assert run.error.message == "branch b"
    assert told == ["a"]


async def test_a_failure_beside_a_branch_that_waits_fails_the_step_at_once(make_app: Any, runs: Any) -> None:
    async def handler(ctx: Context[Any]) -> None:
        async def waits() -> None:
            await ctx.wait("for ever")

        async def fails() -> None:
            await asyncio.sleep(0.02)
            raise NonRetriableError("branch b")

        await ctx.gather("g", {"a": waits, "b": fails})

    run = await ended(make_app, handler)
    assert run.error.message == "branch b"
    stored = await runs.find_one({"_id": run.id})
    assert not {"due_at", "waiting_since", "lease"} & stored.keys()


async def test_any_takes_the_first_that_succeeds_and_ends_the_others(make_app: Any) -> None:
    begun: list[str] = []

    async def handler(ctx: Context[Any]) -> dict[str, Any]:
        async def fails() -> str:
            raise ValueError("no")

        async def succeeds() -> str:
            begun.append("succeeds")
            await ctx.sleep(0.3)
            return "first"

        async def later() -> str:
            await ctx.sleep("1h")
            return "later"

        found = await ctx.gather("g", {"fails": fails, "succeeds": succeeds, "later": later}, mode="any")
        await ctx.sleep(0.02)
        return found

    run = await ended(make_app, handler)
    assert run.output == {"succeeds": "first"}
    assert len(begun) == 2  # entered, and entered again when its sleep was over; never after it won


async def test_any_fails_where_every_branch_has(make_app: Any) -> None:
    async def fails() -> str:
        raise ValueError("each of them")

    async def handler(ctx: Context[Any]) -> dict[str, Any]:
        return await ctx.gather("g", {"a": fails, "b": fails}, mode="any")

    run = await ended(make_app, handler, retry=AGAIN, max_attempts=None)
    assert run.status == "failed"
    assert "each of them" in run.error.message


async def test_race_takes_the_first_that_ends_even_badly(make_app: Any) -> None:
    async def fails() -> str:
        raise ValueError("lost")

    async def slow() -> str:
        await asyncio.sleep(60)
        return "slow"

    async def handler(ctx: Context[Any]) -> str:
        try:
            await ctx.gather("bad", {"fails": fails, "slow": slow}, mode="race")
        except ValueError as error:
            said = str(error)
        won = await ctx.gather("good", {"quick": lambda: "quick", "slow": slow}, mode="race")
        await ctx.sleep(0.02)
        return f"{said} | {won}"

    run = await ended(make_app, handler)
    assert "lost" in run.output
    assert run.output.endswith("{'quick': 'quick'}")


async def test_settled_says_how_each_branch_ended(make_app: Any) -> None:
    async def fails() -> str:
        raise ValueError("no")

    async def handler(ctx: Context[Any]) -> dict[str, Any]:
        found = await ctx.gather("g", {"fails": fails, "works": lambda: 5}, mode="settled")
        await ctx.sleep(0.02)
        return {
            name: [each.status, each.ok, each.value, (each.error or {}).get("message")] for name, each in found.items()
        }

    assert (await ended(make_app, handler)).output == {
        "fails": ["failed", False, None, "no"],
        "works": ["done", True, 5, None],
    }


async def test_no_more_branches_are_at_work_than_concurrency_allows(make_app: Any) -> None:
    at_work, most = set(), []

    async def branch(n: int) -> int:
        at_work.add(n)
        most.append(len(at_work))
        await asyncio.sleep(0.005)
        at_work.discard(n)
        return n

    async def handler(ctx: Context[Any]) -> dict[str, int]:
        return await ctx.gather("g", {f"b{n}": lambda n=n: branch(n) for n in range(6)}, concurrency=2)

    assert (await ended(make_app, handler)).output == {f"b{n}": n for n in range(6)}
    assert max(most) == 2


async def test_whoever_takes_the_run_over_does_only_the_unfinished_branches(make_app: Any, runs: Any) -> None:
    silence, done = Silence(), []

    async def handler(ctx: Context[Any]) -> dict[str, Any]:
        async def quick() -> str:
            done.append("quick")
            return "quick"

        async def silent() -> str:
            await eventually(lambda: _has(runs, ctx.run_id, "g/quick"))
            await silence.falls()
            done.append("silent")
            return "spoke"

        return await ctx.gather("g", {"quick": quick, "silent": silent})

    async with taken_over(make_app, runs, one_step(handler), silence) as handle:
        assert await handle.result("20s") == {"quick": "quick", "silent": "spoke"}
    assert done == ["quick", "silent"]


async def test_a_failed_attempt_keeps_the_branches_that_were_done(make_app: Any) -> None:
    done: list[str] = []

    async def handler(ctx: Context[Any]) -> dict[str, Any]:
        async def quick() -> str:
            done.append("quick")
            return "quick"

        async def shaky() -> str:
            await asyncio.sleep(0.05)
            done.append(f"shaky {ctx.attempt}")
            if ctx.attempt == 1:
                raise ValueError
            return "shaky"

        return await ctx.gather("g", {"quick": quick, "shaky": shaky})

    run = await ended(make_app, handler, retry=AGAIN, max_attempts=None)
    assert run.output == {"quick": "quick", "shaky": "shaky"}
    assert done == ["quick", "shaky 1", "shaky 2"]


@pytest.mark.parametrize(
    ("branches", "rules", "code"),
    [
        ({"a.b": int}, {}, InvalidKey.code),
        ({"$a": int}, {}, InvalidKey.code),
        ({"a": int}, {"mode": "most"}, InvalidPolicy.code),
        ({"a": int}, {"concurrency": -1}, InvalidPolicy.code),
    ],
    ids=repr,
)
async def test_impossible_branches_and_rules_fail_the_step_at_once(
    make_app: Any, branches: Any, rules: Any, code: str
) -> None:
    async def handler(ctx: Context[Any]) -> None:
        await ctx.gather("g", branches, **rules)

    run = await ended(make_app, handler, retry=AGAIN, max_attempts=None)
    assert run.error.code == code
    assert run.step("only").attempt == 1
