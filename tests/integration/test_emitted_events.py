"""Events of the user's: in the run's own record, once, however often the handler is entered."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamline import Context, RetryPolicy, Workflow
from streamline.errors import InvalidKey, NonDeterministicStep
from tests.waiting import eventually


def workflow() -> Workflow[Any, Any, Any]:
    return Workflow("emitting", retry=RetryPolicy(max_attempts=3, delay=0))


def stored_events(run: Any, name: str) -> list[Any]:
    return [event for event in run["events"] if event["type"] == name]


async def test_an_event_is_stored_once_over_re_entry_and_retry(make_app: Any, runs: Any) -> None:
    wf, entered = workflow(), list[int]()

    @wf.step
    async def tells(ctx: Context[Any]) -> None:
        entered.append(ctx.attempt)
        await ctx.emit("order.shipped", {"parcel": 7})
        await ctx.sleep(0.01)
        if ctx.attempt == 1:
            raise ValueError("once")

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert (run.status, entered) == ("done", [1, 1, 2])
    (told,) = stored_events(await runs.find_one({}), "order.shipped")
    assert (told["step"], told["attempt"], told["payload"]) == ("tells", 1, {"parcel": 7})


async def test_observers_and_listeners_are_told_of_it_in_order(make_app: Any) -> None:
    wf, heard = workflow(), list[Any]()

    @wf.step
    async def tells(ctx: Context[Any]) -> None:
        for n in range(3):
            await ctx.emit("count", n)

    async with make_app(wf) as app:
        app.on("count", lambda event: heard.append(event.data["payload"]))
        handle = await app.start(wf)
        events = [event async for event in handle.events()]
    assert [event.data["payload"] for event in events if event.type == "count"] == [0, 1, 2]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert heard == [0, 1, 2]


async def test_an_event_is_stored_before_the_line_after_it_is_reached(make_app: Any, runs: Any) -> None:
    wf = workflow()

    @wf.step
    async def tells(ctx: Context[Any]) -> int:
        await ctx.emit("said")
        return len(stored_events(await runs.find_one({"_id": ctx.run_id}), "said"))

    async with make_app(wf) as app:
        assert await app.run(wf, timeout="20s") == 1


async def test_branches_may_emit_at_the_same_time(make_app: Any, runs: Any) -> None:
    wf = workflow()

    @wf.step
    async def tells(ctx: Context[Any]) -> None:
        async def item(value: int, index: int) -> None:
            await ctx.emit("item", value)
            await ctx.sleep(0.01)
            await ctx.emit("rested", value)

        await ctx.each("items", range(10), item)

    async with make_app(wf) as app:
        await app.run(wf, timeout="20s")
    run = await runs.find_one({})
    for name in ("item", "rested"):
        assert sorted(event["payload"] for event in stored_events(run, name)) == list(range(10))


async def test_another_event_at_the_same_place_is_found_out(make_app: Any) -> None:
    wf, names = workflow(), iter(["first", "second"])

    @wf.step
    async def tells(ctx: Context[Any]) -> None:
        await ctx.emit(next(names))
        await ctx.sleep(0.01)

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert (run.status, run.error.type) == ("failed", NonDeterministicStep.__name__)


@pytest.mark.parametrize("name", ["", 7, None, "run.done", "step.failed"])
async def test_an_event_has_a_name_that_is_not_the_engines(make_app: Any, runs: Any, name: Any) -> None:
    wf = workflow()

    @wf.step(max_attempts=1)
    async def tells(ctx: Context[Any]) -> None:
        await ctx.emit(name)

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert (run.status, run.error.type) == ("failed", InvalidKey.__name__)


async def test_what_events_carry_is_bounded(make_app: Any) -> None:
    wf = workflow()

    @wf.step(max_attempts=1)
    async def shouts(ctx: Context[Any]) -> None:
        for _ in range(12):
            await ctx.emit("shout", "x" * 2_000_000)

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert (run.status, run.error.code) == ("failed", "payload.too_large")


async def test_a_listener_that_raises_changes_nothing(make_app: Any, caplog: pytest.LogCaptureFixture) -> None:
    wf, gate = workflow(), asyncio.Event()

    @wf.step
    async def tells(ctx: Context[Any]) -> str:
        await ctx.emit("said")
        return "done"

    def harmful(event: Any) -> None:
        gate.set()
        raise ValueError("listener")

    async with make_app(wf) as app:
        app.on("said", harmful)
        assert await app.run(wf, timeout="20s") == "done"
        await eventually(gate.is_set)
