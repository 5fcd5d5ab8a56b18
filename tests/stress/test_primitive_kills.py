"""Workers are killed at random instants while runs call, sleep, wait, fan out, ask and undo; what is stored lasts."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.stress import primitive_checker
from tests.stress.fleet import ROOT, Fleet
from tests.stress.ledger import Ledger
from tests.stress.primitive_evidence import Witness, witness_of
from tests.stress.primitive_sagas import HELPED, PRIMITIVES
from tests.stress.reaper import Reaper
from tests.stress.target import Opening

# Where several are killed in one run of the suite, as many deaths have to add up: see `docs/reliability.md`.
DEATHS_EACH = 16


class PrimitiveFleet(Fleet):
    """A fleet whose processes know the workflows of durable calls."""

    def __init__(self, folder: Path) -> None:
        self.ledger_path = folder / "ledger.jsonl"
        self.stderr_path = folder / "processes.log"
        self._ledger = Ledger(self.ledger_path, "harness")
        with self.stderr_path.open("ab") as stderr:
            self._nursery = subprocess.Popen(
                [sys.executable, "-m", "tests.stress.primitive_process", str(os.getpid())],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,
            )


@pytest.fixture
def primitive_fleet(tmp_path: Path) -> Iterator[PrimitiveFleet]:
    fleet = PrimitiveFleet(tmp_path)
    try:
        yield fleet
    finally:
        fleet.close()


@pytest.fixture
def witness(mongo_uri: str, database_name: str) -> Iterator[Witness]:
    with witness_of(mongo_uri, database_name) as looking:
        yield looking


@pytest.fixture
def opening(mongo_uri: str, database_name: str, primitive_fleet: PrimitiveFleet) -> Opening:
    flows = tuple((name, name, "1.0.0") for name in (*PRIMITIVES, *HELPED))
    return Opening(mongo_uri, database_name, str(primitive_fleet.ledger_path), flows)


def slay(
    fleet: Fleet,
    witness: Witness,
    opening: Opening,
    dice: random.Random,
    names: list[str],
    *,
    each: int,
    deaths: int,
    pauses: tuple[float, float],
    pace: float,
    within: float,
) -> int:
    """Start so many runs of each workflow while workers are killed; check everything; return the number of deaths."""
    settings = {"wakes_size": 1024 * 1024}
    plain = {**asdict(opening), "settings": settings}
    worker = {"lease": "1s", "concurrency": 20, "poll_interval": "200ms", "max_recoveries": 1000}
    for name in ("anne", "bert"):
        fleet.spawn(name, "answerer", opening=plain)
    reaper = Reaper(fleet, dice, {"opening": {**plain, "worker": worker}}, size=3)
    wanted = [[name, n] for n in range(each) for name in names]
    every = deaths * sum(pauses) / 2 / len(wanted)  # so that there is work to die at, for as long as it takes
    fleet.spawn("launcher", "launcher", opening=plain, wanted=wanted, pace=pace, every=every)
    deadline = time.monotonic() + within

    def is_over() -> bool:
        witness.look()
        return fleet.code("launcher") is not None and witness.ended() == witness.count() >= len(wanted)

    while not is_over():
        if time.monotonic() > deadline:
            raise AssertionError(f"{reaper.deaths} deaths, stuck: {json.dumps(witness.stuck(), default=str)}")
        time.sleep(dice.uniform(*pauses))
        if reaper.deaths < deaths * 3:
            reaper.strike()
    assert fleet.code("launcher") == 0, fleet.stderr_path.read_text()[-2000:]
    for name in (*reaper.alive, "anne", "bert"):
        assert fleet.kill(name), f"{name} had ended by itself"
    check(fleet, witness, names, len(wanted))
    return reaper.deaths


def check(fleet: Fleet, witness: Witness, names: list[str], n: int) -> None:
    proof = witness.proof(fleet.ledger_path)
    assert len(proof.all("started")) == n
    found = primitive_checker.violations(proof)
    assert not found, "\n".join([f"{len(found)} violations", *found[:20]])
    assert {document["workflow"] for document in proof.documents.values()} >= set(names)
    assert sum(document["recovery_count"] for document in proof.documents.values()) > 0, "nobody died at work"
    again = sum(len(entries) - 1 for entries in proof.told("did").values())
    print(f"\n{len(proof.documents)} runs, {len(proof.told('did'))} calls, {again} of them carried out again")


def test_every_durable_call_survives_the_death_of_workers(
    primitive_fleet: PrimitiveFleet, witness: Witness, opening: Opening, dice: random.Random
) -> None:
    names = list(PRIMITIVES)
    deaths = slay(
        primitive_fleet, witness, opening, dice, names, each=2, deaths=10, pauses=(0.3, 0.9), pace=0.15, within=80
    )
    assert deaths >= 8


@pytest.mark.stress
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", PRIMITIVES)
def test_a_durable_call_survives_many_deaths(
    primitive_fleet: PrimitiveFleet, witness: Witness, opening: Opening, dice: random.Random, name: str
) -> None:
    deaths = slay(
        primitive_fleet,
        witness,
        opening,
        dice,
        [name],
        each=40,
        deaths=DEATHS_EACH,
        pauses=(0.2, 0.8),
        pace=0.15,
        within=150,
    )
    assert deaths >= DEATHS_EACH
