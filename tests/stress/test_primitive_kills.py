"""Workers are killed at random instants while runs call, sleep, wait, fan out, ask and undo; what is stored lasts."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from tests.stress import primitive_checker
from tests.stress.primitive_evidence import Witness, witness_of
from tests.stress.primitive_sagas import PRIMITIVES, flows_of
from tests.stress.reaper import Reaper
from tests.stress.side_fleet import SideFleet
from tests.stress.target import Opening

# 16 workflows, one test each: at least 256 deaths in all.
DEATHS_EACH = 16
PACE = 0.15  # seconds that a slow run's call takes at most


@dataclass(frozen=True)
class Plan:
    """What is started, and how many workers die meanwhile.

    Args:
        names: The workflows.
        each: Runs of each.
        deaths: About how many workers die while runs are being started.
        pauses: Shortest and longest seconds between two deaths.
        within: Seconds after which everything must have ended.
    """

    names: list[str]
    each: int
    deaths: int
    pauses: tuple[float, float]
    within: float


@pytest.fixture
def side_fleet(tmp_path: Path) -> Iterator[SideFleet]:
    fleet = SideFleet(tmp_path)
    try:
        yield fleet
    finally:
        fleet.close()


@pytest.fixture
def witness(mongo_uri: str, database_name: str) -> Iterator[Witness]:
    with witness_of(mongo_uri, database_name) as looking:
        yield looking


@pytest.fixture
def opening(mongo_uri: str, database_name: str, side_fleet: SideFleet) -> Opening:
    flows = tuple(each for kind in PRIMITIVES for each in flows_of(kind, kind))
    return Opening(mongo_uri, database_name, str(side_fleet.ledger_path), flows)


def slay(fleet: SideFleet, witness: Witness, opening: Opening, dice: random.Random, plan: Plan) -> int:
    """Start runs while workers are killed; check everything; return the number of deaths."""
    plain = {**asdict(opening), "settings": {"wakes_size": 1024 * 1024}}
    worker = {"lease": "1s", "concurrency": 20, "poll_interval": "200ms", "max_recoveries": 1000}
    for name in ("anne", "bert"):
        fleet.spawn(name, "answerer", opening=plain)
    fleet.spawn("meg", "meddler", opening=plain)
    reaper = Reaper(fleet, dice, {"opening": {**plain, "worker": worker}}, size=3)
    wanted = [[name, n] for n in range(plan.each) for name in plan.names]
    every = plan.deaths * sum(plan.pauses) / 2 / len(wanted)  # so that there is work to die at, for as long as it takes
    fleet.spawn("launcher", "launcher", opening=plain, wanted=wanted, pace=PACE, every=every)
    deadline = time.monotonic() + plan.within

    def is_over() -> bool:
        witness.look()
        return fleet.code("launcher") is not None and witness.ended() == witness.count() >= len(wanted)

    while not is_over():
        if time.monotonic() > deadline:
            raise AssertionError(f"{reaper.deaths} deaths, stuck: {witness.stuck(fleet.ledger_path)}")
        time.sleep(dice.uniform(*plan.pauses))
        if reaper.deaths < plan.deaths * 3:
            reaper.strike()
    assert fleet.code("launcher") == 0, fleet.stderr_path.read_text()[-2000:]
    for name in (*reaper.alive, "anne", "bert", "meg"):
        assert fleet.kill(name), f"{name} had ended by itself"
    check(fleet, witness, plan)
    return reaper.deaths


def check(fleet: SideFleet, witness: Witness, plan: Plan) -> None:
    proof = witness.proof(fleet.ledger_path)
    assert len(proof.all("started")) == plan.each * len(plan.names)
    found = primitive_checker.violations(proof)
    assert not found, "\n".join([f"{len(found)} violations", *found[:20]])
    assert {document["workflow"] for document in proof.documents.values()} >= set(plan.names)
    assert sum(document["recovery_count"] for document in proof.documents.values()) > 0, "nobody died at work"
    did, kills = proof.told("did"), len(proof.all("kill"))
    again = sum(len(entries) - 1 for entries in did.values())
    print(f"\n{kills} kills, {len(proof.documents)} runs, {len(did)} calls, {again} of them carried out again")


def test_every_durable_call_survives_the_death_of_workers(
    side_fleet: SideFleet, witness: Witness, opening: Opening, dice: random.Random
) -> None:
    plan = Plan(list(PRIMITIVES), each=2, deaths=10, pauses=(0.3, 0.9), within=80.0)
    assert slay(side_fleet, witness, opening, dice, plan) >= 8


@pytest.mark.stress
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", PRIMITIVES)
def test_a_durable_call_survives_many_deaths(
    side_fleet: SideFleet, witness: Witness, opening: Opening, dice: random.Random, name: str
) -> None:
    plan = Plan([name], each=40, deaths=DEATHS_EACH, pauses=(0.2, 0.8), within=150.0)
    assert slay(side_fleet, witness, opening, dice, plan) >= DEATHS_EACH
