"""Spans of starts, drives and steps: where they belong, what they tell, and that each ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import BaseModel
from pymongo.errors import DuplicateKeyError

from streamline import Context, NonRetriableError, OnCompletion, OnEvent, RetryPolicy, Worker, Workflow
from streamline.errors import InvalidInput
from tests.integration.exported import Spans, id_of, parent_of, trace_of, tracing
from tests.waiting import eventually, status_of

SECRET = "4929-1234-5678-9010"
PASSWORD = "hunter2"
AT_ONCE = RetryPolicy(max_attempts=2, delay=0)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    with tracing(monkeypatch) as spans:
        yield spans
        assert not spans.open, "spans that never ended"
        assert spans.started == len(spans.ended)


def hello() -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow("hello")

    @wf.step
    async def greet(ctx: Context[Any]) -> str:
        return f"hello {ctx.input}"

    return wf


def attributes(span: Any) -> dict[str, Any]:
    return {name.removeprefix("streamline."): value for name, value in span.attributes.items()}


async def test_a_run_belongs_to_the_trace_of_its_start(make_app: Any, spans: Spans) -> None:
    async with make_app(hello()) as app:
        with trace.get_tracer("shop").start_as_current_span("request") as request:
            run = await app.start("hello", "you")
        await run.result(timeout="20s")
        stored = await run.get()

    start, drive, step = (
        spans.one(f"streamline.{name}") for name in ("start hello", "drive hello", "step hello/greet")
    )
    assert {trace_of(each) for each in (start, drive, step)} == {request.get_span_context().trace_id}
    assert parent_of(start) == request.get_span_context().span_id
    assert (parent_of(drive), parent_of(step)) == (id_of(start), id_of(drive))
    assert (start.kind, drive.kind, step.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER, SpanKind.INTERNAL)
    assert stored.trace["traceparent"].split("-")[2] == f"{id_of(start):016x}"
    assert attributes(step) == {
        "workflow": "hello", "version": "1.0.0", "run_id": run.id, "step": "greet", "attempt": 1, "outcome": "done",
    } | ({"tenant_id": stored.tenant_id} if stored.tenant_id else {})  # fmt: skip
    assert attributes(drive)["status"] == "done"
    assert attributes(drive)["worker"]
    assert (attributes(start)["run_id"], attributes(start)["created"]) == (run.id, True)


async def test_after_a_wait_comes_a_new_span_in_the_same_trace_linked_to_the_one_before(
    make_app: Any, spans: Spans
) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("sleeper")

    @wf.step
    async def nap(ctx: Context[Any]) -> None:
        await ctx.sleep("100ms")
        await ctx.sleep("100ms")

    async with make_app(wf) as app:
        run = await app.start(wf)
        await run.result(timeout="20s")

    drives, steps = spans.named("streamline.drive sleeper"), spans.named("streamline.step sleeper/nap")
    assert len(drives) == len(steps) == 3
    start = spans.one("streamline.start sleeper")
    assert {trace_of(each) for each in drives} == {trace_of(start)}
    assert {parent_of(each) for each in drives} == {id_of(start)}
    assert [parent_of(each) for each in steps] == [id_of(each) for each in drives]
    assert [[link.context.span_id for link in each.links] for each in drives] == [
        [], [id_of(drives[0])], [id_of(drives[1])],
    ]  # fmt: skip
    assert [attributes(each)["outcome"] for each in steps] == ["waiting", "waiting", "done"]
    assert [attributes(each)["status"] for each in drives] == ["waiting", "waiting", "done"]
    assert all(each.status.status_code is StatusCode.UNSET for each in (*drives, *steps))


async def test_children_belong_to_the_step_that_starts_them(make_app: Any, spans: Spans) -> None:
    child, parent = hello(), Workflow[Any, Any, Any]("parent")

    @parent.step
    async def delegate(ctx: Context[Any]) -> Any:
        return await ctx.start_child(child, "child")

    async with make_app(parent, child) as app:
        assert await app.run(parent, timeout="20s") == "hello child"

    first = spans.named("streamline.step parent/delegate")[0]
    drive = spans.one("streamline.drive hello")
    assert parent_of(drive) == id_of(first)
    assert len({trace_of(each) for each in spans.ended}) == 1


async def test_what_events_and_ends_start_belongs_to_their_trace(make_app: Any, spans: Spans) -> None:
    first: Workflow[Any, Any, Any] = Workflow("first", triggers=[OnEvent("paid")])
    second: Workflow[Any, Any, Any] = Workflow("second", triggers=[OnCompletion("first")])
    for wf in (first, second):
        wf.step("work")(lambda ctx: None)

    async with make_app(first, second) as app:
        with trace.get_tracer("shop").start_as_current_span("request") as request:
            await app.send_event("paid", {})
        await eventually(lambda: spans.named("streamline.drive second"))

    told = [span for span in spans.ended if span.name.endswith((" first", " second"))]
    assert {trace_of(span) for span in told} == {request.get_span_context().trace_id}
    # Several may bring an event to what it starts; all but one find the run there.
    assert {parent_of(each) for each in spans.named("streamline.start first")} == {request.get_span_context().span_id}


async def test_what_a_schedule_starts_begins_a_trace_of_its_own(make_app: Any, spans: Spans) -> None:
    wf = hello()
    with trace.get_tracer("shop").start_as_current_span("boot"):
        async with make_app(wf) as app:
            for name in ("one", "other"):
                await app.schedules.create(name, wf, at=datetime.now(UTC) + timedelta(milliseconds=300))
            await eventually(lambda: len(spans.named("streamline.drive hello")) == 2)
    starts = spans.named("streamline.start hello")
    assert [parent_of(start) for start in starts] == [None, None]
    assert len({trace_of(start) for start in starts}) == 2


async def test_a_run_that_is_taken_over_stays_in_its_trace(make_app: Any, runs: Any, spans: Spans) -> None:
    wf, entered = Workflow[Any, Any, Any]("orphan"), asyncio.Event()

    @wf.step
    async def work(ctx: Context[Any]) -> None:
        entered.set()
        await asyncio.sleep(60 if ctx.attempt == 1 else 0)

    async with make_app(wf, worker=Worker(lease="1s", poll_interval="100ms", cancel_grace="300ms")) as app:
        run = await app.start(wf)
        await entered.wait()
        expired = datetime.now(UTC) - timedelta(seconds=1)
        await runs.update_one({"_id": run.id}, {"$set": {"lease.token": "another's", "lease.until": expired}})
        await run.result(timeout="20s")
        first, second = await eventually(lambda: two(spans.named("streamline.drive orphan")))
    start = spans.one("streamline.start orphan")
    assert parent_of(first) == parent_of(second) == id_of(start)
    assert (attributes(first)["status"], attributes(second)["status"]) == ("lost", "done")
    assert not second.links, "the stretch before has not left word"


def two(found: list[Any]) -> list[Any]:
    return found if len(found) == 2 else []


async def test_forks_and_starts_of_many_belong_to_whoever_makes_them(make_app: Any, spans: Spans) -> None:
    wf = hello()
    async with make_app(wf) as app:
        first = await app.start(wf)
        await first.result(timeout="20s")
        fork = await app.fork(first.id, "greet")
        many = await app.start_many(wf, [1, 2])
        for run in (fork, *many):
            await run.result(timeout="20s")
    starts, drives = spans.named("streamline.start hello"), spans.named("streamline.drive hello")
    assert [attributes(start).get("runs") for start in starts] == [None, None, 2]
    assert {attributes(drive)["run_id"]: parent_of(drive) for drive in drives} == {
        first.id: id_of(starts[0]), fork.id: id_of(starts[1]),
        many[0].id: id_of(starts[2]), many[1].id: id_of(starts[2]),
    }  # fmt: skip


async def test_spans_of_the_handlers_own_lie_within_the_step(make_app: Any, spans: Spans) -> None:
    own, wf = trace.get_tracer("own"), Workflow[Any, Any, Any]("nested")

    @wf.step
    async def in_the_loop(ctx: Context[Any]) -> None:
        with own.start_as_current_span("query"):
            await asyncio.sleep(0)

    @wf.step
    def in_a_thread(ctx: Context[Any]) -> None:
        with own.start_as_current_span("compute"):
            assert threading.current_thread() is not threading.main_thread()

    @wf.step
    async def calling(ctx: Context[Any]) -> None:
        def fetch() -> None:
            own.start_span("fetch").end()

        await ctx.call("get/it", fetch)

    async with make_app(wf) as app:
        await app.run(wf, timeout="20s")

    for inner, outer in (("query", "in_the_loop"), ("compute", "in_a_thread")):
        assert parent_of(spans.one(inner)) == id_of(spans.one(f"streamline.step nested/{outer}"))
    call = spans.one("streamline.call nested/calling")
    assert parent_of(call) == id_of(spans.one("streamline.step nested/calling"))
    assert parent_of(spans.one("fetch")) == id_of(call)


async def test_failed_attempts_are_recorded_with_what_went_wrong_but_no_values(make_app: Any, spans: Spans) -> None:
    class Card(BaseModel):
        number: int

    wf: Workflow[Any, Any, Any] = Workflow("failing", input=dict[str, str], state=dict[str, str])

    @wf.step(retry=AT_ONCE)
    async def validate(ctx: Context[Any]) -> str:
        ctx.log.info("working")
        if ctx.attempt == 1:
            Card.model_validate(ctx.input)
        return SECRET

    @wf.step(retry=AT_ONCE)
    async def insert(ctx: Context[Any]) -> str:
        if ctx.attempt == 1:
            raise DuplicateKeyError(f"E11000 dup key: {{ card: {SECRET} }}", 11000, {"keyValue": SECRET})
        return await ctx.call("card", lambda: SECRET)

    @wf.step
    async def give_up(ctx: Context[Any]) -> None:
        try:
            raise KeyError(SECRET)
        except KeyError as cause:
            raise NonRetriableError(f"see mongodb://root:{PASSWORD}@db/ for it") from cause

    async with make_app(wf) as app:
        run = await app.start(wf, {"number": SECRET}, metadata={"card": SECRET})
        assert (await run.wait(timeout="20s")).status == "failed"

    failed = [each for each in spans.ended if each.status.status_code is StatusCode.ERROR]
    assert [(each.name, (each.attributes or {})["error.type"]) for each in failed] == [
        ("streamline.step failing/validate", "ValidationError"),
        ("streamline.step failing/insert", "DuplicateKeyError"),
        ("streamline.step failing/give_up", "NonRetriableError"),
        ("streamline.drive failing", "NonRetriableError"),
    ]
    assert [attributes(each)["attempt"] for each in spans.named("streamline.step failing/insert")] == [1, 2]
    event = spans.one("streamline.step failing/give_up").events[0]
    assert event.name == "exception"
    assert event.attributes is not None
    assert event.attributes["exception.message"] == "see mongodb://db/ for it"
    assert "give_up" in str(event.attributes["exception.stacktrace"])
    assert SECRET not in spans.text()
    assert PASSWORD not in spans.text()


async def test_a_start_that_is_refused_is_recorded(make_app: Any, spans: Spans) -> None:
    wf: Workflow[int, Any, Any] = Workflow("typed", input=int)
    wf.step("work")(lambda ctx: None)
    async with make_app(wf) as app:
        with pytest.raises(InvalidInput):
            await app.start("typed", SECRET)
    start = spans.one("streamline.start typed")
    assert start.status.status_code is StatusCode.ERROR
    assert SECRET not in spans.text()


def many_ends() -> Workflow[Any, Any, Any]:
    """A workflow that ends in the way that its input names."""
    wf: Workflow[Any, Any, Any] = Workflow("ends")

    @wf.step(max_attempts=1, timeout="5s", group="both")
    async def beside(ctx: Context[Any]) -> None:
        await ctx.sleep("1ms")

    @wf.step(max_attempts=1, timeout="200ms", group="both")
    async def act(ctx: Context[Any]) -> Any:
        match ctx.input:
            case "fail":
                raise ValueError("as told")
            case "exit":
                raise SystemExit(3)
            case "wait":
                await ctx.wait("for nobody")
            case "slow":
                await asyncio.sleep(60)
        return ctx.input

    @wf.step(max_attempts=1, skip_if=lambda ctx: ctx.input == "skip")
    def in_thread(ctx: Context[Any]) -> Any:
        if ctx.input == "thread":
            raise ValueError("as told")
        return ctx.input

    @wf.step(max_attempts=1)
    async def after(ctx: Context[Any]) -> Any:
        match ctx.input:
            case "jump" if ctx.outputs.get("after") is None and not ctx.state:
                ctx.state = {"jumped": True}
                ctx.goto("after")
            case "held" | "lost" | "stopped":
                await asyncio.sleep(60)
            case "deaf":
                for _ in range(40):
                    try:
                        await asyncio.sleep(0.1)
                    except asyncio.CancelledError:
                        continue
            case "undo":
                raise ValueError("as told")
        return ctx.input

    @after.compensate
    async def undo(ctx: Context[Any], output: Any) -> None: ...

    @in_thread.compensate
    def undo_thread(ctx: Context[Any], output: Any) -> None: ...

    return wf


ENDS = {
    "done": "done", "fail": "failed", "exit": "failed", "slow": "failed", "thread": "failed", "skip": "done",
    "jump": "done", "undo": "compensated",
}  # fmt: skip


async def test_every_span_ends_in_whatever_way_the_run_is_left(make_app: Any, runs: Any, spans: Spans) -> None:
    worker = Worker(lease="2s", poll_interval="200ms", drain=0, cancel_grace="300ms")
    wf = many_ends()
    async with make_app(wf, worker=worker) as app:
        ended = {how: await app.start(wf, how) for how in ENDS}
        waiting, held, lost, deaf, stopped = [
            await app.start(wf, how) for how in ("wait", "held", "lost", "deaf", "stopped")
        ]
        for how, status in ENDS.items():
            assert (await ended[how].wait(timeout="20s")).status == status, how
        await status_of(waiting, "waiting", "failed")
        for run in (held, lost, deaf, stopped):
            await eventually(lambda run=run: is_at_work(runs, run.id, "after"))
        await app.cancel(held.id)
        await app.cancel(deaf.id)
        await runs.update_one({"_id": lost.id}, {"$set": {"lease.token": "another's"}, "$inc": {"rev": 1}})
        told = ["cancelled", "lost"]
        await eventually(lambda: {attributes(s).get("outcome") for s in of_step(spans, "after")} >= set(told))

    assert not spans.open
    said = {attributes(s)["run_id"]: attributes(s)["outcome"] for s in of_step(spans, "after")}
    assert said[held.id] == "cancelled"
    assert said[lost.id] == "lost"
    assert said[deaf.id] == "cancelled"
    assert said[stopped.id] == "interrupted"
    steps = [attributes(s)["outcome"] for s in spans.ended if ".step " in s.name]
    assert {"done", "failed", "skipped", "jumped", "waiting", "interrupted", "cancelled", "lost"} == set(steps)
    assert spans.named("streamline.compensation ends/in_thread")
    quiet = [s for s in spans.ended if attributes(s).get("outcome") in ("lost", "cancelled", "interrupted", "waiting")]
    assert all(s.status.status_code is StatusCode.UNSET for s in quiet), "to be suspended or stopped is no error"


def of_step(spans: Spans, step: str) -> list[Any]:
    return spans.named(f"streamline.step ends/{step}")


async def is_at_work(runs: Any, run_id: str, step: str) -> bool:
    run = await runs.find_one({"_id": run_id})
    return bool(run["steps"][run["cursor"]]["id"] == step and "lease" in run)


async def test_nothing_is_stored_or_told_where_nobody_has_configured_traces(
    make_app: Any, runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wf = hello()
    async with make_app(wf) as app:
        run = await app.start(wf)
        await run.result(timeout="20s")
        assert (await run.get()).trace is None
        assert "trace" not in await runs.find_one({"_id": run.id})

        with tracing(monkeypatch) as spans:  # a provider that comes later counts from then on
            with_traces = await app.start(wf)
            await with_traces.result(timeout="20s")
            await eventually(lambda: spans.named("streamline.drive hello"))
        assert (await with_traces.get()).trace["traceparent"]

        again = await app.start(wf)
        await again.result(timeout="20s")
        assert (await again.get()).trace is None


async def test_what_is_not_sampled_at_its_start_is_not_sampled_later(
    make_app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wf = hello()
    with tracing(monkeypatch, ParentBased(root=ALWAYS_OFF)) as spans:
        async with make_app(wf) as app:
            run = await app.start(wf)
            await run.result(timeout="20s")
            assert (await run.get()).trace["traceparent"].endswith(("-00", "-02")), "its flags"
    assert not spans.started


class Failing(SpanProcessor):
    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if ".step" in span.name:
            raise RuntimeError("on start")

    def on_end(self, span: Any) -> None:
        raise RuntimeError("on end")


async def test_what_spans_are_handed_to_cannot_harm_a_run(
    make_app: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wf = hello()
    with tracing(monkeypatch, processor=Failing()):
        async with make_app(wf) as app:
            assert await app.run(wf, "all the same", timeout="20s") == "hello all the same"
    assert caplog.text.count("a span could not be told of: RuntimeError") == 3


async def test_what_is_about_the_caller_stays_there(make_app: Any, spans: Spans) -> None:
    wf, seen = Workflow[Any, Any, Any]("alone"), list[Any]()
    wf.step("look")(lambda ctx: seen.append(baggage.get_baggage("who")))
    async with make_app(wf) as app:
        token = context.attach(baggage.set_baggage("who", "ann"))
        await app.run(wf, timeout="20s")
        context.detach(token)
    assert seen == [None]


DAMAGED = ("text", 7, [], {"traceparent": 5}, {"traceparent": "00-xyz-1-01", "last": {}}, None)


async def test_a_damaged_trace_harms_nothing(make_app: Any, runs: Any, spans: Spans) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("sleeper")

    @wf.step
    async def nap(ctx: Context[Any]) -> str:
        await ctx.sleep("100ms")
        return "rested"

    async with make_app(wf) as app:
        started = [await app.start(wf, delay=timedelta(milliseconds=500)) for _ in DAMAGED]
        for run, stored in zip(started, DAMAGED, strict=True):
            await runs.update_one({"_id": run.id}, {"$set": {"trace": stored}})
        for run in started:
            assert await run.result(timeout="20s") == "rested"
        await eventually(lambda: len(spans.named("streamline.drive sleeper")) == 2 * len(DAMAGED))
