"""ctx.poll: an outside job is asked again and again; the run is parked between two looks."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from streamline import Context, RetryPolicy
from streamline.errors import InvalidPolicy, WaitTimeout
from tests.clocks import MovableClock
from tests.integration.memo_runs import Silence, ended, memo_of, one_step, taken_over
from tests.waiting import status_of

AGAIN = RetryPolicy(max_attempts=3, delay=0)


async def test_it_asks_until_there_is_an_answer_and_keeps_that(make_app: Any) -> None:
    looks: list[int] = []

    async def check() -> str | None:
        looks.append(1)
        return "ready" if len(looks) == 3 else None

    async def handler(ctx: Context[Any]) -> str:
        said = await ctx.poll("job", check, every=0.01)
        await ctx.sleep(0.01)
        return said

    assert (await ended(make_app, handler)).output == "ready"
    assert len(looks) == 3


async def test_the_run_is_parked_between_two_looks(make_app: Any, runs: Any) -> None:
    clock, looks = MovableClock(), []

    async def handler(ctx: Context[Any]) -> str:
        async def check() -> str | None:
            looks.append(clock.now())
            return "ready" if len(looks) == 3 else None

        return await ctx.poll("job", check, every="10m")

    wf = one_step(handler)
    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        for n in (1, 2):
            assert await app.tick() == 1
            run = await handle.get()
            assert (run.status, len(looks)) == ("waiting", n)
            assert timedelta(minutes=9) < run.due_at - clock.now() <= timedelta(minutes=10)
            assert await app.tick() == 0
            clock.move(minutes=10, seconds=1)
        await app.tick()
        assert await handle.result("20s") == "ready"
    assert len(looks) == 3


async def test_it_gives_up_after_max_wait_with_a_last_look_at_the_end(make_app: Any) -> None:
    clock, looks = MovableClock(), []

    async def handler(ctx: Context[Any]) -> str:
        def check() -> None:
            looks.append(clock.now())

        try:
            await ctx.poll("job", check, every="10m", max_wait="25m")
        except WaitTimeout:
            await ctx.sleep("1h")  # that the time is over is kept like an answer
            return "gave up"
        return "answered"

    wf = one_step(handler)
    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        for minutes in (10, 10, 5, 60):
            await app.tick()
            assert (await handle.get()).status == "waiting"
            clock.move(minutes=minutes, seconds=1)
        await app.tick()
        assert await handle.result("20s") == "gave up"
    assert [round((look - looks[0]).total_seconds() / 60) for look in looks] == [0, 10, 20, 25]


async def test_a_poll_without_an_answer_fails_the_step_with_a_wait_timeout(make_app: Any) -> None:
    async def handler(ctx: Context[Any]) -> None:
        await ctx.poll("job", lambda: None, every=0.01, max_wait=0.02)

    run = await ended(make_app, handler)
    assert run.error.code == WaitTimeout.code
    assert run.error.type == "WaitTimeout"


async def test_what_a_look_raises_fails_the_attempt_and_the_next_looks_again(make_app: Any) -> None:
    looks = []

    async def check() -> int | None:
        looks.append(1)
        if len(looks) == 2:
            raise ConnectionError("away")
        return 7 if len(looks) == 4 else None

    async def handler(ctx: Context[Any]) -> int:
        return await ctx.poll("job", check, every=0.01)

    run = await ended(make_app, handler, retry=AGAIN, max_attempts=None)
    assert run.output == 7
    assert run.step("only").attempt == 2
    assert len(looks) == 4


async def test_an_answer_comes_back_as_it_was_annotated_and_falsy_ones_are_answers(make_app: Any) -> None:
    looks = []

    async def zero() -> Decimal | None:
        looks.append(1)
        return Decimal("0.0")

    async def handler(ctx: Context[Any]) -> str:
        found = await ctx.poll("job", zero, every=0.01)
        no = await ctx.poll("no", lambda: False, every=0.01)
        await ctx.sleep(0.01)
        return f"{found!r} {no!r}"

    assert (await ended(make_app, handler)).output == "Decimal('0.0') False"
    assert looks == [1]


async def test_whoever_takes_the_run_over_looks_again_and_keeps_the_end_of_the_time_allowed(
    make_app: Any, runs: Any
) -> None:
    silence, looks = Silence(), []

    async def check() -> str | None:
        looks.append(1)
        if len(looks) == 2:
            await silence.falls()
        return "ready" if len(looks) == 3 else None

    async def handler(ctx: Context[Any]) -> str:
        return await ctx.poll("job", check, every=0.02, max_wait="1h")

    async with taken_over(make_app, runs, one_step(handler), silence) as handle:
        began = (await memo_of(runs, handle.id))["job"]["began_at"]
        assert await handle.result("20s") == "ready"
        assert (await handle.get()).started_at <= began
    assert len(looks) == 3


async def test_polls_of_branches_go_on_at_their_own_pace(make_app: Any) -> None:
    looks: dict[str, int] = {"quick": 0, "slow": 0}

    async def handler(ctx: Context[Any]) -> dict[str, int]:
        async def look(name: str, most: int) -> int | None:
            looks[name] += 1
            return looks[name] if looks[name] == most else None

        async def quick() -> int:
            return await ctx.poll("job", lambda: look("quick", 4), every=0.01)

        async def slow() -> int:
            return await ctx.poll("job", lambda: look("slow", 2), every=0.05)

        async def busy() -> int:
            await asyncio.sleep(0.02)
            return 0

        return await ctx.gather("g", {"quick": quick, "slow": slow, "busy": busy})

    assert (await ended(make_app, handler)).output == {"quick": 4, "slow": 2, "busy": 0}
    assert looks == {"quick": 4, "slow": 2}


async def test_a_look_may_make_durable_calls_which_each_look_makes_anew(make_app: Any) -> None:
    asked: list[int] = []

    async def handler(ctx: Context[Any]) -> int:
        async def check() -> int | None:
            n = await ctx.call("ask", lambda: asked.append(1) or len(asked))
            return n if n >= 3 else None

        return await ctx.poll("job", check, every=0.01)

    assert (await ended(make_app, handler)).output == 3
    assert len(asked) == 3


async def test_cancelling_the_run_ends_the_poll(make_app: Any) -> None:
    looks = []

    async def handler(ctx: Context[Any]) -> None:
        await ctx.poll("job", lambda: looks.append(1), every="1h")

    wf = one_step(handler)
    async with make_app(wf) as app:
        handle = await app.start(wf)
        await status_of(handle, "waiting")
        await handle.cancel()
        run = await handle.wait("20s")
    assert (run.status, run.due_at) == ("cancelled", None)
    assert looks == [1]


@pytest.mark.parametrize(
    "rules", [{"every": 0}, {"every": "-1s"}, {"every": "soon"}, {"every": 1, "max_wait": "x"}], ids=repr
)
async def test_impossible_rules_fail_the_step_at_once(make_app: Any, rules: Any) -> None:
    async def handler(ctx: Context[Any]) -> None:
        await ctx.poll("job", lambda: None, **rules)

    run = await ended(make_app, handler, retry=AGAIN, max_attempts=None)
    assert run.error.code == InvalidPolicy.code
    assert run.step("only").attempt == 1
