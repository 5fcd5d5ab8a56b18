"""Transactional steps and others who write meanwhile: operators, users, successors."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pymongo.errors import PyMongoError

from streamline import Context, RetryPolicy, Settings, Worker, Workflow
from tests.integration.bookkeeping import BRIEF, Book, paying
from tests.integration.sessions import begin, session_of, transaction_of
from tests.waiting import eventually


@pytest.fixture
async def book(database: Any) -> Book:
    await database.create_collection("ledger")
    return Book(database)


@pytest.mark.parametrize("local", [True, False], ids=["same process", "another process"])
async def test_a_pause_meanwhile_lets_the_step_end_and_no_more(make_app: Any, book: Book, *, local: bool) -> None:
    async def pay(ctx: Context[Any]) -> None:
        await book.write_and_wait(ctx)

    wf = paying(pay)
    async with make_app(wf) as app, make_app(worker=False) as elsewhere:
        handle = await app.start(wf)
        await book.written.wait()
        await (app if local else elsewhere).pause(handle.id)
        book.go_on.set()

        async def is_held() -> Any:
            run = await handle.get()
            return run if run.step("pay").status == "done" else None

        run = await eventually(is_held)
        assert (run.status, run.step("after").status) == ("waiting", "pending")
        assert await book.runs() == [handle.id]
        await app.unpause(handle.id)
        assert (await handle.wait("20s")).status == "done"
    assert book.entered == 2  # the pause was in its way
    assert run.step("pay").attempt == 1
    assert await book.runs() == [handle.id]


@pytest.mark.parametrize("local", [True, False], ids=["same process", "another process"])
async def test_a_cancel_meanwhile_takes_the_writes_with_it(make_app: Any, book: Book, *, local: bool) -> None:
    async def pay(ctx: Context[Any]) -> None:
        await book.write_and_wait(ctx)

    wf = paying(pay)
    async with make_app(wf) as app, make_app(worker=False) as elsewhere:
        handle = await app.start(wf)
        await book.written.wait()
        await (app if local else elsewhere).cancel(handle.id)
        book.go_on.set()
        assert (await handle.wait("20s")).status == "cancelled"
        other = await app.start(wf)
        assert (await other.wait("20s")).status == "done"
    assert await book.runs() == [other.id]


async def test_an_event_meanwhile_is_kept_for_later(make_app: Any, book: Book) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("events")

    @wf.step(transactional=True)
    async def pay(ctx: Context[Any]) -> None:
        await book.write_and_wait(ctx)

    @wf.step
    async def confirm(ctx: Context[Any]) -> Any:
        return await ctx.wait_for("confirmed")

    async with make_app(wf) as app:
        handle = await app.start(wf)
        await book.written.wait()
        await app.send_event("confirmed", "yes", run_id=handle.id)
        book.go_on.set()
        assert await handle.result(timeout="20s") == "yes"
        run = await handle.get()
    assert (book.entered, run.step("pay").attempt) == (2, 1)
    assert await book.runs() == [handle.id]


async def test_the_relay_of_the_event_log_is_not_in_its_way(make_app: Any, book: Book) -> None:
    async def pay(ctx: Context[Any]) -> None:
        await book.write(ctx)
        await asyncio.sleep(0.02)  # the relay takes up what earlier steps have told within a few milliseconds

    wf = paying(pay)
    async with make_app(wf) as app:
        await app._open_session.runtime.outbox.switch_on()
        for _ in range(20):
            assert (await (await app.start(wf)).wait("20s")).status == "done"
    assert book.entered <= 22


async def test_numbers_of_a_try_that_came_to_nothing_do_not_count(make_app: Any, book: Book, runs: Any) -> None:
    async def pay(ctx: Context[Any]) -> None:
        ctx.metric("paid", 5)
        ctx.log.info("paying")
        await book.write_and_wait(ctx)

    wf = paying(pay)
    async with make_app(wf) as app:
        handle = await app.start(wf)
        await book.written.wait()
        await app.send_event("in the way", run_id=handle.id)
        book.go_on.set()
        await handle.wait("20s")
    stored = await runs.find_one({"_id": handle.id})
    assert stored["metrics"] == {"paid": 5}
    assert len(stored["logs"]) == 2
    assert book.entered == 2


async def test_a_conflict_with_the_users_own_writes_is_no_failed_attempt(
    make_app: Any, client: Any, database: Any, book: Book
) -> None:
    accounts = database["accounts"]
    await accounts.insert_one({"_id": "a", "left": 10})

    async def pay(ctx: Context[Any]) -> None:
        await book.write(ctx)
        await accounts.update_one({"_id": "a"}, {"$inc": {"left": -1}}, session=ctx.session)

    wf = paying(pay, max_attempts=1)
    async with make_app(wf) as app:
        async with transaction_of(client) as session:
            await accounts.update_one({"_id": "a"}, {"$inc": {"left": -2}}, session=session)
            handle = await app.start(wf)
            await eventually(lambda: book.entered > 2)
        run = await handle.wait("20s")
        events = [event.type async for event in handle.events()]
    assert (run.status, run.step("pay").attempt) == ("done", 1)
    assert "step.retrying" not in events
    assert (await accounts.find_one({}))["left"] == 7
    assert await book.runs() == [handle.id]


async def test_a_conflict_is_seen_through_the_error_that_was_raised_for_it(
    make_app: Any, client: Any, database: Any, book: Book
) -> None:
    await database["accounts"].insert_one({"_id": "a", "left": 10})

    async def pay(ctx: Context[Any]) -> None:
        await book.write(ctx)
        try:
            await database["accounts"].update_one({"_id": "a"}, {"$inc": {"left": -1}}, session=ctx.session)
        except Exception as error:
            raise RuntimeError("could not pay") from error

    wf = paying(pay, max_attempts=1)
    async with make_app(wf) as app:
        async with transaction_of(client) as session:
            await database["accounts"].update_one({"_id": "a"}, {"$inc": {"left": -2}}, session=session)
            handle = await app.start(wf)
            await eventually(lambda: book.entered > 1)
        assert (await handle.wait("20s")).status == "done"
    assert await book.runs() == [handle.id]


async def test_patience_with_others_ends_in_a_failed_attempt(
    make_app: Any, client: Any, database: Any, book: Book
) -> None:
    await database["accounts"].insert_one({"_id": "a", "left": 10})

    async def pay(ctx: Context[Any]) -> None:
        await book.write(ctx)
        await database["accounts"].update_one({"_id": "a"}, {"$inc": {"left": -1}}, session=ctx.session)

    wf = paying(pay, retry=RetryPolicy(max_attempts=2, delay=0))
    async with make_app(wf, settings=Settings(transaction_patience="200ms")) as app, session_of(client) as session:
        await begin(session)
        await database["accounts"].update_one({"_id": "a"}, {"$inc": {"left": -2}}, session=session)
        run = await (await app.start(wf)).wait("20s")
    assert (run.status, run.error.type, run.step("pay").attempt) == ("failed", "OperationFailure", 2)
    assert book.entered > 4
    assert await book.runs() == []


async def test_an_error_of_the_database_that_is_caught_ends_the_transaction(
    make_app: Any, database: Any, book: Book
) -> None:
    await database["accounts"].insert_one({"_id": "a"})

    async def pay(ctx: Context[Any]) -> None:
        await book.write(ctx)
        try:
            await database["accounts"].insert_one({"_id": "a"}, session=ctx.session)
        except PyMongoError:
            return

    wf = paying(pay, max_attempts=1)
    async with make_app(wf, settings=Settings(transaction_patience="200ms")) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.status == "failed"
    assert await book.runs() == []


async def test_whoever_has_lost_the_lease_commits_nothing(make_app: Any, book: Book, runs: Any) -> None:
    async def pay(ctx: Context[Any]) -> None:
        await book.write_and_wait(ctx)

    wf = paying(pay)
    async with make_app(wf, worker=BRIEF) as app:
        handle = await app.start(wf)
        await book.written.wait()
        # Somebody else takes the run, and leaves it.
        await runs.update_one({"_id": handle.id}, {"$set": {"lease.token": "another's"}})
        book.go_on.set()
        await eventually(lambda: app._open_session.worker.crew.holdings == [])
        assert await book.runs() == []
        assert (await handle.get()).step("pay").status == "running"
        assert (await handle.wait("30s")).status == "done"  # taken over once that lease has run out
    assert await book.runs() == [handle.id]
    assert book.entered == 2


async def test_a_worker_that_stops_rolls_back_and_hands_over(make_app: Any, book: Book) -> None:
    async def pay(ctx: Context[Any]) -> None:
        await book.write_and_wait(ctx)

    wf = paying(pay)
    hasty = Worker(lease="30s", poll_interval="200ms", drain="0.1s")
    async with make_app(wf, worker=hasty) as app:
        handle = await app.start(wf)
        await book.written.wait()
    assert await book.runs() == []
    async with make_app(wf) as app:
        assert (await app.handle(handle.id).wait("20s")).status == "done"
    assert await book.runs() == [handle.id]


async def test_many_at_once_on_one_account(make_app: Any, database: Any) -> None:
    accounts = database["accounts"]
    await accounts.insert_one({"_id": "a", "left": 0})
    wf: Workflow[Any, Any, Any] = Workflow("add")

    @wf.step(transactional=True, max_attempts=1)
    async def add(ctx: Context[Any]) -> None:
        account = await accounts.find_one({"_id": "a"}, session=ctx.session)
        await accounts.update_one({"_id": "a"}, {"$set": {"left": account["left"] + 1}}, session=ctx.session)

    async with make_app(wf) as app:
        handles = [await app.start(wf) for _ in range(20)]
        ended = await asyncio.gather(*(handle.wait("60s") for handle in handles))
    assert {run.status for run in ended} == {"done"}
    assert (await accounts.find_one({}))["left"] == 20
