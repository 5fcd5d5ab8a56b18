"""Workers are killed with SIGKILL at random instants; every run ends right all the same."""

from __future__ import annotations

import random
from dataclasses import asdict
from typing import Any

import pytest

from tests.stress import checker
from tests.stress.evidence import Runs, gather
from tests.stress.fleet import Fleet
from tests.stress.reaper import Reaper
from tests.stress.starter_process import asking
from tests.stress.target import Opening


def inputs(n: int, pace: float) -> list[dict[str, Any]]:
    return [{"n": i, "pace": pace} for i in range(n)]


def slay(
    fleet: Fleet, runs: Runs, opening: Opening, dice: random.Random, *, n: int, workers: int, over: float, lease: str
) -> int:
    """Start `n` runs over so many seconds while workers are killed; check everything; return the number of deaths."""
    worker = {"lease": lease, "concurrency": 12, "poll_interval": "300ms", "max_recoveries": 1000}
    working = {"opening": {**asdict(opening), "worker": worker}}
    reaper = Reaper(fleet, dice, working, size=workers)
    # One starter only starts; the other works too, so that its runs are born claimed, and is killed in the end.
    half = n // 2
    queueing = asking(asdict(opening), "queueing", inputs(half, 0.2), every=over / half)
    claiming = asking({**asdict(opening), "worker": worker}, "claiming", inputs(n - half, 0.2), every=over / half)
    fleet.spawn(role="starter", **queueing)
    fleet.spawn(role="starter", **claiming)
    reaper.rage(0.2, 1.2, until=lambda: runs.count() >= n - 5, within=over * 4 + 30)
    assert fleet.wait("queueing", within=30) == 0
    fleet.kill("claiming")
    evidence = gather(runs, fleet.ledger_path)
    runs.until_ended(len(evidence.documents), within=60)
    evidence = gather(runs, fleet.ledger_path)
    assert len(evidence.all("started")) >= n * 0.9
    assert not checker.violations(evidence, checker.recovered_from_the_dead_only)
    assert sum(document["recovery_count"] for document in evidence.documents.values()) > 0, "nobody died at work"
    return reaper.deaths


def test_runs_survive_the_death_of_workers(
    fleet: Fleet, runs: Runs, dice: random.Random, mongo_uri: str, database_name: str
) -> None:
    opening = Opening(mongo_uri, database_name, str(fleet.ledger_path))
    assert slay(fleet, runs, opening, dice, n=60, workers=3, over=6.0, lease="1s") >= 4


@pytest.mark.stress
@pytest.mark.timeout(600)
@pytest.mark.parametrize("lease", ["600ms", "1500ms"])
def test_many_runs_survive_many_deaths(
    fleet: Fleet, runs: Runs, dice: random.Random, mongo_uri: str, database_name: str, lease: str
) -> None:
    opening = Opening(mongo_uri, database_name, str(fleet.ledger_path))
    assert slay(fleet, runs, opening, dice, n=500, workers=4, over=50.0, lease=lease) >= 40
