"""What happens to a run is recorded in order, and observers see all of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamline import Context, NonRetriableError, RetryPolicy, Workflow
from streamline.errors import InvalidQuery, RunNotFound, StreamlineError
from tests.waiting import eventually

CREATED = ["run.created", "step.started"]


def three_steps() -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow("three", retry=RetryPolicy(max_attempts=2, delay=0))

    @wf.step
    async def first(ctx: Context[Any]) -> None:
        if ctx.attempt == 1:
            raise ValueError("once")

    @wf.step(skip_if=lambda ctx: True)
    async def second(ctx: Context[Any]) -> None: ...

    @wf.step
    async def third(ctx: Context[Any]) -> None:
        await ctx.sleep(0.01)
        if ctx.input == "fail":
            raise NonRetriableError("no")

    return wf


async def types(handle: Any, after: int = 0) -> list[str]:
    return [event.type async for event in handle.events(after=after)]


EXPECTED = [
    *CREATED,
    "step.retrying",
    "step.started",
    "step.done",
    "step.started",
    "step.skipped",
    "step.started",
    "run.waiting",
    "step.resumed",
]


@pytest.mark.parametrize(
    ("given", "end"),
    [(None, ["step.done", "run.done"]), ("fail", ["step.failed", "run.failed"])],
    ids=["done", "failed"],
)
async def test_events_tell_the_story_of_a_run(make_app: Any, given: Any, end: list[str]) -> None:
    wf = three_steps()
    async with make_app(wf) as app:
        handle = await app.start(wf, given)
        run = await handle.wait("20s")
        events = [event async for event in handle.events()]
    assert [event.type for event in events] == EXPECTED + end
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.at for event in events] == sorted(event.at for event in events)
    assert {event.run_id for event in events} == {run.id}
    of_steps = [(event.step, event.attempt) for event in events if event.type == "step.started"]
    assert of_steps == [("first", 1), ("first", 2), ("second", 1), ("third", 1)]
    assert events[2].data["error"]["message"] == "once"
    assert events[-1].at == run.ended_at
    assert events[0].at == run.created_at


async def test_an_observer_sees_events_as_they_come_and_ends_with_the_run(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("gated")
    gate = asyncio.Event()
    seen: list[str] = []

    @wf.step
    async def wait(ctx: Context[Any]) -> None:
        await gate.wait()

    async with make_app(wf) as app:
        handle = await app.start(wf)

        async def observe() -> None:
            async for event in handle.events():
                seen.append(event.type)

        observers = [asyncio.ensure_future(observe()) for _ in range(2)]
        await eventually(lambda: seen == CREATED * 2 or sorted(seen) == sorted(CREATED * 2))
        gate.set()
        await asyncio.wait_for(asyncio.gather(*observers), 10)
    assert sorted(seen) == sorted([*CREATED, "step.done", "run.done"] * 2)


async def test_a_late_observer_sees_everything(make_app: Any) -> None:
    wf = three_steps()
    async with make_app(wf) as app:
        handle = await app.start(wf)
        await handle.wait("20s")
    async with make_app(worker=False) as later:
        assert await types(later.handle(handle.id)) == [*EXPECTED, "step.done", "run.done"]


@pytest.mark.parametrize("after", [0, 1, 5, 11, 12, 99])
async def test_events_can_be_had_from_a_number_on(make_app: Any, after: int) -> None:
    wf = three_steps()
    async with make_app(wf) as app:
        handle = await app.start(wf)
        await handle.wait("20s")
        assert await types(handle, after) == [*EXPECTED, "step.done", "run.done"][after:]


async def test_events_of_a_run_that_does_not_exist(make_app: Any) -> None:
    async with make_app() as app:
        with pytest.raises(RunNotFound):
            await types(app.handle("nobody"))


async def test_an_observer_in_another_app_sees_them_too(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("gated")
    gate = asyncio.Event()
    seen: list[str] = []

    @wf.step
    async def wait(ctx: Context[Any]) -> None:
        await gate.wait()

    async with make_app(wf) as app, make_app(worker=False) as other:
        handle = await app.start(wf)

        async def observe() -> None:
            async for event in other.handle(handle.id).events():
                seen.append(event.type)

        observer = asyncio.ensure_future(observe())
        await eventually(lambda: seen == CREATED)
        gate.set()
        await asyncio.wait_for(observer, 10)
    assert seen == [*CREATED, "step.done", "run.done"]


async def test_only_the_latest_events_are_kept_and_their_numbers_go_on(make_app: Any, runs: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("long")
    for i in range(80):
        wf.step(f"s{i}")(_nothing)
    async with make_app(wf) as app:
        handle = await app.start(wf)
        await handle.wait("30s")
        events = [event async for event in handle.events()]
        assert len((await runs.find_one({"_id": handle.id}))["events"]) == 100
    assert [event.seq for event in events] == list(range(63, 163))
    assert events[-1].type == "run.done"


async def _nothing(ctx: Context[Any]) -> None: ...


async def test_a_listener_hears_what_its_glob_matches(make_app: Any) -> None:
    wf = three_steps()
    heard: dict[str, list[str]] = {"*": [], "run.*": [], "step.failed": [], "*.done": [], "nothing": []}
    async with make_app(wf) as app:
        for glob, types_heard in heard.items():
            app.on(glob, lambda event, types_heard=types_heard: types_heard.append(event.type))
        handle = await app.start(wf, "fail")
        await handle.wait("20s")
        await eventually(lambda: "run.failed" in heard["*"])
    assert heard["*"] == [*EXPECTED, "step.failed", "run.failed"]
    assert heard["run.*"] == ["run.created", "run.waiting", "run.failed"]
    assert heard["step.failed"] == ["step.failed"]
    assert heard["*.done"] == ["step.done"]
    assert heard["nothing"] == []


async def test_a_listener_hears_of_cancelling_pausing_and_retrying(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("idle")
    wf.step("only")(_nothing)
    heard = []
    async with make_app(wf, worker=False) as app:
        app.on("run.*", lambda event: heard.append((event.type, dict(event.data))))
        handle = await app.start(wf)
        await handle.pause(reason="wait")
        await handle.unpause()
        await handle.cancel(reason="enough", by="ann")
        await handle.retry()
    assert heard == [
        ("run.created", {}),
        ("run.paused", {"reason": "wait"}),
        ("run.unpaused", {}),
        ("run.cancelled", {"reason": "enough", "by": "ann"}),
        ("run.retried", {}),
    ]


async def test_a_listener_is_told_after_the_event_is_stored(make_app: Any) -> None:
    wf = three_steps()
    stored = []
    async with make_app(wf) as app:

        async def look(event: Any) -> None:
            run = await app.get(event.run_id)
            stored.append((run.status, run.ended_at is not None))

        app.on("run.done", look)
        await app.run(wf, timeout="20s")
        await eventually(lambda: stored)
    assert stored == [("done", True)]


async def test_listeners_that_fail_disturb_nobody(make_app: Any, caplog: Any) -> None:
    wf = three_steps()
    heard = []

    def broken(event: Any) -> None:
        raise ValueError("broken listener")

    async def broken_later(event: Any) -> None:
        await asyncio.sleep(0)
        raise ValueError("broken later")

    async with make_app(wf) as app:
        app.on("*", broken)
        app.on("*", broken_later)
        app.on("run.done", lambda event: heard.append(event.type))
        run = await (await app.start(wf)).wait("20s")
        await eventually(lambda: heard)
    assert run.status == "done"
    assert "broken listener" in caplog.text
    assert "broken later" in caplog.text


@pytest.mark.parametrize("error", [asyncio.CancelledError(), GeneratorExit(), SystemExit(1)], ids=repr)
async def test_whatever_a_listener_raises_the_run_goes_on(make_app: Any, error: BaseException) -> None:
    wf = three_steps()

    def broken(event: Any) -> None:
        raise error

    async def broken_later(event: Any) -> None:
        await asyncio.sleep(0)
        raise error

    async with make_app(wf) as app:
        app.on("step.*", broken)
        if not isinstance(error, SystemExit):  # that ends a task's loop, whoever wrote it
            app.on("step.*", broken_later)
        run = await (await app.start(wf)).wait("5s")
    assert run.status == "done"


@pytest.mark.parametrize(("glob", "callback"), [(5, print), (None, print), ("*", 5), ("*", None)], ids=repr)
async def test_a_listener_that_cannot_work_is_refused(make_app: Any, glob: Any, callback: Any) -> None:
    wf = three_steps()
    async with make_app(wf) as app:
        with pytest.raises(StreamlineError):
            app.on(glob, callback)
        assert (await (await app.start(wf)).wait("5s")).status == "done"


@pytest.mark.parametrize("after", ["3", None, 1.5, True], ids=repr)
async def test_a_number_that_makes_no_sense_is_refused(make_app: Any, after: Any) -> None:
    wf = three_steps()
    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        with pytest.raises(InvalidQuery) as caught:
            await types(handle, after)
        assert caught.value.field == "after"


async def test_a_listener_can_be_ended_even_twice(make_app: Any) -> None:
    wf = three_steps()
    heard = []
    async with make_app(wf) as app:
        end = app.on("run.created", lambda event: heard.append(event.type))
        await app.run(wf, timeout="20s")
        end()
        end()
        await app.run(wf, timeout="20s")
    assert heard == ["run.created"]


async def test_a_queued_and_a_claimed_start_tell_of_themselves_alike(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("idle")
    wf.step("only")(_nothing)
    heard = []
    async with make_app(wf) as app:
        app.on("*", lambda event: heard.append((event.type, event.seq)))
        await app.run(wf, timeout="20s")
        first, heard[:] = list(heard), []
        await app.run(wf, delay="10ms", timeout="20s")
        assert heard == first
        heard.clear()
        (handle,) = await app.start_many(wf, [None])
        await handle.result("20s")
        await eventually(lambda: len(heard) >= 4)
    assert heard == first == [("run.created", 1), ("step.started", 2), ("step.done", 3), ("run.done", 4)]
