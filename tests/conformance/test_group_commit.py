"""Group commit: writes that are handed in together share commands, and each gets its own answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamline.domain.change import Change
from streamline.errors import IdempotencyConflict
from streamline.settings import Settings
from streamline.store import Store, statements
from streamline.store.driver import Driver
from streamline.store.operations import Write
from tests.conformance.documents import draft, ended

MIB = 1024 * 1024


class Counted:
    """Notes how many statements each command of a kind carries, by standing in for the driver's `command`."""

    def __init__(self, wire: Driver) -> None:
        self.updates: list[int] = []
        self.inserts: list[int] = []
        self.at_once, self.most_at_once = 0, 0
        self._real = wire.command
        wire.command = self.command  # type: ignore[method-assign]

    async def command(self, command: Any) -> Any:
        if "updates" in command:
            self.updates.append(len(command["updates"]))
        if "documents" in command:
            self.inserts.append(len(command["documents"]))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self._real(command)
        finally:
            self.at_once -= 1


def write(run_id: str, rev: int, mark: str, value: Any = 1, weight: int = 0) -> Write:
    change = Change({"rev": rev}, {"value": value, "rev": rev + 1}, weight=weight)
    return statements.advance_run(run_id, change, mark)


async def test_writes_handed_in_at_once_share_few_commands(store: Store, wire: Driver, runs: Any) -> None:
    await runs.insert_many([draft(f"r{i}") for i in range(100)])
    counted = Counted(wire)
    answers = await asyncio.gather(*(store.run(write(f"r{i}", 1, f"m{i}", i)) for i in range(100)))
    assert answers == [True] * 100
    assert sum(counted.updates) == 100
    assert len(counted.updates) <= 3
    assert {run["_id"]: run["value"] async for run in runs.find({})} == {f"r{i}": i for i in range(100)}


async def test_a_lone_write_leaves_at_once(store: Store, wire: Driver, runs: Any) -> None:
    await runs.insert_one(draft("r"))
    counted = Counted(wire)
    assert await store.run(write("r", 1, "m"))
    assert counted.updates == [1]


async def test_losers_in_a_batch_do_not_affect_the_others(store: Store, wire: Driver, runs: Any) -> None:
    await runs.insert_many([draft(f"r{i}") for i in range(30)])
    counted = Counted(wire)
    writes = [write(f"r{i}", 7 if i % 3 == 0 else 1, f"m{i}") for i in range(30)] + [write("gone", 1, "m-gone")]
    answers = await asyncio.gather(*map(store.run, writes))
    assert answers == [i % 3 != 0 for i in range(30)] + [False]
    assert len(counted.updates) <= 3
    assert {run["rev"] async for run in runs.find({"value": 1})} == {2}
    assert await runs.count_documents({"value": 1}) == 20


async def test_of_two_writes_of_one_run_one_wins(store: Store, runs: Any) -> None:
    await runs.insert_one(draft("r"))
    for rev in range(1, 11):
        answers = await asyncio.gather(*(store.run(write("r", rev, f"{rev}.{i}", i)) for i in range(8)))
        assert answers.count(True) == 1
        stored = await runs.find_one({"_id": "r"})
        assert stored["value"] == answers.index(True)
        assert stored["rev"] == rev + 1


async def test_a_key_that_is_taken_fails_its_own_write_only(store: Store, runs: Any) -> None:
    await runs.insert_many([ended("old", idempotency_key="k"), draft("new", idempotency_key="k"), draft("other")])
    reopen = statements.advance_run("old", Change({"rev": 1}, {"active_key": "k", "rev": 2}), "m1")
    answers = await asyncio.gather(store.run(reopen), store.run(write("other", 1, "m2")), return_exceptions=True)
    assert isinstance(answers[0], IdempotencyConflict)
    assert answers[1] is True
    assert (await runs.find_one({"_id": "old"}))["rev"] == 1


async def test_commands_in_flight_are_as_many_as_there_are_lanes(wire: Driver, runs: Any) -> None:
    from streamline.clock import SystemClock

    await runs.insert_many([draft(f"r{i}") for i in range(60)])
    store = Store(wire, Settings(lanes=2, batch=5), SystemClock())
    counted = Counted(wire)
    answers = await asyncio.gather(
        *(store.run(write(f"r{i}", 1, f"m{i}")) for i in range(60)),
        *(store.run(statements.insert_run(draft(f"n{i}"), f"b{i}", 0)) for i in range(30)),
    )
    assert answers == [True] * 60 + ["inserted"] * 30
    assert max(counted.updates + counted.inserts) <= 5
    assert counted.most_at_once <= 2


