"""Claims race: every run is won once, and only while everything that made it due still holds."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from streamline.domain.transitions.claiming import lease_of, take_due, take_expired
from streamline.store import Store, statements
from tests.conformance.documents import FLOW, NOW, draft, ended, held

ROUTES = [FLOW.route]
UNTIL = NOW + timedelta(seconds=30)


def lease(token: str) -> dict[str, Any]:
    return lease_of("worker", token, NOW, UNTIL, "claimed")


async def claim_due(store: Store, token: str, limit: int) -> list[str]:
    found = await store.run(statements.find_due(ROUTES, NOW, limit))
    ids = [document["_id"] for document in found]
    await store.run(statements.claim_runs(ids, take_due(ROUTES, NOW, lease(token), by=NOW)))
    return [document["_id"] for document in await store.run(statements.find_claimed(ids, token))]


async def claim_expired(store: Store, token: str, limit: int) -> list[str]:
    found = await store.run(statements.find_expired(ROUTES, NOW, limit))
    ids = [document["_id"] for document in found]
    await store.run(statements.claim_runs(ids, take_expired(ROUTES, NOW, lease(token))))
    return [document["_id"] for document in await store.run(statements.find_claimed(ids, token))]


async def race(store: Store, claim: Any, claimers: int, limit: int) -> list[str]:
    won: list[str] = []

    async def claimer(name: int) -> None:
        turn = 0
        while got := await claim(store, f"{name}.{turn}", limit) or (turn < 3 and [""]):
            won.extend(run_id for run_id in got if run_id)
            turn += 1

    await asyncio.gather(*(claimer(i) for i in range(claimers)))
    return won


@pytest.mark.parametrize(("claimers", "limit"), [(16, 20), (8, 1)])
async def test_due_runs_are_each_won_by_one_of_many_claimers(
    store: Store, runs: Any, claimers: int, limit: int
) -> None:
    ids = [f"r{i:03}" for i in range(200 if limit > 1 else 20)]
    await runs.insert_many([draft(run_id) for run_id in ids])
    won = await race(store, claim_due, claimers, limit)
    assert sorted(won) == ids
    stored = [run async for run in runs.find({})]
    assert {(run["status"], run["attempt"], "due_at" in run) for run in stored} == {("running", 1, False)}


async def test_lost_runs_are_each_won_by_one_of_many_claimers(store: Store, runs: Any) -> None:
    ids = [f"r{i:03}" for i in range(200)]
    await runs.insert_many([held(run_id, until=NOW - timedelta(seconds=1)) for run_id in ids])
    won = await race(store, claim_expired, 16, 20)
    assert sorted(won) == ids
    stored = [run async for run in runs.find({})]
    assert {(run["attempt"], run["recovery_count"]) for run in stored} == {(2, 1)}


async def test_due_and_lost_runs_are_found_in_the_order_of_pickup(store: Store, runs: Any) -> None:
    order = [("c", 5, 1), ("d", 5, 3), ("a", 0, 9), ("b", 0, 20), ("e", -1, 99)]
    await runs.insert_many(
        [draft(name, NOW - timedelta(seconds=100 - age), priority=p) for name, p, age in order[::-1]]
    )
    found = await store.run(statements.find_due(ROUTES, NOW, 4))
    assert [document["_id"] for document in found] == ["c", "d", "a", "b"]
    await runs.insert_many([held(name, until=NOW - timedelta(seconds=i)) for i, name in enumerate("xyz")])
    found = await store.run(statements.find_expired(ROUTES, NOW, 10))
    assert [document["_id"] for document in found] == ["z", "y", "x"]


async def test_a_claim_that_is_repeated_takes_nothing_more(store: Store, runs: Any) -> None:
    await runs.insert_many([draft("due"), held("lost", until=NOW)])
    for run_id, claim in (
        ("due", take_due(ROUTES, NOW, lease("t"), by=NOW)),
        ("lost", take_expired(ROUTES, NOW, lease("t"))),
    ):
        assert await store.run(statements.claim_runs([run_id], claim)) == 1
        before = await runs.find_one({"_id": run_id})
        assert await store.run(statements.claim_runs([run_id], claim)) == 0
        assert await runs.find_one({"_id": run_id}) == before


@pytest.mark.parametrize(
    "obstacle",
    [
        {"due_at": NOW + timedelta(milliseconds=1)},
        {"route": "other@1.0.0"},
        {"route": "flow@1.0.1"},
        {"paused": {"at": NOW}},
        {"status": "running"},
        {"status": "done"},
        {"status": "cancelled"},
        {"lease": {"worker": "other", "token": "x", "until": UNTIL}},
        {"due_at": None},
    ],
    ids=repr,
)
async def test_a_run_that_is_no_longer_up_for_taking_is_not_taken(
    store: Store, runs: Any, obstacle: dict[str, Any]
) -> None:
    await runs.insert_one(draft("r") | obstacle)
    before = await runs.find_one({"_id": "r"})
    claim = take_due(ROUTES, NOW, lease("t"), by=NOW)
    assert await store.run(statements.claim_runs(["r"], claim)) == 0
    assert await store.run(statements.find_claimed(["r"], "t")) == []
    assert await runs.find_one({"_id": "r"}) == before


@pytest.mark.parametrize(
    "obstacle",
    [
        {"lease.until": NOW + timedelta(milliseconds=1)},
        {"route": "other@1.0.0"},
        {"status": "waiting"},
        {"status": "cancelled"},
        {"lease": {"worker": "other"}},
    ],
    ids=repr,
)
async def test_a_run_whose_worker_still_beats_is_not_taken(store: Store, runs: Any, obstacle: dict[str, Any]) -> None:
    await runs.insert_one(held("r", until=NOW))
    await runs.update_one({"_id": "r"}, {"$set": obstacle})
    before = await runs.find_one({"_id": "r"})
    assert await store.run(statements.claim_runs(["r"], take_expired(ROUTES, NOW, lease("t")))) == 0
    assert await runs.find_one({"_id": "r"}) == before


async def test_a_beat_extends_the_leases_that_are_still_held_and_no_other(store: Store, runs: Any) -> None:
    await runs.insert_many([held("a", "mine"), held("b", "mine-too"), held("c", "other"), draft("d"), ended("e")])
    later = UNTIL + timedelta(minutes=1)
    beat = statements.beat_leases(["a", "b", "c", "d", "e", "gone"], ["mine", "mine-too"], later)
    assert await store.run(beat) == 2
    until = {run["_id"]: run["lease"]["until"] async for run in runs.find({"lease": {"$exists": True}})}
    assert until == {"a": later, "b": later, "c": UNTIL}


async def test_leases_are_read_back(store: Store, runs: Any) -> None:
    await runs.insert_many([held("a", "mine"), ended("b"), draft("c")])
    found = await store.run(statements.find_leases(["a", "b", "c", "gone"]))
    assert {document["_id"]: document.get("lease") for document in found} == {
        "a": {"token": "mine"},
        "b": None,
        "c": None,
    }
