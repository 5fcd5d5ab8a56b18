"""Log records tell which run they are about, in fields; and no record tells a value of a run."""

from __future__ import annotations

import asyncio
import io
import logging
from typing import Any

import pytest
from pydantic import BaseModel

from streamline import Context, Hooks, NonRetriableError, OnEvent, RunFields, Tenancy, Worker, Workflow
from streamline.telemetry.run_fields import FIELDS
from tests.waiting import eventually, status_of

SECRET = "4929-1234-5678-9010"


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def saying(self, text: str) -> list[logging.LogRecord]:
        return [record for record in self.records if text in record.getMessage()]


@pytest.fixture
def kept() -> Any:
    root, handler = logging.getLogger(), Kept()
    handler.addFilter(RunFields())
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    logging.getLogger("pymongo").setLevel(logging.WARNING)  # the driver's own records quote commands
    yield handler
    root.removeHandler(handler)
    root.setLevel(before)
    logging.getLogger("pymongo").setLevel(logging.NOTSET)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in FIELDS}


async def test_records_of_a_handler_tell_whose_they_are(make_app: Any, kept: Kept) -> None:
    own = logging.getLogger("shop.cards")
    wf: Workflow[Any, Any, Any] = Workflow("logging", version="2.1.0")

    @wf.step
    async def talk(ctx: Context[Any]) -> None:
        own.info("in the loop")
        await asyncio.create_task(later())
        ctx.log.info("by ctx.log", extra={"amount": 5})
        await ctx.call("thread", lambda: own.info("in a call"))

    async def later() -> None:
        own.info("in a task")

    @wf.step(max_attempts=2)
    def shout(ctx: Context[Any]) -> None:
        own.info("in a thread", extra={"step": "my own word"})

    async with make_app(wf, tenancy=Tenancy(required=True)) as app:
        run = await app.tenant("acme").start(wf)
        worker = (await app.tenant("acme").get(run.id)).worker
        await run.result(timeout="20s")
        own.info("outside")

    told = {"run_id": run.id, "workflow": "logging", "version": "2.1.0", "attempt": 1, "tenant_id": "acme"}
    for text in ("in the loop", "in a task", "by ctx.log", "in a call"):
        (record,) = kept.saying(text)
        found = fields_of(record)
        assert found.pop("worker") == worker or worker is None
        assert found == told | {"step": "talk"}, text
    assert kept.saying("by ctx.log")[0].amount == 5  # type: ignore[attr-defined]
    assert fields_of(kept.saying("in a thread")[0])["step"] == "my own word"
    assert fields_of(kept.saying("in a thread")[0])["run_id"] == run.id
    assert set(fields_of(kept.saying("outside")[0]).values()) == {None}


async def test_records_of_the_engine_tell_which_run_they_are_about(make_app: Any, runs: Any, kept: Kept) -> None:
    wf, entered = Workflow[Any, Any, Any]("engine", version="3.0.0"), asyncio.Event()

    @wf.step
    async def work(ctx: Context[Any]) -> None:
        entered.set()
        await asyncio.sleep(60)

    async with make_app(wf, worker=Worker(lease="1s", drain=0, cancel_grace="300ms")) as app:
        run = await app.start(wf)
        await entered.wait()
        await runs.update_one({"_id": run.id}, {"$set": {"lease.token": "another's"}})
        (record,) = await eventually(lambda: kept.saying("the lease was lost"))
    assert record.name == "streamline.engine"
    found = fields_of(record)
    assert found.pop("worker")
    assert found.pop("tenant_id") in (None, "the-suite")
    assert found == {"run_id": run.id, "workflow": "engine", "version": "3.0.0", "step": "work", "attempt": 1}


