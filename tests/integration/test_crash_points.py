"""The process dies at every single write of a run: enumerated, not sampled.

A run that goes well is counted first; then there is one run for each of its writes and each moment around it, with a
process of its own that dies there. Afterwards every run ends right, and nothing was done twice but what the death cut
off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.stress import checker, ledger
from tests.stress.crash_points import CrashPoint, all_flows, crash_points, double_crash_points
from tests.stress.evidence import Evidence, Runs, gather, runs_of
from tests.stress.fleet import Fleet, fleet_in
from tests.stress.ledger import Ledger
from tests.stress.target import Opening, tell_events

AT_A_TIME = 4
KILLED = -9
RECOVERS = {"lease": "1s", "poll_interval": "100ms", "concurrency": 30}
WRITES = {
    # Claimed at birth: no claim. Then one write per step, one for the durable call, one to park the run for the sleep,
    # one to claim it when it is due.
    "claimed": ["insert", "advance", "advance", "advance", "advance", "claim", "advance", "advance", "advance"],
    "queued": ["claim", "advance", "advance", "advance", "advance", "claim", "advance", "advance", "advance"],
}


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with fleet_in(tmp_path) as processes:
        yield processes


@pytest.fixture
def stored(mongo_uri: str, database_name: str) -> Iterator[Runs]:
    with runs_of(mongo_uri, database_name) as found:
        yield found


@pytest.fixture
def opening(mongo_uri: str, database_name: str, fleet: Fleet) -> Opening:
    return Opening(mongo_uri, database_name, str(fleet.ledger_path))


async def queue(opening: Opening, points: list[CrashPoint]) -> None:
    """Start the runs of the points in a process that works on none."""
    told = Ledger(opening.ledger, "queueing")
    async with replace(opening, flows=all_flows(points)).app(told) as app:
        for point in points:
            told.write("asking", value=point.value)
            handle = await app.start(point.name, point.value, run_id=point.name)
            told.write("started", run=handle.id, value=point.value)
    told.close()


def end(fleet: Fleet, points: list[CrashPoint], spawn: Callable[[CrashPoint], str]) -> dict[str, int]:
    """Begin a process for each point, a few at a time; return how each ended, by the run's id."""
    codes: dict[str, int] = {}
    for begin in range(0, len(points), AT_A_TIME):
        names = {point.name: spawn(point) for point in points[begin : begin + AT_A_TIME]}
        codes |= {run_id: fleet.wait(name, within=40) for run_id, name in names.items()}
    return codes


async def recover(opening: Opening, stored: Runs, points: list[CrashPoint]) -> None:
    """Let a worker that serves all points bring the runs that are there to an end."""
    told = Ledger(opening.ledger, "recovering")
    async with replace(opening, flows=all_flows(points), worker=RECOVERS).app(told) as app:
        tell_events(app, told)
        await asyncio.gather(*(app.handle(run_id).wait(60) for run_id in stored.documents()))
    told.close()


def attempts(evidence: Evidence, run_id: str) -> int:
    """Return how many attempts a run took, over all of its steps."""
    return len({(entry["step"], entry["attempt"]) for entry in evidence.of(run_id, "enter")})


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["claimed", "queued"])
async def test_a_process_dies_at_every_write(fleet: Fleet, stored: Runs, opening: Opening, scenario: str) -> None:
    sound = CrashPoint(0, scenario, "before", 0)
    points = crash_points(scenario, len(WRITES[scenario]))
    if scenario == "queued":
        await queue(opening, [sound, *points])

    codes = end(fleet, [sound, *points], lambda point: point.spawn(fleet, opening))
    survived = next(ledger.pick(ledger.read(opening.ledger), "survived", run=sound.name))
    assert survived["writes"] == WRITES[scenario]
    assert {name for name, code in codes.items() if code != KILLED} == {sound.name}
    await recover(opening, stored, points)

    evidence = gather(stored, fleet.ledger_path)
    assert not checker.violations(evidence)
    for point in points:
        if (document := evidence.documents.get(point.name)) is None:
            assert (point.scenario, point.moment, point.at) == ("claimed", "before", 1), f"{point} lost its run"
            continue
        assert document["recovery_count"] <= 1, point
        assert attempts(evidence, point.name) <= 6, point
    assert attempts(evidence, sound.name) == 5


@pytest.mark.stress
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", ["claimed", "queued"])
async def test_its_successor_dies_too(fleet: Fleet, stored: Runs, opening: Opening, scenario: str) -> None:
    points = double_crash_points(scenario, len(WRITES[scenario]))
    if scenario == "queued":
        await queue(opening, points)
    codes = end(fleet, points, lambda point: point.spawn(fleet, opening))
    assert set(codes.values()) == {KILLED}
    there = [point for point in points if point.name in stored.documents()]
    codes = end(fleet, there, lambda point: point.spawn_successor(fleet, opening))
    assert set(codes.values()) == {0, KILLED}
    await recover(opening, stored, points)

    evidence = gather(stored, fleet.ledger_path)
    assert not checker.violations(evidence)
    for run_id, document in evidence.documents.items():
        assert document["recovery_count"] <= 2, run_id
        assert attempts(evidence, run_id) <= 7, run_id
