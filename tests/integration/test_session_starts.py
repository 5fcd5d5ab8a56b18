"""Starts in the caller's session: the caller's writes and the run are there together, or neither is."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from pymongo import AsyncMongoClient, MongoClient
from pymongo.errors import PyMongoError

from streamline import Concurrency, Context, Debounce, Worker, Workflow
from streamline.errors import IdempotencyConflict, InvalidInput, InvalidPolicy, RunNotFound
from tests.integration.sessions import begin, session_of, transaction_of
from tests.waiting import eventually

# It looks by itself so rarely that only what it is told can make it quick.
DEAF = Worker(concurrency=50, lease="60s", poll_interval="60s", drain="5s")


def orders(**options: Any) -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow("order", **options)

    @wf.step
    async def fulfil(ctx: Context[Any]) -> Any:
        return ctx.input

    return wf


async def test_the_run_and_the_callers_write_are_there_together(make_app: Any, client: Any, database: Any) -> None:
    wf = orders()
    async with make_app(wf) as app:
        async with transaction_of(client) as session:
            await database["orders"].insert_one({"_id": 1}, session=session)
            handle = await app.start(wf, 1, session=session)
            assert handle.created
            with pytest.raises(RunNotFound):
                await handle.get()
            assert await database["orders"].count_documents({}) == 0
        assert await handle.result(timeout="20s") == 1
    assert await database["orders"].count_documents({}) == 1


async def test_neither_is_there_after_an_abort(make_app: Any, client: Any, database: Any, runs: Any) -> None:
    wf = orders()
    told: list[str] = []
    async with make_app(wf) as app:
        app.on("run.*", lambda event: told.append(event.run_id))
        async with session_of(client) as session:
            await begin(session)
            await database["orders"].insert_one({"_id": 1}, session=session)
            await app.start(wf, 1, session=session)
            await session.abort_transaction()
        other = await app.start(wf, 2)
        assert await other.result(timeout="20s") == 2
        await eventually(lambda: len(told) >= 2)
    assert await runs.count_documents({}) == 1
    assert await database["orders"].count_documents({}) == 0
    assert set(told) == {other.id}


async def test_its_events_are_told_once_it_is_committed(make_app: Any, client: Any) -> None:
    wf = orders()
    told: list[str] = []
    async with make_app(wf, worker=False) as app:
        app.on("run.created", lambda event: told.append(event.run_id))
        async with transaction_of(client) as session:
            handle = await app.start(wf, 1, session=session)
            await asyncio.sleep(0.05)
            assert told == []
        await eventually(lambda: told == [handle.id])


async def test_it_is_picked_up_right_after_the_commit(make_app: Any, client: Any) -> None:
    wf = orders()
    async with make_app(wf, worker=DEAF) as app:
        async with transaction_of(client) as session:
            handle = await app.start(wf, 1, session=session)
            await asyncio.sleep(0.05)
        began = time.monotonic()
        assert await handle.result(timeout="20s") == 1
    assert time.monotonic() - began < 3  # the next look would come in 15 s


async def test_another_process_picks_it_up_right_after_the_commit(make_app: Any, client: Any) -> None:
    wf = orders()
    async with make_app(wf, worker=DEAF), make_app(wf, worker=False) as starter:
        await asyncio.sleep(0.3)  # until the worker listens
        async with transaction_of(client) as session:
            handle = await starter.start(wf, 1, session=session)
        began = time.monotonic()
        assert await handle.result(timeout="20s") == 1
    assert time.monotonic() - began < 3


async def test_it_is_a_draft_that_anybody_may_take(make_app: Any, client: Any, runs: Any) -> None:
    wf = orders()
    async with make_app(wf, worker=DEAF) as app:
        async with transaction_of(client) as session:
            handle = await app.start(wf, 1, session=session, delay="1h", priority=3, tags=["a"])
        stored = await runs.find_one({"_id": handle.id})
    assert (stored["status"], stored["priority"], stored["tags"]) == ("draft", 3, ["a"])
    assert "lease" not in stored
    assert (stored["due_at"] - stored["created_at"]).total_seconds() == pytest.approx(3600, abs=5)


async def test_a_held_key_gives_its_run(make_app: Any, client: Any, runs: Any) -> None:
    wf = orders()
    async with make_app(wf, worker=False) as app:
        first = await app.start(wf, 1, idempotency_key="k")
        async with transaction_of(client) as session:
            second = await app.start(wf, 2, idempotency_key="k", session=session)
            third = await app.start(wf, 3, idempotency_key="new", session=session)
            fourth = await app.start(wf, 4, idempotency_key="new", session=session)
    assert (second.created, second.id) == (False, first.id)
    assert (third.created, fourth.created, fourth.id) == (True, False, third.id)
    assert await runs.count_documents({}) == 2


async def test_of_two_transactions_one_gets_the_key_and_the_other_its_run(
    make_app: Any, client: Any, database: Any, runs: Any
) -> None:
    wf = orders()
    tries: list[int] = []
    async with make_app(wf, worker=False) as app:

        async def place(n: int) -> Any:
            async def both(session: Any) -> Any:
                tries.append(n)
                await database["orders"].insert_one({"_id": n}, session=session)
                return await app.start(wf, n, idempotency_key="k", session=session)

            async with session_of(client) as session:
                while True:
                    try:
                        return await session.with_transaction(both)
                    except PyMongoError as error:  # Motor's own repetition sometimes commits what it has aborted
                        if not error.has_error_label("TransientTransactionError"):
                            raise

        handles = await asyncio.gather(*(place(n) for n in range(8)))
    assert sum(handle.created for handle in handles) == 1
    assert len({handle.id for handle in handles}) == 1
    assert await runs.count_documents({}) == 1
    assert await database["orders"].count_documents({}) == 8
    assert len(tries) > 8  # some met one another


async def test_what_the_driver_says_of_a_conflict_reaches_the_caller(make_app: Any, client: Any) -> None:
    wf = orders()
    async with make_app(wf, worker=False) as app, session_of(client) as one, session_of(client) as other:
        await begin(one)
        await begin(other)
        await app.start(wf, 1, idempotency_key="k", session=one)
        with pytest.raises(PyMongoError) as caught:
            await app.start(wf, 1, idempotency_key="k", session=other)
        await one.commit_transaction()
    assert caught.value.has_error_label("TransientTransactionError")
    assert caught.value.__cause__ is not caught.value


async def test_a_transaction_that_is_over_is_told_as_such(make_app: Any, client: Any, database: Any) -> None:
    wf = orders()
    await database["orders"].insert_one({"_id": 1})
    async with make_app(wf, worker=False) as app, session_of(client) as session:
        await begin(session)
        with pytest.raises(PyMongoError):
            await database["orders"].insert_one({"_id": 1}, session=session)
        for options in ({}, {"idempotency_key": "k"}):
            with pytest.raises(PyMongoError) as caught:
                await app.start(wf, 1, session=session, **options)
            assert caught.value.has_error_label("TransientTransactionError")


async def test_a_taken_id_is_refused(make_app: Any, client: Any, runs: Any) -> None:
    wf = orders()
    async with make_app(wf, worker=False) as app:
        await app.start(wf, 1, run_id="mine")
        for with_transaction in (True, False):
            async with session_of(client) as session:
                if with_transaction:
                    await begin(session)
                with pytest.raises(IdempotencyConflict) as caught:
                    await app.start(wf, 2, run_id="mine", session=session)
            assert caught.value.field == "run_id"
    assert (await runs.find_one({}))["input"] == 1


async def test_a_bad_input_ends_no_transaction(make_app: Any, client: Any, database: Any) -> None:
    wf = orders(input=int)
    async with make_app(wf, worker=False) as app:
        async with transaction_of(client) as session:
            await database["orders"].insert_one({"_id": 1}, session=session)
            with pytest.raises(InvalidInput):
                await app.start(wf, "not a number", session=session)
            handle = await app.start(wf, 5, session=session)
        assert (await handle.get()).input == 5


async def test_the_session_is_of_the_apps_own_client(make_app: Any, client: Any, mongo_uri: str) -> None:
    wf = orders()
    foreign: AsyncMongoClient[Any] = AsyncMongoClient(mongo_uri)
    with MongoClient(mongo_uri) as plain, plain.start_session() as of_plain:
        async with make_app(wf, worker=False) as app, session_of(foreign) as of_foreign, session_of(client) as ended:
            await ended.end_session()
            for session in (of_foreign, of_plain, ended, object(), "session"):
                with pytest.raises(InvalidPolicy) as caught:
                    await app.start(wf, 1, session=session)
                assert caught.value.field == "session"
    await foreign.close()


async def test_a_session_without_a_transaction_just_carries_the_insert(make_app: Any, client: Any, runs: Any) -> None:
    wf = orders()
    async with make_app(wf, worker=DEAF) as app, session_of(client) as session:
        before = session.operation_time
        began = time.monotonic()
        handle = await app.start(wf, 1, session=session)
        assert await handle.result(timeout="20s") == 1
        assert time.monotonic() - began < 3
        assert session.operation_time != before
        first = await app.start(wf, 2, session=session, idempotency_key="k", delay="1h")
        second = await app.start(wf, 3, session=session, idempotency_key="k")
    assert (first.created, second.created, second.id) == (True, False, first.id)
    assert await runs.count_documents({}) == 2


async def test_many_runs_share_one_transaction(make_app: Any, client: Any, runs: Any) -> None:
    wf = orders()
    async with make_app(wf, worker=False) as app:
        async with session_of(client) as session:
            await begin(session)
            await app.start_many(wf, list(range(1200)), session=session)
            await session.abort_transaction()
        assert await runs.count_documents({}) == 0
        async with transaction_of(client) as session:
            handles = await app.start_many(wf, list(range(1200)), session=session)
            assert await runs.count_documents({}) == 0
    stored = {document["_id"]: document["input"] async for document in runs.find()}
    assert [stored[handle.id] for handle in handles] == list(range(1200))
    assert all(handle.created for handle in handles)


async def test_many_runs_with_keys_share_one_transaction(make_app: Any, client: Any, runs: Any) -> None:
    wf = orders(input=int, idempotency_key=lambda n: None if n > 5 else f"k{n % 3}")
    async with make_app(wf, worker=False) as app:
        held = await app.start(wf, 0)
        async with transaction_of(client) as session:
            handles = await app.start_many(wf, [3, 1, 2, 4, 9], session=session)
    assert [handle.created for handle in handles] == [False, True, True, False, True]
    assert handles[0].id == held.id
    assert handles[3].id == handles[1].id
    assert await runs.count_documents({}) == 4


async def test_a_kept_key_gives_its_run_after_that_has_ended(make_app: Any, client: Any) -> None:
    wf = orders()
    async with make_app(wf) as app:
        async with transaction_of(client) as session:
            first = await app.start(wf, 1, session=session, idempotency_key="k", idempotency="forever")
        assert await first.result(timeout="20s") == 1
        async with transaction_of(client) as session:
            second = await app.start(wf, 1, session=session, idempotency_key="k", idempotency="forever")
            with pytest.raises(IdempotencyConflict):
                await app.start(wf, 2, session=session, idempotency_key="k", idempotency="forever")
    assert (second.created, second.id) == (False, first.id)


@pytest.mark.parametrize("on_limit", ["queue", "reject"])
async def test_gates_hold_for_what_a_transaction_brings(make_app: Any, client: Any, on_limit: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("narrow", concurrency=Concurrency(limit=2, on_limit=on_limit))
    at_work: list[int] = [0, 0]

    @wf.step
    async def work(ctx: Context[Any]) -> Any:
        at_work[0] += 1
        at_work[1] = max(at_work)
        await asyncio.sleep(0.05)
        at_work[0] -= 1
        return ctx.input

    async with make_app(wf) as app:
        async with transaction_of(client) as session:
            handles = await app.start_many(wf, list(range(8)), session=session)
        assert [await handle.result(timeout="20s") for handle in handles] == list(range(8))
    assert at_work == [0, 2]


async def test_a_debounced_workflow_is_refused(make_app: Any, client: Any, runs: Any) -> None:
    wf: Workflow[Any, Any, Any] = orders(debounce=Debounce("1s", key=lambda n: "k"))
    async with make_app(wf, worker=False) as app, session_of(client) as session:
        with pytest.raises(InvalidPolicy) as caught:
            await app.start(wf, 1, session=session)
    assert caught.value.field == "session"
    assert await runs.count_documents({}) == 0


async def test_closing_the_app_ends_what_looks_after_a_transaction(make_app: Any, client: Any, runs: Any) -> None:
    wf = orders()
    async with session_of(client) as session:
        before = asyncio.all_tasks()
        async with make_app(wf) as app:
            await begin(session)
            await app.start(wf, 1, session=session)
            began = time.monotonic()
        assert time.monotonic() - began < 5
        await eventually(lambda: not [t for t in asyncio.all_tasks() - before if "_watch" in repr(t)], within=1)
        await session.commit_transaction()  # the session is the caller's, and so is its transaction
    assert await runs.count_documents({"status": "draft"}) == 1
    async with make_app(wf):
        await eventually(lambda: runs.count_documents({"status": "done"}))


async def test_one_session_carries_one_transaction_after_the_other(make_app: Any, client: Any) -> None:
    wf = orders()
    async with make_app(wf, worker=DEAF) as app, session_of(client) as session:
        for n in range(5):
            await begin(session)
            handle = await app.start(wf, n, session=session)
            await session.commit_transaction()
            began = time.monotonic()
            assert await handle.result(timeout="20s") == n
            assert time.monotonic() - began < 3
