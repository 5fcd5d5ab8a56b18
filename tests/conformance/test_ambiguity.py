"""Unclear answers: a write that happened although its answer was lost is reported as such, and happened once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from pymongo.errors import (
    AutoReconnect,
    ConnectionFailure,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WriteConcernError,
)

from streamline.clock import SystemClock
from streamline.domain.change import Change
from streamline.errors import StoreUnavailable, UnsafeDeployment
from streamline.settings import Settings
from streamline.store import Store, statements
from streamline.store.driver import Driver
from tests.conformance.documents import NOW, draft, held

PASSING = [
    AutoReconnect("connection closed"),
    NetworkTimeout("timed out"),
    NotPrimaryError("not primary"),
    ConnectionFailure("reset"),
    WriteConcernError("interrupted", 11602),
    OperationFailure("interrupted at shutdown", 11600),
    OperationFailure("primary stepped down", 189),
    OperationFailure("exceeded time limit", 262),
    OperationFailure("odd, but retryable", 99, {"errorLabels": ["RetryableWriteError"]}),
]
NOT_SENT = [ServerSelectionTimeoutError("no server"), WaitQueueTimeoutError("no connection")]


class Fault:
    """Stands in for the driver's `command`: the next commands of a kind go wrong, before or after they took effect."""

    def __init__(self, wire: Driver, kind: str) -> None:
        self._real, self._kind = wire.command, kind
        self.errors: list[Exception] = []
        self.after = True
        self.meanwhile: Callable[[], Any] | None = None
        self.sent = 0
        wire.command = self.command  # type: ignore[method-assign]

    async def command(self, command: Any) -> Any:
        if self._kind not in command:
            return await self._real(command)
        self.sent += 1
        if not self.errors:
            return await self._real(command)
        error = self.errors.pop(0)
        if self.after:
            await self._real(command)
            if self.meanwhile is not None:
                await self.meanwhile()
        raise error


def add_one(run_id: str, rev: int, mark: str) -> Any:
    return statements.advance_run(run_id, Change({"rev": rev}, {"rev": rev + 1}, add={"n": 1}), mark)


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("after", [True, False], ids=["after", "before"])
@pytest.mark.parametrize(
    "error",
    [*PASSING, *NOT_SENT],
    ids=lambda error: f"{type(error).__name__}{error.code if isinstance(error, OperationFailure) else ''}",
)
async def test_a_write_whose_answer_is_lost_happens_once(
    store: Store, wire: Driver, runs: Any, error: Exception, *, after: bool, times: int
) -> None:
    if after and any(error is each for each in NOT_SENT):
        pytest.skip("an error that is raised before anything is sent")
    await runs.insert_many([draft(f"r{i}") for i in range(4)])
    fault = Fault(wire, "update")
    fault.errors, fault.after = [error] * times, after
    writes = [add_one(f"r{i}", 9 if i == 3 else 1, f"m{i}") for i in range(4)]
    assert await asyncio.gather(*map(store.run, writes)) == [True, True, True, False]
    assert [run.get("n", 0) async for run in runs.find({}).sort("_id")] == [1, 1, 1, 0]
    assert fault.sent == times + 1


@pytest.mark.parametrize("after", [True, False], ids=["after", "before"])
async def test_an_insert_whose_answer_is_lost_happens_once(
    store: Store, wire: Driver, runs: Any, *, after: bool
) -> None:
    await runs.insert_one(draft("taken", idempotency_key="k"))
    fault = Fault(wire, "insert")
    fault.errors, fault.after = [AutoReconnect("closed")] * 2, after
    inserts = [
        statements.insert_run(draft("fresh", idempotency_key="l"), "m1", 0),
        statements.insert_run(draft("taken"), "m2", 0),
        statements.insert_run(draft("late", idempotency_key="k"), "m3", 0),
    ]
    assert await asyncio.gather(*map(store.run, inserts)) == ["inserted", "id_taken", "key_taken"]
    assert await runs.count_documents({}) == 2


