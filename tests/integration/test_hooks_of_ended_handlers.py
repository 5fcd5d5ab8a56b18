"""Hooks hear the end of every handler that they heard the beginning of, also of one that is ended from outside."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from streamline import Context, RetryPolicy, Workflow
from tests.waiting import eventually, status_of


class Spans:
    """Opens a span for each handler and branch, and closes it."""

    def __init__(self) -> None:
        self.open: list[Any] = []
        self.closed: list[tuple[Any, str]] = []

    def before(self, ctx: Any, branch: str | None) -> None:
        self.open.append((ctx.step_id, ctx.attempt, branch))

    async def after(self, ctx: Any, branch: str | None, output: Any) -> None:
        await asyncio.sleep(0)
        self._close(ctx, branch, "after")

    async def failed(self, ctx: Any, branch: str | None, error: BaseException) -> None:
        await asyncio.sleep(0)
        self._close(ctx, branch, type(error).__name__)

    def waiting(self, ctx: Any, branch: str | None) -> None:
        self._close(ctx, branch, "waiting")

    def _close(self, ctx: Any, branch: str | None, how: str) -> None:
        self.open.remove((ctx.step_id, ctx.attempt, branch))
        self.closed.append(((ctx.step_id, ctx.attempt, branch), how))


def workflow(spans: Any) -> Workflow[Any, Any, Any]:
    return Workflow("watched", hooks=[spans], retry=RetryPolicy(max_attempts=2, delay=0))


@pytest.mark.parametrize("threaded", [False, True], ids=["coroutine", "thread"])
async def test_of_an_attempt_that_times_out(make_app: Any, *, threaded: bool) -> None:
    spans = Spans()
    wf = workflow(spans)

    async def hangs(ctx: Context[Any]) -> None:
        await asyncio.Event().wait()

    def hangs_in_a_thread(ctx: Context[Any]) -> None:
        while not ctx.cancelled:
            threading.Event().wait(0.005)

    wf.step("hangs", timeout="50ms")(hangs_in_a_thread if threaded else hangs)
    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert (run.error.code, run.steps[0].attempt) == ("step.timeout", 2)
    assert spans.closed == [(("hangs", n, None), "CancelledError") for n in (1, 2)]
    assert not spans.open


async def test_of_a_run_that_is_cancelled(make_app: Any) -> None:
    spans = Spans()
    wf = workflow(spans)

    @wf.step
    async def hangs(ctx: Context[Any]) -> None:
        await asyncio.Event().wait()

    async with make_app(wf) as app:
        handle = await app.start(wf)
        await eventually(lambda: spans.open)
        await handle.cancel()
        await status_of(handle, "cancelled")
        await eventually(lambda: not spans.open)
    assert spans.closed == [(("hangs", 1, None), "CancelledError")]


async def test_of_a_handler_that_jumps(make_app: Any) -> None:
    spans = Spans()
    wf = workflow(spans)

    @wf.step
    async def first(ctx: Context[Any]) -> None:
        ctx.goto("last")

    @wf.step
    async def middle(ctx: Context[Any]) -> None: ...

    @wf.step
    async def last(ctx: Context[Any]) -> None: ...

    async with make_app(wf) as app:
        await app.run(wf, timeout="20s")
    assert spans.closed == [(("first", 1, None), "after"), (("last", 1, None), "after")]


async def test_of_branches_that_lose_a_race(make_app: Any) -> None:
    spans = Spans()
    wf = workflow(spans)

    @wf.step
    async def races(ctx: Context[Any]) -> dict[str, Any]:
        async def fast() -> str:
            await asyncio.sleep(0.01)
            return "first"

        async def slow() -> None:
            await asyncio.Event().wait()

        async def sleeps() -> None:
            await ctx.sleep("1h")

        return await ctx.gather("race", {"fast": fast, "slow": slow, "sleeps": sleeps}, mode="race")

    async with make_app(wf) as app:
        assert await app.run(wf, timeout="20s") == {"fast": "first"}
    assert not spans.open
    ends = {span[2]: how for span, how in spans.closed}
    assert ends == {"race/fast": "after", "race/slow": "CancelledError", "race/sleeps": "CancelledError", None: "after"}


async def test_a_hook_that_raises_at_a_timeout_changes_nothing(make_app: Any) -> None:
    class Harmful:
        async def failed(self, ctx: Any, branch: str | None, error: BaseException) -> None:
            raise ValueError("harmful")

    wf = workflow(Harmful())

    @wf.step(timeout="50ms")
    async def hangs(ctx: Context[Any]) -> str:
        if ctx.attempt == 1:
            await asyncio.Event().wait()
        return "done"

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert (run.status, run.output, run.steps[0].attempt) == ("done", "done", 2)
