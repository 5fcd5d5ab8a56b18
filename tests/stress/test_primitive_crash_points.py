"""The process dies at each write of a run in turn, whatever the run does: calls, sleeps, waits, branches, children."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import pytest

from streamline import Streamline
from tests.stress import ledger, primitive_checker
from tests.stress.deadline import until
from tests.stress.primitive_evidence import ENDED, Proof, Witness, witness_of
from tests.stress.primitive_sagas import PRIMITIVES, flows_of
from tests.stress.side_fleet import SideFleet
from tests.stress.target import Opening

AT_A_TIME = 4
POINTS_MAX = 60
KILLED = -9
PACE = 0.01


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


class Deaths:
    """Processes that each have a run, and a workflow, of their own, and die at a write of theirs."""

    def __init__(self, fleet: SideFleet, opening: Opening, kind: str) -> None:
        self._fleet = fleet
        self._opening = opening
        self._kind = kind
        self._names: list[str] = []

    def meet(self, points: list[tuple[str, int]]) -> list[int]:
        """Let a process for each point, ``(moment, at)``, live and die; return how they ended."""
        codes = []
        for begin in range(0, len(points), AT_A_TIME):
            names = [self._spawn(moment, at) for moment, at in points[begin : begin + AT_A_TIME]]
            codes += [self._fleet.wait(name, within=90) for name in names]
        return codes

    def writes(self) -> int:
        """Return how many writes there are of a run whose process lives."""
        assert self.meet([("none", 0)]) == [0], self._fleet.stderr_path.read_text()[-2000:]
        survived = next(ledger.pick(ledger.read(self._fleet.ledger_path), "survived"))
        return int(survived["writes"])

    def recover(self) -> None:
        """Begin a worker that serves them all."""
        flows = tuple(each for name in self._names for each in flows_of(self._kind, name))
        worker = {"lease": "1s", "poll_interval": "100ms", "concurrency": 30}
        self._fleet.spawn("rescuer", opening=asdict(replace(self._opening, flows=flows, worker=worker)))

    def asking(self) -> AbstractAsyncContextManager[Streamline]:
        """Return an app that serves nothing, for an operator."""
        return Streamline(self._opening.uri, database=self._opening.database, worker=False)

    def _spawn(self, moment: str, at: int) -> str:
        name = f"{self._kind}-{moment}-{at}"
        self._names.append(name)
        # Nothing but the death of its process may cost a run its lease here.
        worker = {"lease": "2s", "poll_interval": "100ms", "concurrency": 100}
        mine = asdict(replace(self._opening, flows=flows_of(self._kind, name), worker=worker))
        order = {"opening": mine, "workflow": name, "pace": PACE, "moment": moment, "at": at}
        return self._fleet.spawn(f"victim-{name}", "victim", **order)


@pytest.fixture
def deaths(side_fleet: SideFleet, mongo_uri: str, database_name: str, request: pytest.FixtureRequest) -> Deaths:
    opening = Opening(mongo_uri, database_name, str(side_fleet.ledger_path), ())
    for name in ("anne", "bert"):
        side_fleet.spawn(name, "answerer", opening=asdict(opening))
    return Deaths(side_fleet, opening, request.node.callspec.params["kind"])


@pytest.mark.stress
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", PRIMITIVES)
def test_a_process_dies_at_each_write(
    side_fleet: SideFleet, witness: Witness, deaths: Deaths, dice: random.Random, kind: str
) -> None:
    points = some_points(deaths.writes(), dice, POINTS_MAX)
    codes = deaths.meet(points)
    # Answers come when they come, and branches share writes: a run may have had some fewer than the first.
    assert set(codes) <= {0, KILLED}
    assert codes.count(KILLED) >= len(points) / 2
    witness.look()
    deaths.recover()
    wait_for_all(witness, side_fleet.ledger_path)

    proof = witness.proof(side_fleet.ledger_path)
    found = primitive_checker.violations(proof)
    assert not found, "\n".join([f"{len(found)} violations", *found[:20]])
    # Only those that died before their first write have no run.
    assert len(roots(proof)) == 1 + len(points) - (("before", 1) in points)
    print(f"\n{kind}: {len(points)} points, {codes.count(KILLED)} deaths")


@pytest.mark.stress
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", PRIMITIVES)
async def test_a_run_whose_process_died_is_cancelled_and_retried(
    side_fleet: SideFleet, witness: Witness, deaths: Deaths, dice: random.Random, kind: str
) -> None:
    points = some_points(deaths.writes(), dice, POINTS_MAX // 2)
    deaths.meet(points)
    witness.look()
    proof = witness.proof(side_fleet.ledger_path)
    lost = [run_id for run_id in roots(proof) if proof.documents[run_id]["status"] not in ENDED]
    assert lost
    async with deaths.asking() as app:
        for run_id in lost:
            await app.cancel(run_id, reason="its worker is gone")
        for run_id in lost:
            if await app.handle(run_id).status() == "cancelled":
                await app.retry(run_id)
    deaths.recover()
    await asyncio.to_thread(wait_for_all, witness, side_fleet.ledger_path)

    proof = witness.proof(side_fleet.ledger_path)
    # Another generation of a step has children of its own; those of the one before were cancelled with it.
    found = primitive_checker.violations(proof, leave_out=("every_run_is_there", "events_are_whole", "tokens_stay"))
    assert not found, "\n".join([f"{len(found)} violations", *found[:20]])
    print(f"\n{kind}: {len(lost)} runs were cancelled and retried")


def some_points(writes: int, dice: random.Random, most: int) -> list[tuple[str, int]]:
    points = list(product(("before", "applied"), range(1, writes + 1)))
    return points if len(points) <= most else sorted(dice.sample(points, most))


def wait_for_all(witness: Witness, path: Path) -> None:
    try:
        until(lambda: witness.ended() == witness.count(), within=60, every=0.1)
    except AssertionError:
        raise AssertionError(f"stuck: {witness.stuck(path)}") from None


def roots(proof: Proof) -> list[str]:
    return [run_id for run_id, document in proof.documents.items() if "parent" not in document]