async def test_a_plain_formatter_prints_the_fields(make_app: Any) -> None:
    out, wf = io.StringIO(), Workflow[Any, Any, Any]("printing")
    handler = logging.StreamHandler(out)
    handler.addFilter(RunFields())
    handler.setFormatter(logging.Formatter("%(workflow)s/%(step)s#%(attempt)s %(message)s"))
    logger = logging.getLogger("shop.printing")
    logger.addHandler(handler)
    wf.step("say")(lambda ctx: logger.warning("hello"))
    async with make_app(wf) as app:
        await app.run(wf, timeout="20s")
    logger.warning("bye")
    logger.removeHandler(handler)
    assert out.getvalue() == "printing/say#1 hello\nNone/None#None bye\n"


class Broken(Hooks):
    def before(self, ctx: Any, branch: str | None) -> None:
        raise RuntimeError("a hook that fails")


async def test_no_record_tells_a_value(make_app: Any, runs: Any, kept: Kept) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("secretive", state=dict[str, str], hooks=(Broken(),))

    @wf.step(max_attempts=2)
    async def work(ctx: Context[Any]) -> str:
        ctx.state["card"] = SECRET
        await ctx.call("ask", lambda: SECRET)
        await ctx.emit("told", {"card": SECRET})
        if ctx.input["how"] == "fail":
            raise NonRetriableError("as told")
        if ctx.input["how"] == "wait":
            await ctx.wait("card", data=SECRET)
        return SECRET

    @work.compensate
    async def undo(ctx: Context[Any], output: str) -> None:
        raise NonRetriableError("as told")

    @wf.step
    async def last(ctx: Context[Any]) -> None:
        if ctx.input["how"] == "undo":
            raise NonRetriableError("as told")

    async with make_app(wf) as app:
        given = {how: await app.start(wf, {"how": how, "card": SECRET}) for how in ("well", "fail", "undo", "wait")}
        for how in ("well", "fail", "undo"):
            await given[how].wait(timeout="20s")
        await status_of(given["wait"], "waiting")
        await app.send_event("news", {"card": SECRET})
        await app.resume(given["wait"].id, SECRET)
        await given["wait"].wait(timeout="20s")
        damaged = await app.start(wf, {"how": "well", "card": SECRET}, delay="300ms")
        await runs.update_one({"_id": damaged.id}, {"$set": {"cursor": "nowhere", "state": SECRET}})
        await eventually(lambda: kept.saying("cannot be driven"))

    formatter = logging.Formatter("%(message)s")
    ours = [record for record in kept.records if record.name.startswith("streamline")]
    assert len(ours) > 3
    for record in ours:
        assert SECRET not in formatter.format(record) + str(vars(record)), record.getMessage()


class Card(BaseModel):
    number: str


class Amount(BaseModel):
    number: int


async def test_what_does_not_fit_is_told_of_without_its_values(make_app: Any, kept: Kept) -> None:
    """Messages of pydantic quote what they refuse, and the driver's quote documents."""
    first: Workflow[Any, Any, Any] = Workflow("first", input=Card)
    second: Workflow[Any, Any, Any] = Workflow("first", version="2.0.0", input=Amount)
    heard: Workflow[Any, Any, Any] = Workflow("heard", input=Amount, triggers=[OnEvent("paid")])

    @first.step
    async def ask(ctx: Context[Any]) -> None:
        await ctx.wait("an answer")

    async def nothing(ctx: Context[Any]) -> None: ...

    second.step(id="ask")(nothing)
    heard.step(nothing)
    second.migrate("1.0.0")(lambda run: None)
    async with make_app(first, heard) as app:
        run = await app.start(first, Card(number=SECRET))
        await status_of(run, "waiting")
        await app.send_event("paid", {"number": SECRET})
        await eventually(lambda: bool(kept.saying("does not start heard")))
    async with make_app(second):
        await eventually(lambda: bool(kept.saying("is not carried over")))
    told = [record for record in kept.records if record.exc_text]
    assert len(told) >= 2
    for record in told:
        text = logging.Formatter().format(record)
        assert "Traceback" in text
        assert "ValidationError" in text
        assert SECRET not in text
    assert not kept.saying(SECRET)
