"""Frames of a stream: told to listeners of this process, numbered, never stored."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from streamline import Context, Event, RetryPolicy, Workflow
from tests.waiting import eventually, status_of


def workflow(**options: Any) -> Workflow[Any, Any, Any]:
    return Workflow("streaming", retry=RetryPolicy(max_attempts=2, delay=0), **options)


def frames(heard: list[Event]) -> list[Any]:
    """What was told; each frame has a larger number than the one before it."""
    numbers = [event.data["n"] for event in heard]
    assert numbers == sorted(set(numbers))
    return [event.data["frame"] for event in heard]


async def test_frames_are_told_in_order_with_who_and_where_and_are_not_stored(make_app: Any, runs: Any) -> None:
    wf, heard = workflow(), list[Event]()

    @wf.step
    async def speaks(ctx: Context[Any]) -> None:
        for word in ("all", "in", "order"):
            ctx.stream({"word": word})

    async with make_app(wf) as app:
        app.on("step.stream", heard.append)
        run = await (await app.start(wf)).wait("20s")
    assert frames(heard) == [{"word": "all"}, {"word": "in"}, {"word": "order"}]
    assert {(event.run_id, event.step, event.attempt) for event in heard} == {(run.id, "speaks", 1)}
    assert "order" not in str(await runs.find_one({}))


async def test_a_frame_may_be_what_could_not_be_stored(make_app: Any) -> None:
    wf, heard, token = workflow(), list[Event](), object()

    @wf.step
    async def speaks(ctx: Context[Any]) -> None:
        ctx.stream(token)

    async with make_app(wf) as app:
        app.on("step.*", lambda event: heard.append(event) if event.type == "step.stream" else None)
        await app.run(wf, timeout="20s")
    assert frames(heard) == [token]


async def test_numbers_of_frames_grow_when_the_handler_is_entered_again(make_app: Any) -> None:
    wf, heard = workflow(), list[Event]()

    @wf.step
    async def speaks(ctx: Context[Any]) -> None:
        ctx.stream("one")
        await ctx.sleep(0.01)
        ctx.stream("two")
        await ctx.sleep(0.01)
        ctx.stream("three")

    async with make_app(wf) as app:
        app.on("step.stream", heard.append)
        await app.run(wf, timeout="20s")
    # Frames are not remembered: those before a wait come again, under numbers of their own.
    assert frames(heard) == ["one", "one", "two", "one", "two", "three"]


async def test_frames_of_branches_share_one_numbering(make_app: Any) -> None:
    wf, heard = workflow(), list[Event]()

    @wf.step
    async def speaks(ctx: Context[Any]) -> None:
        async def item(value: int, index: int) -> None:
            for _ in range(3):
                ctx.stream(value)
                await asyncio.sleep(0)

        await ctx.each("items", range(4), item)

    async with make_app(wf) as app:
        app.on("step.stream", heard.append)
        await app.run(wf, timeout="20s")
    assert sorted(frames(heard)) == sorted(list(range(4)) * 3)


async def test_frames_are_dropped_once_the_run_is_cancelled(make_app: Any) -> None:
    wf, heard, ended = workflow(), list[Event](), asyncio.Event()

    @wf.step
    async def speaks(ctx: Context[Any]) -> None:
        ctx.stream("before")
        try:
            await asyncio.Event().wait()
        finally:
            ctx.stream("after")
            ended.set()

    async with make_app(wf) as app:
        app.on("step.stream", heard.append)
        handle = await app.start(wf)
        await eventually(lambda: heard)
        await handle.cancel()
        await asyncio.wait_for(ended.wait(), 10)
        await status_of(handle, "cancelled")
    assert frames(heard) == ["before"]


async def test_frames_of_an_attempt_that_timed_out_are_dropped(make_app: Any) -> None:
    wf, heard = workflow(), list[Event]()

    @wf.step(timeout="50ms")
    def speaks(ctx: Context[Any]) -> None:
        if ctx.attempt == 2:
            ctx.stream("again")
            return
        ctx.stream("before")
        while not ctx.cancelled:
            threading.Event().wait(0.005)
        ctx.stream("after")

    async with make_app(wf) as app:
        app.on("step.stream", heard.append)
        await app.run(wf, timeout="20s")
        await eventually(lambda: len(heard) == 2)
    assert [(event.attempt, event.data["frame"]) for event in heard] == [(1, "before"), (2, "again")]


async def test_a_context_that_outlives_its_attempt_tells_nothing(make_app: Any) -> None:
    wf, heard, kept = workflow(), list[Event](), list[Any]()

    @wf.step
    async def speaks(ctx: Context[Any]) -> None:
        kept.append(ctx)
        ctx.stream("in time")

    async with make_app(wf) as app:
        app.on("step.stream", heard.append)
        await app.run(wf, timeout="20s")
        kept[0].stream("late")
    assert frames(heard) == ["in time"]


async def test_a_listener_that_raises_harms_neither_the_run_nor_other_listeners(make_app: Any) -> None:
    wf, heard = workflow(), list[Event]()

    def harmful(event: Event) -> None:
        raise ValueError("listener")

    @wf.step
    async def speaks(ctx: Context[Any]) -> str:
        ctx.stream("one")
        ctx.stream("two")
        return "done"

    async with make_app(wf) as app:
        app.on("step.stream", harmful)
        end = app.on("step.stream", heard.append)
        assert await app.run(wf, timeout="20s") == "done"
        end()
        assert await app.run(wf, timeout="20s") == "done"
    assert frames(heard) == ["one", "two"]


async def test_frames_of_a_thread_reach_listeners_in_the_loop(make_app: Any) -> None:
    wf, heard, heard_later = workflow(), list[Event](), list[Event]()
    in_loop: list[bool] = []

    def listen(event: Event) -> None:
        heard.append(event)
        in_loop.append(threading.current_thread() is threading.main_thread())

    async def listen_later(event: Event) -> None:
        await asyncio.sleep(0)
        heard_later.append(event)

    @wf.step
    def speaks(ctx: Context[Any]) -> str:
        for n in range(20):
            ctx.stream(n)
        return "done"

    async with make_app(wf) as app:
        app.on("step.stream", listen)
        app.on("step.stream", listen_later)
        run = await (await app.start(wf)).wait("20s")
        assert run.status == "done", run.error
        await eventually(lambda: len(heard_later) == 20)
    assert frames(heard) == frames(heard_later) == list(range(20))
    assert all(in_loop)
