"""What a handler says of itself while it is at work: progress and log lines, all of it kept."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from typing import Any

import pytest

from streamline import Context, NonRetriableError, RetryAfter, RetryPolicy, Workflow
from streamline.errors import InvalidInput, InvalidKey
from tests.waiting import eventually, status_of

QUICK_RETRY = RetryPolicy(max_attempts=3, delay=0)


def workflow(**options: Any) -> Workflow[Any, Any, Any]:
    return Workflow("telling", retry=QUICK_RETRY, **options)


async def nothing() -> None: ...


# ---- progress --------------------------------------------------------------------------------------------------------


async def test_progress_is_throttled_and_its_last_value_lands_while_the_handler_is_at_work(
    make_app: Any, runs: Any
) -> None:
    wf, gate = workflow(), asyncio.Event()

    @wf.step
    async def busy(ctx: Context[Any]) -> None:
        for n in range(500):
            await ctx.progress(n / 500, f"item {n}", n=n)
        await gate.wait()

    async with make_app(wf) as app:
        handle = await app.start(wf)

        async def landed() -> Any:
            seen = await handle.progress()
            return seen if seen is not None and seen.details == {"n": 499} else None

        seen = await eventually(landed)
        assert (seen.fraction, seen.message) == (499 / 500, "item 499")
        assert (await runs.find_one({}))["rev"] <= 10  # 500 were said
        gate.set()
        run = await handle.wait("20s")
    assert run.steps[0].progress == seen


async def test_the_last_progress_lands_with_the_end_of_the_step(make_app: Any, runs: Any) -> None:
    wf = workflow()

    @wf.step
    async def quick(ctx: Context[Any]) -> None:
        for n in range(101):
            await ctx.progress(n / 100, None if n == 100 else "under way")

    async with make_app(wf) as app:
        await app.run(wf, timeout="20s")
    stored = (await runs.find_one({}))["steps"][0]["progress"]
    assert stored == {"fraction": 1.0, "at": stored["at"]}


async def test_the_last_progress_of_an_attempt_that_fails_is_kept(make_app: Any) -> None:
    wf = workflow()

    @wf.step(max_attempts=1)
    async def fails(ctx: Context[Any]) -> None:
        await ctx.progress(0.1)
        await ctx.progress(0.7, "so far")
        raise ValueError("no further")

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.status == "failed"
    assert (run.steps[0].progress.fraction, run.steps[0].progress.message) == (0.7, "so far")


async def test_progress_said_before_a_sleep_is_stored_while_the_run_is_parked(make_app: Any) -> None:
    wf = workflow()

    @wf.step
    async def sleeps(ctx: Context[Any]) -> None:
        await ctx.progress(0.1)
        await ctx.progress(0.5)
        await ctx.sleep("1h")

    async with make_app(wf) as app:
        handle = await app.start(wf)
        await status_of(handle, "waiting")
        assert (await handle.progress()).fraction == 0.5


async def test_the_handle_tells_the_progress_of_the_step_that_said_so_last(make_app: Any) -> None:
    wf = workflow()

    @wf.step
    async def silent(ctx: Context[Any]) -> None: ...

    @wf.step
    async def first(ctx: Context[Any]) -> None:
        await ctx.progress(1.0, "first")
        await ctx.sleep(0.005)

    @wf.step
    async def second(ctx: Context[Any]) -> None:
        await ctx.progress(0.2, "second")

    async with make_app(wf) as app, make_app(worker=False) as other:
        handle = await app.start(wf, delay="1h")
        assert await handle.progress() is None
        handle = await app.start(wf)
        await handle.wait("20s")
        assert (await handle.progress()).message == "second"
        assert (await other.handle(handle.id).progress()).message == "second"


@pytest.mark.parametrize("fraction", [-0.1, 1.1, math.nan, math.inf, True, "half", None])
async def test_a_fraction_is_a_number_from_0_to_1(make_app: Any, fraction: Any) -> None:
    wf = workflow()

    @wf.step
    async def busy(ctx: Context[Any]) -> str:
        with pytest.raises(InvalidInput) as caught:
            await ctx.progress(fraction)
        return str(caught.value.field)

    async with make_app(wf) as app:
        handle = await app.start(wf)
        assert await handle.result("20s") == "fraction"
        assert await handle.progress() is None


async def test_details_of_progress_have_names_that_can_be_stored(make_app: Any) -> None:
    wf = workflow()

    @wf.step
    async def busy(ctx: Context[Any]) -> None:
        with pytest.raises(InvalidKey):
            await ctx.progress(0.5, **{"a.b": 1})

    async with make_app(wf) as app:
        await app.run(wf, timeout="20s")


async def test_progress_that_is_too_large_fails_the_step_and_not_more(make_app: Any, caplog: Any) -> None:
    wf = workflow()

    @wf.step(max_attempts=1)
    async def boasts(ctx: Context[Any]) -> None:
        await ctx.progress(0.5, text="x" * 5_000_000)

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("5s")
    assert (run.status, run.error.code) == ("failed", "payload.too_large")


async def test_a_jump_back_over_a_step_that_has_said_its_progress(make_app: Any) -> None:
    wf, turns = workflow(), list[int]()

    @wf.step
    async def first(ctx: Context[Any]) -> None: ...

    @wf.step
    async def second(ctx: Context[Any]) -> int:
        turns.append(1)
        for n in range(3):
            await ctx.progress(n / 3)
        ctx.metric("turns", 1)
        ctx.log.info("turn %d", len(turns))
        if len(turns) < 3:
            ctx.goto(first)
        return len(turns)

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("10s")
    assert (run.status, run.output) == ("done", 3), run.error
    assert run.metrics == {"turns": 3}
    assert [line.message for line in run.logs] == ["turn 1", "turn 2", "turn 3"]


async def test_a_compensation_may_say_its_progress(make_app: Any) -> None:
    wf = workflow()

    @wf.step
    async def first(ctx: Context[Any]) -> int:
        return 1

    @first.compensate(max_attempts=2)
    async def undo(ctx: Context[Any], output: int) -> None:
        for n in range(3):
            await ctx.progress(n / 3)
        ctx.log.info("undone")
        if ctx.attempt == 1:
            raise RetryAfter(0.01)

    @wf.step
    async def second(ctx: Context[Any]) -> None:
        raise NonRetriableError("no")

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("10s")
    assert run.status == "compensated", run.error
    assert [(line.message, line.step, line.attempt) for line in run.logs] == [
        ("undone", "first", 1),
        ("undone", "first", 2),
    ]


# ---- log -------------------------------------------------------------------------------------------------------------


async def test_lines_of_all_steps_are_kept_in_order_with_step_and_attempt(make_app: Any, runs: Any) -> None:
    wf = workflow()

    @wf.step
    async def first(ctx: Context[Any]) -> None:
        ctx.log.info("begun %d", ctx.attempt)
        ctx.log.warning("watch out")
        if ctx.attempt == 1:
            raise ValueError("once")

    @wf.step
    def second(ctx: Context[Any]) -> None:  # in a thread
        ctx.log.error("from %s", threading.current_thread() is not threading.main_thread())
        ctx.log.debug("not kept")

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert [(line.step, line.attempt, line.level, line.message) for line in run.logs] == [
        ("first", 1, "INFO", "begun 1"),
        ("first", 1, "WARNING", "watch out"),
        ("first", 2, "INFO", "begun 2"),
        ("first", 2, "WARNING", "watch out"),
        ("second", 1, "ERROR", "from True"),
    ]
    assert [line.at for line in run.logs] == sorted(line.at for line in run.logs)
    assert len((await runs.find_one({}))["logs"]) == 5


async def test_the_newest_200_lines_are_kept(make_app: Any, runs: Any) -> None:
    wf = workflow()

    @wf.step
    async def first(ctx: Context[Any]) -> None:
        for n in range(150):
            ctx.log.info("first %d", n)

    @wf.step
    async def second(ctx: Context[Any]) -> None:
        for n in range(130):
            ctx.log.info("second %d", n)
            if n % 40 == 0:
                await ctx.call(f"call-{n}", nothing)

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    kept = [line["message"] for line in (await runs.find_one({}))["logs"]]
    assert kept == [f"first {n}" for n in range(80, 150)] + [f"second {n}" for n in range(130)]
    assert [line.message for line in run.logs] == kept


async def test_a_burst_of_lines_is_kept_to_its_newest_200(make_app: Any, runs: Any) -> None:
    wf = workflow()

    @wf.step
    async def burst(ctx: Context[Any]) -> None:
        for n in range(1000):
            ctx.log.info("line %d", n)

    async with make_app(wf) as app:
        await app.run(wf, timeout="20s")
    assert [line["message"] for line in (await runs.find_one({}))["logs"]] == [f"line {n}" for n in range(800, 1000)]


async def test_lines_go_to_standard_logging_as_well(make_app: Any, caplog: pytest.LogCaptureFixture) -> None:
    wf = workflow()

    @wf.step
    async def talks(ctx: Context[Any]) -> None:
        ctx.log.info("hello %s", "there", extra={"colour": "red"})
        try:
            raise ValueError("inner")
        except ValueError:
            ctx.log.exception("it broke")

    with caplog.at_level(logging.INFO, "streamline.workflow"):
        async with make_app(wf) as app:
            run = await (await app.start(wf)).wait("20s")
    told, broke = (record for record in caplog.records if record.name == "streamline.workflow.telling")
    assert (told.getMessage(), told.levelname, told.colour) == ("hello there", "INFO", "red")  # type: ignore[attr-defined]
    assert (told.run_id, told.workflow, told.step_id, told.attempt) == (run.id, "telling", "talks", 1)  # type: ignore[attr-defined]
    assert (told.filename, told.funcName) == ("test_progress_logs_metrics.py", "talks")
    assert broke.exc_info is not None
    assert [line.message for line in run.logs] == ["hello there", "it broke"]


async def test_a_line_is_kept_whatever_the_logger_lets_through(make_app: Any) -> None:
    wf = workflow()

    @wf.step
    async def talks(ctx: Context[Any]) -> None:
        ctx.log.info("kept")

    logging.getLogger("streamline.workflow.telling").setLevel(logging.CRITICAL)
    try:
        async with make_app(wf) as app:
            run = await (await app.start(wf)).wait("20s")
    finally:
        logging.getLogger("streamline.workflow.telling").setLevel(logging.NOTSET)
    assert [line.message for line in run.logs] == ["kept"]


async def test_what_is_logged_is_formatted_as_logging_does_and_never_fails_a_step(make_app: Any) -> None:
    wf = workflow()

    class Unprintable:
        def __str__(self) -> str:
            raise KeyError("unprintable")

        __repr__ = __str__

    @wf.step(max_attempts=1)
    async def talks(ctx: Context[Any]) -> None:
        ctx.log.info("%(a)s and %(b)s", {"a": 1, "b": 2})
        ctx.log.info("100 %")
        ctx.log.info("lone \ud800 surrogate")
        logging.raiseExceptions = False
        try:
            ctx.log.info("%s", Unprintable())
            ctx.log.info("too few %s %s", 1)  # noqa: PLE1206 - that is the point
        finally:
            logging.raiseExceptions = True

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.status == "done", run.error
    assert [line.message for line in run.logs][:3] == ["1 and 2", "100 %", "lone ? surrogate"]
    assert len(run.logs) == 5


async def test_a_line_that_is_too_long_is_cut(make_app: Any) -> None:
    wf = workflow()

    @wf.step
    async def talks(ctx: Context[Any]) -> None:
        ctx.log.info("x" * 1_000_000)

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert 100 <= len(run.logs[0].message) <= 10_000
