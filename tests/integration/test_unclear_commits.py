"""Commits whose answer is lost, and runs that a dead process' transaction locks."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from streamline import Context, Worker, Workflow
from tests.integration.sessions import begin, session_of
from tests.waiting import eventually

BRIEF = Worker(concurrency=50, lease="2s", poll_interval="200ms", drain="5s", cancel_grace="500ms")


def paying(ledger: Any, entered: list[int]) -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow("pay")

    @wf.step(transactional=True)
    async def pay(ctx: Context[Any]) -> str:
        entered.append(ctx.attempt)
        await ledger.insert_one({"run": ctx.run_id}, session=ctx.session)
        return "paid"

    @wf.step
    async def after(ctx: Context[Any]) -> str:
        return "after"

    return wf


class Line:
    """The way to the server, on which the answers to commits, or the commits, get lost.

    Args:
        driver: The app's.
        times: How many of them.
        sent: Whether the commit itself arrives.
    """

    def __init__(self, driver: Any, times: float, *, sent: bool) -> None:
        self.commits, self._commit = 0, driver.commit
        self._times, self._sent = times, sent
        driver.commit = self.commit

    async def commit(self, session: Any) -> None:
        self.commits += 1
        if self._sent or self.commits > self._times:
            await self._commit(session)
        if self.commits <= self._times:
            error = AutoReconnect("lost")
            error._add_error_label("UnknownTransactionCommitResult")
            raise error


@pytest.fixture
async def ledger(database: Any) -> Any:
    return await database.create_collection("ledger")


@pytest.mark.parametrize("sent", [True, False], ids=["the answer is lost", "the commit is lost"])
async def test_a_commit_is_repeated_until_it_is_known(make_app: Any, ledger: Any, *, sent: bool) -> None:
    entered: list[int] = []
    async with make_app(paying(ledger, entered)) as app:
        line = Line(app._open_session.runtime.store.driver, 3, sent=sent)
        run = await (await app.start("pay")).wait("20s")
    assert (run.status, run.step("pay").attempt, run.recovery_count) == ("done", 1, 0)
    assert line.commits == 4
    assert entered == [1]
    assert await ledger.count_documents({}) == 1


async def test_where_no_answer_comes_the_run_tells_that_it_was_moved_on(make_app: Any, ledger: Any) -> None:
    entered: list[int] = []
    told: list[str] = []
    async with make_app(paying(ledger, entered), worker=BRIEF) as app:
        app.on("step.done", lambda event: told.append(str(event.step)))
        line = Line(app._open_session.runtime.store.driver, float("inf"), sent=True)
        run = await (await app.start("pay")).wait("20s")
    assert (run.status, entered) == ("done", [1])
    assert line.commits > 3
    assert await ledger.count_documents({}) == 1


async def test_where_no_commit_comes_through_the_step_is_done_again(make_app: Any, ledger: Any) -> None:
    entered: list[int] = []
    async with make_app(paying(ledger, entered), worker=BRIEF) as app:
        Line(app._open_session.runtime.store.driver, 12, sent=False)
        run = await (await app.start("pay")).wait("30s")
    assert run.status == "done"
    assert await ledger.count_documents({}) == 1
    assert len(entered) >= 1


async def test_a_locked_run_keeps_no_other_waiting(make_app: Any, client: Any, runs: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("flow")

    @wf.step
    async def work(ctx: Context[Any]) -> Any:
        return ctx.input

    async with make_app(wf, worker=False) as app:
        handles = [await app.start(wf, n) for n in range(20)]
        past = (await runs.find_one({}))["created_at"]
        lease = {"worker": "dead", "token": "dead", "at": past, "until": past}
        change = {"$set": {"status": "running", "lease": lease, "attempt": 1}, "$unset": {"due_at": ""}}
        await runs.update_many({}, change)
    async with session_of(client) as session:
        await begin(session)
        # What a process leaves that is killed between the write that ends a step and the commit.
        await runs.update_one({"_id": handles[0].id}, {"$set": {"mark": "orphan"}}, session=session)
        began = time.monotonic()
        async with make_app(wf, worker=Worker(lease="8s", poll_interval="200ms", drain="5s")) as app:
            others = [app.handle(handle.id).wait("20s") for handle in handles[1:]]
            ended = await asyncio.gather(*others)
            assert {run.status for run in ended} == {"done"}
            assert {run.recovery_count for run in ended} == {1}
            assert time.monotonic() - began < 6
            fresh = await app.start(wf, "fresh")
            assert await fresh.result(timeout="5s") == "fresh"
            await session.abort_transaction()
            run = await app.handle(handles[0].id).wait("20s")
            assert (run.status, run.recovery_count) == ("done", 1)
            await eventually(lambda: not app._open_session.worker.crew.holdings)
