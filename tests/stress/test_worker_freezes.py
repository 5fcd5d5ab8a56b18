"""Workers are frozen at random instants, for less and for more than their lease, and go on: nobody does harm."""

from __future__ import annotations

import random
import time
from dataclasses import asdict

import pytest

from tests.stress import checker
from tests.stress.evidence import Runs, gather
from tests.stress.fleet import Fleet
from tests.stress.starter_process import asking
from tests.stress.target import Opening

LEASE = 0.8
WORKER = {"lease": f"{LEASE}s", "concurrency": 12, "poll_interval": "200ms", "max_recoveries": 1000}


def freeze_at_random(
    fleet: Fleet, runs: Runs, dice: random.Random, opening: Opening, *, n: int, workers: int, over: float, pace: float
) -> None:
    """Start `n` runs over so many seconds while workers freeze, and check everything."""
    names = [fleet.spawn(f"worker{i}", opening=asdict(opening)) for i in range(workers)]
    numbers = [{"n": i, "pace": pace} for i in range(n)]
    starter = asking({**asdict(opening), "worker": None}, "starter", numbers, every=over / n)
    fleet.spawn(role="starter", **starter)
    while fleet.code("starter") is None:
        victim = dice.choice(names)
        fleet.freeze(victim)
        time.sleep(dice.choice((0.5, 1.5, 2.5)) * LEASE)
        fleet.thaw(victim)
        time.sleep(dice.uniform(0.0, 0.3))
    assert fleet.code("starter") == 0
    runs.until_ended(n, within=60)
    evidence = gather(runs, fleet.ledger_path)
    assert not checker.violations(evidence, checker.recovered_from_the_dead_only)
    assert sum(run["recovery_count"] for run in evidence.documents.values()) > 0, "nobody froze at work"


@pytest.fixture
def opening(mongo_uri: str, database_name: str, fleet: Fleet) -> Opening:
    return Opening(mongo_uri, database_name, str(fleet.ledger_path), worker=WORKER)


def test_workers_freeze_and_go_on(fleet: Fleet, runs: Runs, dice: random.Random, opening: Opening) -> None:
    # So slow that whoever freezes is at work.
    freeze_at_random(fleet, runs, dice, opening, n=50, workers=2, over=6.0, pace=0.3)


@pytest.mark.stress
@pytest.mark.timeout(600)
def test_workers_freeze_again_and_again(fleet: Fleet, runs: Runs, dice: random.Random, opening: Opening) -> None:
    freeze_at_random(fleet, runs, dice, opening, n=600, workers=4, over=60.0, pace=0.05)
