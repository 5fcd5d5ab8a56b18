"""Many ask for one run at the same time: there is one run for each key, and everybody is given its id."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.stress.evidence import Evidence, Runs, gather
from tests.stress.fleet import Fleet
from tests.stress.ledger import Ledger
from tests.stress.starter_process import asking
from tests.stress.target import Opening

PARKING = (("parking", "parking", "1.0.0"),)
KEYS = [f"key-{i}" for i in range(50)]


def one_run_for_each_key(evidence: Evidence, callers: int) -> None:
    given: defaultdict[str, list[tuple[str, bool]]] = defaultdict(list)
    for entry in evidence.all("started"):
        given[entry["key"]].append((entry["run"], entry["created"]))
    assert not evidence.all("refused")
    assert set(given) == set(KEYS)
    assert len(evidence.documents) == len(KEYS)
    for key, answers in given.items():
        assert len(answers) == callers
        (run_id,) = {run_id for run_id, _ in answers}
        assert evidence.documents[run_id]["idempotency_key"] == key
        assert sum(created for _, created in answers) == 1, key


@pytest.mark.parametrize("working", [False, True], ids=["queueing", "working"])
def test_processes_ask_for_the_same_runs(
    fleet: Fleet, runs: Runs, mongo_uri: str, database_name: str, *, working: bool
) -> None:
    """Eight processes ask for the same fifty runs, each for every run twice at once; or they work on them as well."""
    worker = {"lease": "20s", "concurrency": 100} if working else None
    opening = Opening(mongo_uri, database_name, str(fleet.ledger_path), PARKING, worker)
    names, begin = [f"starter{i}" for i in range(8)], time.monotonic() + 2.0
    wishes: dict[str, Any] = {"workflow": "parking", "keys": KEYS, "at_once": 2, "not_before": begin}
    for name in names:
        fleet.spawn(role="starter", **asking(asdict(opening), name, [None] * len(KEYS), **wishes))
    for name in names:
        assert fleet.wait(name, within=60) == 0
    one_run_for_each_key(gather(runs, fleet.ledger_path), callers=16)


@pytest.mark.parametrize("worker", [None, {"lease": "20s", "concurrency": 20}], ids=["queueing", "working"])
async def test_tasks_ask_for_the_same_runs(
    runs: Runs, mongo_uri: str, database_name: str, tmp_path: Path, worker: dict[str, object] | None
) -> None:
    """Fifty tasks of one process ask for the same run, for each of a few keys, and all at once."""
    ledger = Ledger(tmp_path / "ledger.jsonl", "app")
    opening = Opening(mongo_uri, database_name, str(ledger.path), PARKING, worker)
    async with opening.app(ledger) as app:
        wishes = [key for key in KEYS[:4] for _ in range(50)]
        handles = await asyncio.gather(*(app.start("parking", idempotency_key=key) for key in wishes))
    given = {key: {handle.id for handle, wish in zip(handles, wishes, strict=True) if wish == key} for key in KEYS[:4]}
    assert all(len(ids) == 1 for ids in given.values()), given
    assert set().union(*given.values()) == set(runs.documents())
    assert sum(handle.created for handle in handles) == 4
