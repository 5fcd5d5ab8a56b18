"""Starting and asking: results are of the workflow's output type."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from pydantic import BaseModel

from streamline import (
    BulkFailure,
    BulkResult,
    Context,
    Event,
    Failure,
    Page,
    Run,
    RunHandle,
    RunSummary,
    Settings,
    Step,
    Streamline,
    Worker,
    Workflow,
)


class Order(BaseModel):
    order_id: str


class Receipt(BaseModel):
    charge_id: str


orders = Workflow("order", input=Order, output=Receipt)
untyped = Workflow("untyped")
counting = Workflow("counting", input=int, output=int)


@orders.step
async def charge(ctx: Context[Order]) -> Receipt:
    return Receipt(charge_id=ctx.input.order_id)


app = Streamline("mongodb://localhost", workflows=[orders, untyped], worker=Worker(concurrency=5), settings=Settings())
app.register(counting)
Streamline(worker=False)
Streamline(workers=5)  # expect-error: call-arg / reportCallIssue
Streamline(workflows=["order"])  # expect-error: list-item / reportArgumentType
Streamline(worker="yes")  # expect-error: arg-type / reportArgumentType
Worker(concurency=5)  # expect-error: call-arg / reportCallIssue
assert_type(Streamline.embedded("/tmp/x"), Streamline)
order = Order(order_id="1")
receipt = Receipt(charge_id="1")


async def use() -> None:
    async with app as opened:
        assert_type(opened, Streamline)
    run = await app.start(orders, order, idempotency_key="k", priority=3, delay="5s", tags=["a"])
    await app.start_many(orders, [order], session=app.database.client.start_session())
    await app.run(orders, order, session=None)  # expect-error: call-overload / reportCallIssue
    assert_type(run, RunHandle[Receipt])
    assert_type(await run.result(timeout="1m"), Receipt)
    assert_type(run.id, str)
    assert_type(run.created, bool)
    (await run.result()).nothing  # expect-error: attr-defined / reportAttributeAccessIssue
    assert_type(await app.run(orders, order, timeout=5), Receipt)
    assert_type(await app.run(counting, 5), int)


async def start_with_a_mapping() -> None:
    await app.start(orders, {"order_id": "1"})
    assert_type(await app.run(orders, {"order_id": "1"}), Receipt)


async def start_with_a_wrong_input() -> None:
    await app.start(orders, receipt)  # expect-error: misc / arg-type / call-overload / reportArgumentType / reportCall
    await app.start(orders, 5)  # expect-error: misc / arg-type / call-overload / reportArgumentType / reportCallIssue
    await app.start(counting, "5")  # expect-error: misc / arg-type / call-overload / reportArgumentType / reportCall
    await app.run(counting, "5")  # expect-error: misc / arg-type / call-overload / reportArgumentType / reportCall


async def start_with_a_wrong_option() -> None:
    await app.start(orders, order, priorty=3)  # expect-error: call-overload / reportCallIssue
    await app.start(orders, order, priority="x")  # expect-error: call-overload / reportCallIssue / reportArgumentType
    await app.run(orders, order, priorty=3)  # expect-error: call-overload / reportCallIssue
    await app.start(5)  # expect-error: call-overload / reportCallIssue / reportArgumentType


async def start_by_name() -> None:
    anything = await app.start("order", {"whatever": 1})
    assert_type(anything, RunHandle[Any])
    assert_type(await anything.result(), Any)
    assert_type(await (await app.start(untyped)).result(), Any)


async def start_many() -> None:
    assert_type(await app.start_many(orders, [order]), list[RunHandle[Receipt]])
    await app.start_many(orders, [5])  # expect-error: list-item / arg-type / call-overload / reportArgumentType / misc


async def ask(run: RunHandle[Receipt]) -> None:
    stored = await run.get()
    assert_type(stored, Run)
    assert_type(stored.created_at, datetime)
    assert_type(stored.ended_at, datetime | None)
    assert_type(stored.error, Failure | None)
    assert_type(stored.steps, tuple[Step, ...])
    assert_type(stored.step("charge"), Step)
    stored.status = "done"  # expect-error: misc / reportAttributeAccessIssue
    stored.nothing  # expect-error: attr-defined / reportAttributeAccessIssue
    assert_type(await run.wait("5s"), Run)
    assert_type(run.events(after=3), AsyncIterator[Event])
    async for event in run.events():
        assert_type(event, Event)
        assert_type(event.seq, int)
    await run.cancel(reason="why", by="ann")
    await run.pause()
    await run.unpause()
    await run.retry()


async def query() -> None:
    page = await app.runs(orders, status=["done", "failed"], tags="a", limit=5)
    assert_type(page, Page[Run])
    assert_type(page.items, tuple[Run, ...])
    assert_type(page.next, str | None)
    await app.runs(status="finished")  # expect-error: arg-type / reportArgumentType
    await app.runs(created_after="yesterday")  # expect-error: arg-type / reportArgumentType
    await app.runs(created_after=datetime.now(UTC) - timedelta(days=1))
    async for run in app.iter_runs("order", status="done"):
        assert_type(run, Run)
    counts = await app.count_runs()
    counts["done"] + 1
    counts["finished"]  # expect-error: index / typeddict / reportArgumentType / reportIndexIssue
    assert_type(await app.summaries("order", status="failed", limit=5), Page[RunSummary])
    async for summary in app.iter_summaries(status=["failed"], order="created_at"):
        assert_type(summary.error, Failure | None)
        assert_type(summary.step, str)
        summary.input  # expect-error: attr-defined / reportAttributeAccessIssue
    await app.summaries(status="finished")  # expect-error: arg-type / reportArgumentType
    done = await app.bulk.cancel({"workflow": orders, "input.x": 1}, limit=5, dry_run=True, reason="why", by="ann")
    assert_type(done, BulkResult)
    assert_type(done.failures, tuple[BulkFailure, ...])
    await app.bulk.rewind({"status": "done"}, "first")
    await app.bulk.delete({"status": "done"}, children=True, limit=5)
    await app.bulk.retry("failed")  # expect-error: arg-type / reportArgumentType
    await app.bulk.retry({}, limit="all")  # expect-error: arg-type / reportArgumentType
    assert_type(await app.tick(max_runs=3, budget="5s"), int)
    end = app.on("run.*", lambda event: print(event.seq))
    end()
    app.on("run.*", lambda event: event.nothing)  # expect-error: attr-defined / reportAttributeAccessIssue
    app.on("run.*", 5)  # expect-error: arg-type / reportArgumentType
