"""Transactional steps: the handler's writes and the end of its step are there together, or neither is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pymongo.errors import PyMongoError
from pymongo.monitoring import CommandStartedEvent

from streamline import Context, NonRetriableError, RetryPolicy, Worker, Workflow
from streamline.errors import RunFailed
from tests.integration.bookkeeping import BRIEF, Book, paying
from tests.integration.counted_commands import Commands, counted_app
from tests.waiting import eventually, status_of


@pytest.fixture
async def book(database: Any) -> Book:
    await database.create_collection("ledger")
    return Book(database)


async def entered_once(book: Book, handle: Any) -> None:
    assert await book.runs() == [handle.id]
    assert book.entered == 1


async def test_what_is_written_and_the_end_of_the_step_are_one(make_app: Any, book: Book, runs: Any) -> None:
    async def pay(ctx: Context[Any]) -> str:
        await book.write_and_wait(ctx)
        ctx.state["paid"] = ctx.output("before") + "!"  # type: ignore[arg-type]
        return "receipt"

    async with make_app(paying(pay)) as app:
        handle = await app.start("pay")
        await book.written.wait()
        stored = await runs.find_one({"_id": handle.id})
        assert (stored["steps"][1]["status"], await book.runs()) == ("running", [])
        book.go_on.set()
        assert await handle.result(timeout="20s") == {"paid": "before!"}
        run = await handle.get()
    assert (run.step("pay").status, run.step("pay").output, run.step("pay").attempt) == ("done", "receipt", 1)
    await entered_once(book, handle)


async def test_the_last_step_ends_the_run_with_the_transaction(make_app: Any, book: Book, runs: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("only", retention="1h")

    @wf.step(transactional=True)
    async def only(ctx: Context[Any]) -> str:
        await book.write(ctx)
        return "paid"

    async with make_app(wf) as app:
        handle = await app.start(wf)
        assert await handle.result(timeout="20s") == "paid"
        events = [event.type async for event in handle.events()]
    stored = await runs.find_one({"_id": handle.id})
    assert "expire_at" in stored
    assert "lease" not in stored
    assert events == ["run.created", "step.started", "step.done", "run.done"]
    await entered_once(book, handle)


async def test_a_handler_need_not_use_its_session(make_app: Any) -> None:
    async def pay(ctx: Context[Any]) -> str:
        return "nothing to pay"

    async with make_app(paying(pay)) as app:
        run = await (await app.start("pay")).wait("20s")
    assert (run.status, run.step("pay").output) == ("done", "nothing to pay")


async def test_what_rides_lands_with_the_step(make_app: Any, book: Book, runs: Any) -> None:
    async def pay(ctx: Context[Any]) -> None:
        await book.write(ctx)
        ctx.log.info("paying")
        ctx.metric("paid", 5)
        await ctx.progress(0.5, "half")
        await ctx.heartbeat()
        await asyncio.sleep(1.2)  # longer than riders wait for a write
        stored = await runs.find_one({"_id": ctx.run_id})
        assert "logs" not in stored
        await ctx.progress(0.9)

    async with make_app(paying(pay)) as app:
        run = await (await app.start("pay")).wait("20s")
    stored = await runs.find_one({"_id": run.id})
    assert [line["message"] for line in stored["logs"]] == ["paying"]
    assert stored["metrics"] == {"paid": 5}
    assert run.step("pay").progress.fraction == 0.9
    assert book.entered == 1


async def test_what_a_failed_attempt_has_written_is_gone(make_app: Any, book: Book) -> None:
    async def pay(ctx: Context[Any]) -> None:
        await book.write(ctx)
        ctx.state["tries"] = ctx.attempt
        if ctx.attempt < 3:
            raise ValueError("not yet")

    wf = paying(pay, retry=RetryPolicy(max_attempts=3, delay=0))
    async with make_app(wf) as app:
        handle = await app.start(wf)
        assert await handle.result(timeout="20s") == {"tries": 3}
    assert [entry["attempt"] async for entry in book.entries.find()] == [3]


@pytest.mark.parametrize("error", [ValueError("no"), NonRetriableError("no")])
async def test_a_step_that_fails_for_good_has_written_nothing(make_app: Any, book: Book, error: Exception) -> None:
    async def pay(ctx: Context[Any]) -> None:
        await book.write(ctx)
        raise error

    async with make_app(paying(pay, max_attempts=1)) as app:
        run = await (await app.start("pay")).wait("20s")
    assert (run.status, run.error.type, book.entered) == ("failed", type(error).__name__, 1)
    assert await book.runs() == []


async def test_an_output_that_cannot_be_stored_takes_the_writes_with_it(make_app: Any, book: Book) -> None:
    async def pay(ctx: Context[Any]) -> Any:
        await book.write(ctx)
        return object()

    async with make_app(paying(pay)) as app:
        run = await (await app.start("pay")).wait("20s")
    assert (run.status, run.error.type) == ("failed", "SerializationError")
    assert await book.runs() == []


async def test_a_tolerated_failure_leaves_nothing_either(make_app: Any, book: Book) -> None:
    async def pay(ctx: Context[Any]) -> None:
        await book.write(ctx)
        raise ValueError

    async with make_app(paying(pay, max_attempts=1, on_error="skip")) as app:
        run = await (await app.start("pay")).wait("20s")
    assert (run.status, run.step("pay").status) == ("done", "skipped")
    assert await book.runs() == []


async def test_its_own_timeout_rolls_back(make_app: Any, book: Book) -> None:
    async def pay(ctx: Context[Any]) -> None:
        await book.write(ctx)
        await asyncio.sleep(60)

    async with make_app(paying(pay, timeout=0.1, max_attempts=1)) as app:
        run = await (await app.start("pay")).wait("20s")
    assert (run.status, run.error.type) == ("failed", "StepTimeout")
    assert "0.1 s" in run.error.message
    assert await book.runs() == []


async def test_it_may_take_no_longer_than_its_lease_allows(make_app: Any, book: Book) -> None:
    async def pay(ctx: Context[Any]) -> None:
        await book.write(ctx)
        await asyncio.sleep(60)

    async with make_app(paying(pay, timeout="30s", max_attempts=1), worker=BRIEF) as app:
        handle = await app.start("pay")
        run = await handle.wait("20s")
    assert (run.status, run.error.type, run.recovery_count) == ("failed", "StepTimeout", 0)
    assert "lease" in run.error.message
    assert (run.step("pay").ended_at - run.step("pay").started_at).total_seconds() < 2
    assert await book.runs() == []


async def test_heartbeats_leave_it_out_and_keep_the_others(make_app: Any, book: Book, runs: Any) -> None:
    slow: Workflow[Any, Any, Any] = Workflow("slow")

    @slow.step
    async def crawl(ctx: Context[Any]) -> None:
        await asyncio.sleep(3)

    async def pay(ctx: Context[Any]) -> None:
        lease = (await runs.find_one({"_id": ctx.run_id}))["lease"]["until"]
        await book.write(ctx)
        await asyncio.sleep(1)  # two heartbeats
        assert (await runs.find_one({"_id": ctx.run_id}))["lease"]["until"] == lease

    wf = paying(pay)
    async with make_app(wf, slow, worker=BRIEF) as app:
        other = await app.start(slow)
        handles = [await app.start(wf) for _ in range(5)]
        ended = await asyncio.gather(*(handle.wait("20s") for handle in handles))
        assert (await other.wait("20s")).recovery_count == 0
    assert {run.status for run in ended} == {"done"}
    assert book.entered == 5


async def test_an_old_lease_is_extended_first(make_app: Any, book: Book) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("late")

    @wf.step
    async def dawdle(ctx: Context[Any]) -> None:
        await asyncio.sleep(0.45)  # short of the next heartbeat

    @wf.step(transactional=True)
    async def pay(ctx: Context[Any]) -> None:
        await book.write(ctx)
        await asyncio.sleep(1.1)

    async with make_app(wf, worker=BRIEF) as app:
        handle = await app.start(wf)
        run = await handle.wait("20s")
    assert (run.status, run.recovery_count) == ("done", 0)
    await entered_once(book, handle)


async def test_a_jump_is_stored_with_the_writes(make_app: Any, book: Book) -> None:
    async def pay(ctx: Context[Any]) -> None:
        await book.write(ctx)
        ctx.state["n"] = ctx.state.get("n", 0) + 1
        if ctx.state["n"] < 3:
            ctx.goto("before")

    async with make_app(paying(pay)) as app:
        handle = await app.start("pay")
        assert await handle.result(timeout="20s") == {"n": 3}
    assert await book.runs() == [handle.id] * 3


async def test_a_jump_to_nowhere_takes_the_writes_with_it(make_app: Any, book: Book) -> None:
    async def pay(ctx: Context[Any]) -> None:
        await book.write(ctx)
        ctx.goto("nowhere")

    async with make_app(paying(pay)) as app:
        run = await (await app.start("pay")).wait("20s")
    assert (run.status, run.error.type) == ("failed", "StepNotFound")
    assert await book.runs() == []


async def test_a_child_is_started_in_the_same_transaction(make_app: Any, book: Book, runs: Any) -> None:
    child: Workflow[Any, Any, Any] = Workflow("child")

    @child.step
    async def work(ctx: Context[Any]) -> Any:
        return ctx.input

    async def pay(ctx: Context[Any]) -> None:
        await book.write(ctx)
        await app.start(child, ctx.attempt, session=ctx.session)
        if ctx.attempt < 2:
            raise ValueError

    wf = paying(pay, retry=RetryPolicy(max_attempts=2, delay=0))
    async with make_app(wf, child) as app:
        assert (await (await app.start(wf)).wait("20s")).status == "done"
        await eventually(lambda: runs.count_documents({"workflow": "child", "status": "done"}))
    assert [run["input"] async for run in runs.find({"workflow": "child"})] == [2]


async def test_predicates_come_before_the_transaction(make_app: Any, book: Book) -> None:
    seen: list[Any] = []

    async def is_done(ctx: Context[Any]) -> bool:
        try:
            seen.append(ctx.session)
        except NonRetriableError as error:
            seen.append(error.field)
        return bool(ctx.input)

    async def pay(ctx: Context[Any]) -> None:
        await book.write(ctx)

    wf = paying(pay, skip_if=is_done)
    async with make_app(wf) as app:
        skipped = await (await app.start(wf, True)).wait("20s")
        paid = await (await app.start(wf, False)).wait("20s")
    assert (skipped.step("pay").status, paid.step("pay").status) == ("skipped", "done")
    assert seen == ["session", "session"]
    assert await book.runs() == [paid.id]


async def test_hooks_and_guards_see_it_as_any_other(make_app: Any, book: Book) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("guarded", guards=[lambda ctx, key: ctx.input != "refused"])

    @wf.step(transactional=True)
    async def pay(ctx: Context[Any]) -> None:
        await book.write(ctx)

    async with make_app(wf) as app:
        refused = await (await app.start(wf, "refused")).wait("20s")
        paid = await (await app.start(wf, "fine")).wait("20s")
    assert (refused.status, paid.status) == ("failed", "done")
    assert await book.runs() == [paid.id]


async def test_undoing_is_an_ordinary_step(make_app: Any, book: Book) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("saga")
    said: list[Any] = []

    @wf.step(transactional=True)
    async def pay(ctx: Context[Any]) -> str:
        await book.write(ctx)
        return "receipt"

    @pay.compensate
    async def refund(ctx: Context[Any], receipt: str) -> None:
        said.append(await ctx.call("refund", lambda: receipt))
        try:
            said.append(ctx.session)
        except NonRetriableError as error:
            said.append(error.field)

    @wf.step(max_attempts=1)
    async def fail(ctx: Context[Any]) -> None:
        raise ValueError

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert (run.status, said) == ("compensated", ["receipt", "session"])


async def nothing(*_: Any) -> None:
    return None


VERBS: dict[str, Any] = {
    "call": lambda ctx: ctx.call("k", nothing),
    "sleep": lambda ctx: ctx.sleep(0.01),
    "poll": lambda ctx: ctx.poll("k", nothing, every=1),
    "choose": lambda ctx: ctx.choose("k", 1),
    "checkpoint": lambda ctx: ctx.checkpoint(1),
    "wait": lambda ctx: ctx.wait("why"),
    "wait_for": lambda ctx: ctx.wait_for("event"),
    "create_hook": lambda ctx: ctx.create_hook("k"),
    "approve": lambda ctx: ctx.approve("why"),
    "ask": lambda ctx: ctx.ask("what"),
    "each": lambda ctx: ctx.each("k", [1], nothing),
    "gather": lambda ctx: ctx.gather("k", {"a": nothing}),
    "loop": lambda ctx: ctx.loop("k", 0, nothing),
    "start_child": lambda ctx: ctx.start_child("pay"),
    "join": lambda ctx: ctx.join({"a": ("pay", None)}),
    "emit": lambda ctx: ctx.emit("event"),
    "save": lambda ctx: ctx.save(),
    "inc": lambda ctx: ctx.inc("n", 1),
    "push": lambda ctx: ctx.push("n", 1),
    "put": lambda ctx: ctx.put("", "n", 1),
    "drop": lambda ctx: ctx.drop("", "n"),
    "pin_output": lambda ctx: ctx.pin_output("before", 1),
}


async def test_what_is_stored_by_itself_is_refused(make_app: Any, book: Book) -> None:
    async def pay(ctx: Context[Any]) -> None:
        await book.write(ctx)
        await VERBS[ctx.input](ctx)

    wf = paying(pay, max_attempts=5)
    async with make_app(wf) as app:
        handles = {verb: await app.start(wf, verb) for verb in VERBS}
        for verb, handle in handles.items():
            with pytest.raises(RunFailed) as caught:
                await handle.result(timeout="20s")
            error = caught.value.error
            assert (error["type"], error["attempt"]) == ("NonRetriableError", 1), verb
            assert str(error["message"]).startswith(f"ctx.{verb}: "), verb
    assert await book.runs() == []


async def test_an_ordinary_step_has_no_session(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("plain")

    @wf.step
    async def plain(ctx: Context[Any]) -> Any:
        return ctx.session

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert (run.status, run.error.type, run.step("plain").attempt) == ("failed", "NonRetriableError", 1)
    assert "transactional=True" in run.error.message


async def test_a_straggler_of_the_handler_writes_nothing(make_app: Any, book: Book) -> None:
    late: list[Any] = []

    async def straggle(session: Any) -> None:
        await book.go_on.wait()
        try:
            late.append(await book.entries.insert_one({"run": "straggler"}, session=session))
        except PyMongoError as error:
            late.append(type(error).__name__)

    async def pay(ctx: Context[Any]) -> None:
        await book.write(ctx)
        tasks.append(asyncio.ensure_future(straggle(ctx.session)))

    tasks: list[asyncio.Task[None]] = []
    async with make_app(paying(pay)) as app:
        handle = await app.start("pay")
        await handle.wait("20s")
        book.go_on.set()
        await asyncio.gather(*tasks)
    assert late == ["InvalidOperation"]
    assert await book.runs() == [handle.id]


@pytest.mark.parametrize("how", ["commit_transaction", "abort_transaction"])
async def test_the_transaction_is_not_the_handlers_to_end(make_app: Any, book: Book, how: str) -> None:
    async def pay(ctx: Context[Any]) -> None:
        await book.write(ctx)
        await getattr(ctx.session, how)()

    async with make_app(paying(pay, max_attempts=3)) as app:
        run = await (await app.start("pay")).wait("20s")
    assert (run.status, run.error.type, run.step("pay").attempt) == ("failed", "NonRetriableError", 1)
    assert "transaction" in run.error.message


class Sent(Commands):
    """Counts the commits and aborts, too."""

    def started(self, event: CommandStartedEvent) -> None:
        super().started(event)
        if event.command_name.endswith("Transaction"):
            self.by_name[event.command_name] += 1


async def test_it_costs_an_update_and_a_commit(mongo_uri: str, database_name: str, driver: str) -> None:
    if driver != "pymongo":
        pytest.skip("counted in PyMongo's async client")
    wf: Workflow[Any, Any, Any] = Workflow("only")

    @wf.step(transactional=True)
    async def only(ctx: Context[Any]) -> None:
        await ctx.session.client[database_name]["ledger"].insert_one({"a": 1}, session=ctx.session)

    sent = Sent()
    async with counted_app(mongo_uri, database_name, sent, wf, worker=Worker(lease="60s")) as app:
        await (await app.start(wf)).wait("20s")
        counted = {name: sent.by_name[name] for name in ("insert", "update", "commitTransaction", "abortTransaction")}
    assert counted == {"insert": 1, "update": 1, "commitTransaction": 1, "abortTransaction": 0}


async def test_tick_carries_it_out_too(make_app: Any, book: Book) -> None:
    async def pay(ctx: Context[Any]) -> None:
        await book.write(ctx)

    async with make_app(paying(pay), worker=False) as app:
        handle = await app.start("pay")
        await app.tick()
        assert (await status_of(handle, "done")).status == "done"
    await entered_once(book, handle)
