"""`streamline.odm`: Beanie's documents over the engine's collections, of whichever driver Beanie speaks; read only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

beanie = pytest.importorskip("beanie")

from streamline import (  # noqa: E402
    CancelOn,
    Concurrency,
    Context,
    Debounce,
    NonRetriableError,
    OnEvent,
    Run,
    Schedule,
    Tenancy,
    Throttle,
    Workflow,
)
from streamline.domain.run import RunFields, StepFields  # noqa: E402
from streamline.errors import AppClosed, DocumentIsReadOnly, ExtraMissing, TenantRequired  # noqa: E402
from streamline.features.recurrence.schedule import ScheduleFields  # noqa: E402
from streamline.odm import (  # noqa: E402
    DOCUMENTS,
    EventDocument,
    RunDocument,
    ScheduleDocument,
    StoredLease,
    StoredStep,
    init_odm,
)
from tests.waiting import eventually  # noqa: E402

FOR_MOTOR = int(beanie.__version__.split(".")[0]) < 2


@pytest.fixture(autouse=True)
def of_the_driver(driver: str) -> None:
    if (driver == "motor") != FOR_MOTOR:
        pytest.skip(f"Beanie {beanie.__version__} does not speak {driver}")


def paying(**options: Any) -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow("payment", input=dict, **options)

    @wf.step
    async def pay(ctx: Context[Any]) -> Any:
        if ctx.input.get("fails"):
            raise NonRetriableError("asked to")
        return await ctx.wait("a decision") if ctx.input.get("waits") else ctx.input["amount"]

    return wf


async def snapshot(database: Any) -> dict[str, Any]:
    """Everything that writing would change."""
    found: dict[str, Any] = {}
    for name in ("runs", "schedules", "log"):
        collection = database[f"streamline.{name}"]
        found[name] = (await collection.find({}).sort("_id", 1).to_list(None), await collection.index_information())
    return found


@pytest.fixture
async def paid(make_app: Any) -> AsyncIterator[Any]:
    """An app whose two runs have ended, one well and one badly."""
    wf = paying()
    async with make_app(wf) as app:
        await init_odm(app)
        done = await app.start(wf, {"amount": 7}, tags=["big"], metadata={"shop": "north"}, priority=3)
        failed = await app.start(wf, {"fails": True})
        for handle in (done, failed):
            await handle.wait("20s")
        yield SimpleNamespace(app=app, wf=wf, done=done.id, failed=failed.id)


async def test_a_field_asks_and_a_document_answers(paid: Any) -> None:
    asked = RunDocument.find(RunDocument.workflow == "payment", RunDocument.priority > 0)
    (run,) = await asked.to_list()
    assert isinstance(run, RunDocument)
    assert (run.id, run.status, run.output, run.tags, run.metadata) == (
        paid.done,
        "done",
        7,
        ("big",),
        {"shop": "north"},
    )
    assert (run.steps[0].id, run.steps[0].status, run.steps[0].output) == ("pay", "done", 7)
    assert await RunDocument.get(paid.failed) == await RunDocument.find_one({"error.type": "NonRetriableError"})
    assert await RunDocument.find(RunDocument.status == "failed").count() == 1
    newest_first = await RunDocument.find_all().sort("-created_at").to_list()
    assert [run.id for run in newest_first] == [paid.failed, paid.done]


async def test_what_a_document_and_the_value_have_in_common_is_the_same(paid: Any) -> None:
    for run_id in (paid.done, paid.failed):
        document, run = await RunDocument.get(run_id), await paid.app.get(run_id)
        assert document is not None
        for each in fields(RunFields):
            assert getattr(document, each.name) == getattr(run, each.name), each.name
        for stored, step in zip(document.steps, run.steps, strict=True):
            for each in fields(StepFields):
                assert getattr(stored, each.name) == getattr(step, each.name), each.name


async def test_instants_are_aware_whatever_the_client_is_set_to(paid: Any, client: Any, database_name: str) -> None:
    codec = client[database_name].codec_options.with_options(tz_aware=False, tzinfo=None)
    await init_odm(paid.app, database=client[database_name].with_options(codec_options=codec))
    run = await RunDocument.get(paid.done)
    assert run is not None
    assert run.created_at.tzinfo is UTC
    assert run.events[0]["at"].tzinfo is UTC
    assert datetime.now(UTC) - run.created_at < timedelta(minutes=5)
    later = RunDocument.created_at >= run.created_at
    assert await RunDocument.find(later).count() == 2


async def test_pipelines_and_projections_read(paid: Any) -> None:
    counted = RunDocument.find(RunDocument.workflow == "payment").aggregate(
        [{"$group": {"_id": "$status", "runs": {"$sum": 1}}}, {"$sort": {"_id": 1}}]
    )
    assert await counted.to_list() == [{"_id": "done", "runs": 1}, {"_id": "failed", "runs": 1}]
    assert sorted(await RunDocument.distinct("status")) == ["done", "failed"]


# --- only read


def refused_calls(run: Any) -> dict[str, Callable[[], Any]]:
    one, many = RunDocument.find_one(RunDocument.id == run.id), RunDocument.find_all()
    put = {"$set": {"status": "draft"}}
    return {
        "save": run.save,
        "save_changes": run.save_changes,
        "insert": run.insert,
        "create": run.create,
        "replace": run.replace,
        "update": lambda: run.update(put),
        "set": lambda: run.set({"status": "draft"}),
        "inc": lambda: run.inc({"priority": 1}),
        "current_date": lambda: run.current_date({"due_at": True}),
        "delete": run.delete,
        "insert_one": lambda: RunDocument.insert_one(run),
        "insert_many": lambda: RunDocument.insert_many([run]),
        "replace_many": lambda: RunDocument.replace_many([run]),
        "update_all": lambda: RunDocument.update_all(put),
        "delete_all": RunDocument.delete_all,
        "bulk_writer": RunDocument.bulk_writer,
        "one.update": lambda: one.update(put),
        "one.set": lambda: one.set({"status": "draft"}),
        "one.upsert": lambda: one.upsert(put, on_insert=run),
        "one.replace": lambda: one.replace_one(run),
        "one.delete": one.delete,
        "many.update": lambda: many.update(put),
        "many.inc": lambda: many.inc({"priority": 1}),
        "many.upsert": lambda: many.upsert(put, on_insert=run),
        "many.delete": many.delete,
        "$out": lambda: many.aggregate([{"$out": "elsewhere"}]).to_list(),
        "$merge": lambda: many.aggregate([{"$match": {}}, {"$merge": {"into": "streamline.runs"}}]).to_list(),
    }


async def test_whatever_would_write_is_refused(paid: Any, database: Any) -> None:
    run = await RunDocument.get(paid.done)
    before = await snapshot(database)
    for name, call in refused_calls(run).items():
        with pytest.raises(DocumentIsReadOnly, match="only read"):
            await call()
        assert await snapshot(database) == before, name
    assert "elsewhere" not in await database.list_collection_names()


READS = {
    "add_child", "aggregate", "all", "avg", "count", "distinct", "fetch_all_links", "fetch_link", "fill_back_refs",
    "find", "find_all", "find_many", "find_one", "get", "get_bson_encoders", "get_changes", "get_collection_name",
    "get_link_fields", "get_model_type", "get_motor_collection", "get_previous_changes", "get_previous_saved_state",
    "get_pymongo_collection", "get_saved_state", "get_settings", "has_changed", "inspect_collection", "is_changed",
    "lazy_parse", "link_from_id", "max", "min", "parse_store", "rollback", "set_collection", "set_collection_name",
    "set_database", "state_management_replace_objects", "state_management_save_previous", "sum", "sync", "to_ref",
    "use_state_management", "validate_self",
}  # fmt: skip


async def test_every_verb_of_a_beanie_document_is_known_to_read_or_refused(paid: Any) -> None:
    from pydantic import BaseModel

    verbs = {name for name in dir(beanie.Document) if not name.startswith("_")} - set(dir(BaseModel))
    refused = set(refused_calls(await RunDocument.get(paid.done)))
    assert verbs - READS - refused == set()


async def test_the_collection_of_a_document_reads_and_nothing_else(paid: Any, database: Any) -> None:
    settings: Any = RunDocument.get_settings()
    collection = settings.motor_collection if FOR_MOTOR else settings.pymongo_collection
    assert await collection.count_documents({}) == 2
    assert collection.with_options().name == "streamline.runs"
    for verb in ("insert_one", "bulk_write", "find_one_and_update", "drop", "rename", "create_index", "drop_indexes"):
        for each in (collection, collection.with_options()):
            with pytest.raises(DocumentIsReadOnly):
                getattr(each, verb)


async def test_initialising_changes_no_index_and_creates_no_collection(make_app: Any, database: Any) -> None:
    async with make_app(paying()) as app:
        names, before = await database.list_collection_names(), await snapshot(database)
        await init_odm(app)
        assert await snapshot(database) == before
        assert sorted(await database.list_collection_names()) == sorted(names)


async def test_whoever_lets_beanie_drop_indexes_does_not_drop_ours(make_app: Any, database: Any) -> None:
    async with make_app(paying()):
        before = await snapshot(database)
        with pytest.raises(DocumentIsReadOnly):
            await beanie.init_beanie(database, document_models=[RunDocument], allow_index_dropping=True)
        assert await snapshot(database) == before


class Receipt(beanie.Document):  # type: ignore[misc,name-defined]
    run: beanie.Link[RunDocument]  # type: ignore[name-defined]
    number: int

    class Settings:
        name = "receipts"


async def test_documents_of_ones_own_link_to_runs(paid: Any, database: Any) -> None:
    await beanie.init_beanie(database, document_models=[Receipt, *DOCUMENTS], skip_indexes=True)
    run = await RunDocument.get(paid.done)
    await Receipt(run=run, number=1).insert()
    receipt = await Receipt.find_one(Receipt.number == 1, fetch_links=True)
    assert receipt.run.output == 7
    before = await snapshot(database)
    with pytest.raises(DocumentIsReadOnly):
        await receipt.save(link_rule=beanie.WriteRules.WRITE)
    with pytest.raises(DocumentIsReadOnly):
        await receipt.delete(link_rule=beanie.DeleteRules.DELETE_LINKS)
    assert await snapshot(database) == before


# --- which app, whose runs


async def test_of_is_about_the_runs_that_the_view_sees(make_app: Any) -> None:
    wf = paying()
    async with make_app(wf, tenancy=Tenancy(required=True)) as app:
        await init_odm(app)
        for tenant_id, amount in (("acme", 1), ("acme", 2), ("other", 3)):
            await app.tenant(tenant_id).run(wf, {"amount": amount}, timeout="20s")
        acme = RunDocument.of(app.tenant("acme"))
        assert {run.tenant_id for run in await acme.to_list()} == {"acme"}
        assert await acme.find(RunDocument.output == 2).count() == 1
        assert await RunDocument.of(app.tenant("acme"), RunDocument.tenant_id == "other").count() == 0
        assert await RunDocument.of(app.tenant("acme"), {"$or": [{"tenant_id": "other"}, {"output": 3}]}).count() == 0
        assert await RunDocument.of(app.all_tenants()).count() == 3
        with pytest.raises(TenantRequired):
            RunDocument.of(app)


async def test_without_tenancy_of_the_app_is_about_the_runs_of_no_tenant(make_app: Any) -> None:
    wf = paying()
    async with make_app(wf, tenancy=None) as app:
        await init_odm(app)
        await app.run(wf, {"amount": 1}, timeout="20s")
        await app.tenant("acme").run(wf, {"amount": 2}, timeout="20s")
        assert [run.output for run in await RunDocument.of(app).to_list()] == [1]


async def test_the_documents_are_of_the_app_that_was_given_last(make_app: Any) -> None:
    wf = paying()
    async with make_app(wf) as one, make_app(wf, prefix="second") as two:
        await one.run(wf, {"amount": 1}, timeout="20s")
        for app, count in ((two, 0), (one, 1), (two, 0)):
            await init_odm(app)
            assert await RunDocument.find_all().count() == count


async def test_an_app_that_is_not_open_has_no_database(make_app: Any) -> None:
    with pytest.raises(AppClosed):
        await init_odm(make_app(paying()))


async def test_a_database_of_the_other_driver_is_refused(make_app: Any, mongo_uri: str) -> None:
    from motor.motor_asyncio import AsyncIOMotorClient
    from pymongo import AsyncMongoClient

    async with make_app(paying()) as app:
        other: Any = AsyncMongoClient(mongo_uri) if FOR_MOTOR else AsyncIOMotorClient(mongo_uri)
        with pytest.raises(ExtraMissing, match="beanie") as refused:
            await init_odm(app, database=other["x"])
        assert refused.value.field == "database"
        if (closing := other.close()) is not None:
            await closing


# --- every field that is stored is known


def names_of(model: Any) -> set[str]:
    return {"_id" if name == "id" else each.alias or name for name, each in model.model_fields.items()}


RUN_NAMES = names_of(RunDocument)
STEP_NAMES = {*StoredStep.model_fields}


def unknown(run: Any) -> set[str]:
    """Paths of what a stored run has and the document does not know."""
    found = run.keys() - RUN_NAMES
    found |= {f"lease.{name}" for name in run.get("lease", {}).keys() - StoredLease.model_fields.keys()}
    for step in run["steps"]:
        found |= {f"steps.{name}" for name in step.keys() - STEP_NAMES}
    return set(found)


def kinds() -> dict[str, Workflow[Any, Any, Any]]:
    """Workflows whose runs are of every kind; what each of them does, its input says."""
    flows: dict[str, Workflow[Any, Any, Any]] = {}

    def declare(name: str, **options: Any) -> Workflow[Any, Any, Any]:
        flows[name] = Workflow(name, **options)
        return flows[name]

    plain = declare(
        "plain", state=dict, retention={"done": "1h"}, cancel_on=[CancelOn("stop", match={"who": "nobody"})]
    )

    @plain.step(output_history=2)
    async def first(ctx: Context[Any]) -> Any:
        ctx.state = {"n": 1}
        ctx.log.warning("said")
        ctx.metric("cost", 2)
        await ctx.progress(0.5, "half")
        return ctx.input

    @plain.step(group="both")
    async def left(ctx: Context[Any]) -> Any:
        return await ctx.ask("which?") if ctx.input == "ask" else 1

    @plain.step(group="both", max_attempts=2)
    async def right(ctx: Context[Any]) -> Any:
        return await ctx.approve("really?") if ctx.input == "ask" else 2

    saga = declare("saga", compensate_on={"failed", "cancelled"})

    @saga.step
    async def book(ctx: Context[Any]) -> str:
        return "booked"

    @book.compensate
    async def unbook(ctx: Context[Any], booked: str) -> None: ...

    @saga.step
    async def fail(ctx: Context[Any]) -> None:
        raise NonRetriableError("no")

    parent = declare("parent")

    @parent.step
    async def spawn(ctx: Context[Any]) -> Any:
        return await ctx.start_child(waiting, key="c")

    waiting = declare("waiting", triggers=[OnEvent("go")], run_timeout="1h", start_by="30m")

    @waiting.step
    async def wait(ctx: Context[Any]) -> Any:
        hook = await ctx.create_hook("h")
        return await hook.wait(timeout="1h")

    for name, gate in (
        ("slotted", {"concurrency": Concurrency(1)}),
        ("throttled", {"throttle": Throttle(1, "1h")}),
        ("debounced", {"debounce": Debounce("1h", max_wait="2h")}),
    ):

        async def hold(ctx: Context[Any]) -> Any:
            return await ctx.wait_for("never")

        declare(name, **gate).step(hold)
    return flows


async def make_every_kind(app: Any, flows: dict[str, Any], runs: Any) -> None:
    """Start runs of every kind, and bring each to where it stays."""
    done = await app.start("plain", "x", idempotency_key="k", idempotency="forever", metadata={"a": 1}, tags=["t"])
    asking = await app.start("plain", "ask", priority=5)
    saga, parent = await app.start("saga"), await app.start("parent")
    for name in ("slotted", "throttled", "debounced"):
        for _ in range(2):
            await app.start(name, idempotency_key=None)
    later = await app.start("waiting", delay="1h")
    await app.pause(later.id, by="ann", reason="why")
    await (await app.start("waiting", delay="1h")).cancel(reason="no need", by="ann")
    await app.send_event("go", {"n": 1})
    await done.wait("20s")
    await saga.wait("20s")
    await app.fork(done.id, "left")
    await app.rewind(done.id, "first")
    await app.schedules.create("often", "waiting", every="1s", count=1)
    await eventually(lambda: runs.find_one({"schedule_id": "often", "status": "waiting"}))
    await eventually(lambda: runs.find_one({"parent.run_id": parent.id, "status": "waiting"}))
    await eventually(lambda: runs.find_one({"_id": asking.id, "waiting_since": {"$exists": True}}))
    await eventually(lambda: runs.find_one({"workflow": "slotted", "queued_at": {"$exists": True}}))
    await eventually(lambda: runs.find_one({"_id": done.id, "status": "done"}))


async def test_every_field_that_is_stored_is_known(make_app: Any, runs: Any, database: Any) -> None:
    flows = kinds()
    app = make_app(*flows.values())

    @app.subscriber("all")  # so that there is a log
    async def hear(event: Any) -> None: ...

    async with app:
        await init_odm(app)
        await make_every_kind(app, flows, runs)
        stored = [run async for run in runs.find({})]
        assert set.union(*(unknown(run) for run in stored)) == set()
        seen = set.union(*(set(run) for run in stored))
        assert len(stored) > 12
        assert {"queued_at", "debounce_key", "parent", "paused", "cancel", "hooks", "schedule_id", "kept_key"} <= seen
        for run in stored:
            document = await RunDocument.get(run["_id"])
            assert document is not None
            value = await app.get(run["_id"])
            assert (document.metadata, document.metrics) == (value.metadata, value.metrics)
            assert bool(document.paused) == value.paused
        schedule = await database["streamline.schedules"].find_one({})
        assert schedule.keys() - names_of(ScheduleDocument) == set()
        known = await ScheduleDocument.find_one(ScheduleDocument.name == "often")
        assert known is not None
        assert known.max_count == 1
        assert [each.name for each in fields(ScheduleFields) if getattr(known, each.name) != schedule[each.name]] in (
            [], ["waiting"],
        )  # fmt: skip
        await eventually(lambda: database["streamline.log"].find_one({}))
        entry = await database["streamline.log"].find_one({})
        assert entry.keys() - names_of(EventDocument) == set()
        event = await EventDocument.get(entry["_id"])
        assert event is not None
        assert (event.run_id, event.seq, event.event["type"]) == (entry["run_id"], entry["seq"], entry["event"]["type"])


def test_a_field_that_no_document_knows_is_found() -> None:
    run = {"_id": "r", "news": 1, "lease": {"worker": "w", "colour": 1}, "steps": [{"id": "s", "shade": 1}]}
    assert unknown(run) == {"news", "lease.colour", "steps.shade"}


def test_what_the_values_have_besides_is_not_stored_so() -> None:
    """A field of a value that is stored under its name belongs to what it shares with the document."""
    own = {each.name for each in fields(Run)} - {each.name for each in fields(RunFields)}
    assert own == {"steps", "metadata", "paused", "waits", "worker", "metrics"}
    assert {"steps", "metadata", "paused", "metrics"} <= {*RunDocument.model_fields}
    own = {each.name for each in fields(Schedule)} - {each.name for each in fields(ScheduleFields)}
    assert own == {"id", "jitter", "until", "count"}