async def test_an_insert_that_another_worker_took_up_meanwhile_was_still_an_insert(
    store: Store, wire: Driver, runs: Any
) -> None:
    fault = Fault(wire, "insert")
    fault.errors = [AutoReconnect("closed")]

    async def advance() -> None:
        await runs.update_one(
            {"_id": "r"}, {"$set": {"mark": "another's", "status": "done"}, "$unset": {"active_key": ""}}
        )

    fault.meanwhile = advance
    insert = statements.insert_run(draft("r", idempotency_key="k"), "m1", 0)
    assert await store.run(insert) == "inserted"


async def test_a_claim_whose_answer_is_lost_is_read_back(store: Store, wire: Driver, runs: Any) -> None:
    from streamline.domain.transitions.claiming import lease_of, take_due

    await runs.insert_many([draft(f"r{i}") for i in range(3)])
    fault = Fault(wire, "update")
    fault.errors = [AutoReconnect("closed")]
    ids = [f"r{i}" for i in range(3)]
    change = take_due(["flow@1.0.0"], NOW, lease_of("w", "t", NOW, NOW), by=NOW)
    await store.run(statements.claim_runs(ids, change))
    assert len(await store.run(statements.find_claimed(ids, "t"))) == 3
    assert {run["attempt"] async for run in runs.find({})} == {1}


async def test_a_write_that_the_server_could_not_confirm_is_sent_again(store: Store, wire: Driver, runs: Any) -> None:
    await runs.insert_one(draft("r"))
    real, answers = (
        wire.command,
        [{"writeConcernError": {"code": 11602}}, {"writeErrors": [{"index": 0, "code": 189}], "n": 0}],
    )

    async def doubtful(command: Any) -> Any:
        answer = await real(command)
        return {**answer, **answers.pop(0)} if "update" in command and answers else answer

    wire.command = doubtful  # type: ignore[method-assign]
    assert await store.run(add_one("r", 1, "m1"))
    assert answers == []
    assert (await runs.find_one({"_id": "r"}))["n"] == 1


async def test_a_lost_beat_is_sent_again(store: Store, wire: Driver, runs: Any) -> None:
    await runs.insert_one(held("r", "mine"))
    fault = Fault(wire, "update")
    fault.errors = [NetworkTimeout("late")]
    assert await store.run(statements.beat_leases(["r"], ["mine"], NOW)) == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OperationFailure("not authorised on db with secret", 13), UnsafeDeployment),
        (OperationFailure("authentication failed: secret", 18), UnsafeDeployment),
        (OperationFailure("bad value secret", 2), StoreUnavailable),
    ],
)
async def test_what_will_not_pass_is_reported_at_once_and_without_values(
    store: Store, wire: Driver, runs: Any, error: Exception, expected: type[Exception]
) -> None:
    await runs.insert_one(draft("r"))
    fault = Fault(wire, "update")
    fault.errors, fault.after = [error], False
    with pytest.raises(expected) as caught:
        await store.run(add_one("r", 1, "m"))
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is error
    assert fault.sent == 1


async def test_a_database_that_stays_away_is_reported_in_the_end(wire: Driver, runs: Any) -> None:
    store = Store(wire, Settings(patience="300ms"), SystemClock())
    fault = Fault(wire, "update")
    fault.errors, fault.after = [AutoReconnect("closed")] * 1000, False
    answers = await asyncio.gather(*(store.run(add_one(f"r{i}", 1, f"m{i}")) for i in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 3
    assert 2 < fault.sent < 100
    fault.errors.clear()
    assert await store.run(add_one("r", 1, "m")) is False


async def test_a_read_is_tried_again_too(
    store: Store, wire: Driver, runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await runs.insert_one(draft("r"))
    real, failures = wire.find, [AutoReconnect("closed"), NetworkTimeout("late")]

    async def shaky(collection: str, statement: Any) -> Any:
        if failures:
            raise failures.pop()
        return await real(collection, statement)

    monkeypatch.setattr(wire, "find", shaky)
    assert (await store.run(statements.find_run("r")))[0]["_id"] == "r"
