"""The primary of a replica set is killed, stepped down, frozen and cut off from the majority, under load.

What was acknowledged stays, what was committed stays as it was, and every run ends right. Members that hang by
themselves are restarted and reported (`ReplicaSet.infrastructure`); that is the server's trouble and fails no test.
"""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from uuid import uuid4

import pytest

from tests.stress import checker
from tests.stress.deadline import until
from tests.stress.evidence import Runs, gather, runs_of
from tests.stress.fleet import Fleet
from tests.stress.replica_set import ReplicaSet, replica_set
from tests.stress.starter_process import asking
from tests.stress.target import Opening

# Longer than a quick election and shorter than the hang of a frozen member: leases are both kept and lost.
WORKER = {"lease": "4s", "concurrency": 20, "poll_interval": "500ms", "max_recoveries": 1000}


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicaSet]:
    """One set for all tests of this file: it takes four seconds to begin."""
    with replica_set(tmp_path_factory.mktemp("set")) as started:
        yield started
        for trouble in started.infrastructure:
            warnings.warn(f"infrastructure: {trouble}", stacklevel=1)


@pytest.fixture
def name() -> str:
    return f"faults_{uuid4().hex[:12]}"


@pytest.fixture
def runs(members: ReplicaSet, name: str) -> Iterator[Runs]:
    members.heal()
    with runs_of(members.uri, name) as found:
        yield found


@pytest.fixture
def opening(members: ReplicaSet, name: str, fleet: Fleet) -> Opening:
    return Opening(members.uri, name, str(fleet.ledger_path), settings={"patience": "60s"})


def kill(members: ReplicaSet, dice: random.Random) -> None:
    members.primary().kill()


def step_down(members: ReplicaSet, dice: random.Random) -> None:
    members.step_down()


def freeze(members: ReplicaSet, dice: random.Random) -> None:
    primary = members.primary()
    primary.freeze()
    time.sleep(dice.uniform(1.0, 3.0))  # a hang of this length
    primary.thaw()


def isolate(members: ReplicaSet, dice: random.Random) -> None:
    """Kill both secondaries, and the primary a moment later, which comes back last: what only it has is lost."""
    secondaries, primary = members.secondaries(), members.primary()
    for member in secondaries:
        member.kill()
    time.sleep(dice.uniform(0.3, 0.8))  # writes without a majority pile up
    primary.kill()
    for member in secondaries:
        member.spawn()
    members.primary(within=60)


FAULTS: tuple[Callable[[ReplicaSet, random.Random], None], ...] = (kill, step_down, freeze, isolate)


def load(fleet: Fleet, opening: Opening, *, n: int, over: float, pace: float = 0.05) -> None:
    """Begin two workers, and two starters for `n` runs over so many seconds, of which one works as well."""
    work = {**asdict(opening), "worker": WORKER}
    fleet.spawn("worker1", opening=work)
    fleet.spawn("worker2", opening=work)
    numbers = [{"n": i, "pace": pace} for i in range(n)]
    for name, mine, how in (("queueing", numbers[::2], asdict(opening)), ("claiming", numbers[1::2], work)):
        fleet.spawn(role="starter", **asking(how, name, mine, every=over / len(mine)))


def strike(
    members: ReplicaSet, fleet: Fleet, dice: random.Random, fault: Callable[[ReplicaSet, random.Random], None]
) -> None:
    """Do harm, see that there is a primary again, and let the members recover."""
    fleet.note("fault", fault=fault.__name__)
    fault(members, dice)
    members.primary(within=60)
    members.heal()
    fleet.note("healed")


def end(members: ReplicaSet, fleet: Fleet, runs: Runs) -> None:
    """Wait until every start is answered and every run has ended, and check all of it."""
    assert fleet.wait("queueing", within=90) == 0
    assert fleet.wait("claiming", within=90) == 0
    runs.until_ended(len(runs.documents()), within=90)
    evidence = gather(runs, fleet.ledger_path)
    assert not checker.violations(evidence)
    # Patience is longer than any of these faults lasts: nobody is told that a start failed.
    assert not evidence.all("refused")
    assert len(evidence.all("started")) == len(evidence.documents)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS[:3], ids=lambda fault: fault.__name__)
def test_a_primary_goes_under_load(
    members: ReplicaSet,
    fleet: Fleet,
    runs: Runs,
    opening: Opening,
    dice: random.Random,
    fault: Callable[[ReplicaSet, random.Random], None],
) -> None:
    load(fleet, opening, n=40, over=4.0)
    until(lambda: runs.count(status="done") >= 4, within=20, what="the load")
    strike(members, fleet, dice, fault)
    end(members, fleet, runs)


@pytest.mark.stress
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_primaries_go_again_and_again(
    members: ReplicaSet,
    fleet: Fleet,
    runs: Runs,
    opening: Opening,
    dice: random.Random,
    fault: Callable[[ReplicaSet, random.Random], None],
) -> None:
    load(fleet, opening, n=400, over=60.0)
    until(lambda: runs.count(status="done") >= 4, within=20, what="the load")
    for _ in range(8):
        strike(members, fleet, dice, fault)
        time.sleep(dice.uniform(0.0, 1.0))
    end(members, fleet, runs)


@pytest.mark.stress
@pytest.mark.timeout(900)
def test_everything_goes_at_once(
    members: ReplicaSet, fleet: Fleet, runs: Runs, opening: Opening, dice: random.Random
) -> None:
    """Primaries go, and workers are killed and frozen, all at random."""
    load(fleet, opening, n=600, over=80.0)
    until(lambda: runs.count(status="done") >= 4, within=20, what="the load")
    workers = ["worker1", "worker2"]
    for i in range(15):
        place = dice.randrange(len(workers))
        fleet.freeze(workers[place])
        strike(members, fleet, dice, dice.choice(FAULTS))
        fleet.thaw(workers[place])
        if dice.random() < 0.5:
            fleet.kill(workers[place])
            workers[place] = fleet.spawn(f"successor{i}", opening={**asdict(opening), "worker": WORKER})
    end(members, fleet, runs)