async def test_heavy_writes_do_not_share_one_command(store: Store, wire: Driver, runs: Any) -> None:
    await runs.insert_many([draft(f"r{i}") for i in range(6)])
    counted = Counted(wire)
    writes = [write(f"r{i}", 1, f"m{i}", "x" * 5 * MIB, 5 * MIB) for i in range(6)]
    assert await asyncio.gather(*map(store.run, writes)) == [True] * 6
    assert max(counted.updates) <= 2


async def test_a_very_heavy_write_does_not_spoil_the_command_it_shares(store: Store, runs: Any) -> None:
    await runs.insert_many([draft(f"r{i}") for i in range(4)])
    sizes = (11 * MIB, 7 * MIB, 1, 7 * MIB)
    writes = [write(f"r{i}", 1, f"m{i}", "x" * size, size) for i, size in enumerate(sizes)]
    assert await asyncio.gather(*map(store.run, writes)) == [True] * 4


async def test_inserts_handed_in_at_once_share_few_commands(store: Store, wire: Driver, runs: Any) -> None:
    counted = Counted(wire)
    inserts = [statements.insert_run(draft(f"r{i}"), f"m{i}", 0) for i in range(100)]
    assert await asyncio.gather(*map(store.run, inserts)) == ["inserted"] * 100
    assert len(counted.inserts) <= 3
    assert await runs.count_documents({}) == 100


async def test_each_insert_of_a_batch_learns_what_is_there(store: Store, runs: Any) -> None:
    await runs.insert_many([draft("taken"), draft("holder", idempotency_key="k")])
    inserts = [
        statements.insert_run(draft("fresh"), "m1", 0),
        statements.insert_run(draft("taken"), "m2", 0),
        statements.insert_run(draft("late", idempotency_key="k"), "m3", 0),
        statements.insert_run(draft("elsewhere", idempotency_key="k", tenant_id="t"), "m4", 0),
        statements.insert_run(draft("twice", idempotency_key="l"), "m5", 0),
        statements.insert_run(draft("again", idempotency_key="l"), "m6", 0),
        statements.insert_run(draft("taken", idempotency_key="k"), "m7", 0),
    ]
    expected = ["inserted", "id_taken", "key_taken", "inserted", "inserted", "key_taken", "id_taken"]
    assert await asyncio.gather(*map(store.run, inserts)) == expected
    assert await runs.distinct("_id") == ["elsewhere", "fresh", "holder", "taken", "twice"]
    assert (await runs.find_one({"_id": "taken"}))["born"] == "born-taken"


async def test_many_inserts_answer_in_order(store: Store, runs: Any) -> None:
    await runs.insert_one(draft("r700", idempotency_key="x"))
    inserts = [statements.insert_run(draft(f"r{i}"), f"m{i}", 0) for i in range(1200)]
    answers = await store.insert_many(inserts)
    assert answers == ["id_taken" if i == 700 else "inserted" for i in range(1200)]
    assert await runs.count_documents({}) == 1200
    assert await store.insert_many([]) == []


async def test_many_large_inserts_do_not_exceed_what_a_command_may_hold(store: Store, runs: Any) -> None:
    def large(count: int, size: int) -> list[Any]:
        return [statements.insert_run(draft(f"{size}-{i}") | {"input": "x" * size}, f"{i}", size) for i in range(count)]

    assert await store.insert_many(large(5, 4 * MIB)) == ["inserted"] * 5
    assert await store.insert_many(large(500, 40_000)) == ["inserted"] * 500


@pytest.mark.parametrize("waiting", [1, 20])
async def test_a_cancelled_caller_does_not_take_its_write_back(store: Store, runs: Any, waiting: int) -> None:
    await runs.insert_many([draft(f"r{i}") for i in range(waiting)])
    callers = [asyncio.ensure_future(store.run(write(f"r{i}", 1, f"m{i}"))) for i in range(waiting)]
    await asyncio.sleep(0)
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    await store.close()
    assert await runs.count_documents({"rev": 2}) == waiting


async def test_a_cancelled_caller_does_not_stop_a_claim(store: Store, runs: Any) -> None:
    await runs.insert_many([draft(f"r{i}") for i in range(5)])
    many = statements.beat_leases([], [], draft("x")["created_at"])
    claim = type(many)("claim_runs", {"_id": {"$in": [f"r{i}" for i in range(5)]}}, {"$set": {"value": 1}})
    caller = asyncio.ensure_future(store.run(claim))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await store.close()
    assert await runs.count_documents({"value": 1}) == 5
