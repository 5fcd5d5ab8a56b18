"""The process dies at a write, and so does the one that takes over: every pair of deaths."""

from __future__ import annotations

import pytest

from tests.stress import checker
from tests.stress.crash_points import KILLED, attempts, double_crash_points, end_each, queue, recover
from tests.stress.evidence import Runs, gather
from tests.stress.fleet import Fleet
from tests.stress.flows import FIVE
from tests.stress.target import Opening


@pytest.mark.stress
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", ["claimed", "queued"])
async def test_its_successor_dies_too(
    fleet: Fleet, runs: Runs, mongo_uri: str, database_name: str, scenario: str
) -> None:
    opening, points = Opening(mongo_uri, database_name, str(fleet.ledger_path)), double_crash_points(scenario)
    if scenario == "queued":
        await queue(opening, points)
    codes = end_each(fleet, points, lambda point: point.spawn(fleet, opening))
    assert set(codes.values()) == {KILLED}
    stored = runs.documents()
    codes = end_each(
        fleet, [point for point in points if point.name in stored], lambda point: point.spawn_successor(fleet, opening)
    )
    assert set(codes.values()) == {0, KILLED}
    await recover(opening, runs, points)

    evidence = gather(runs, fleet.ledger_path)
    assert not checker.violations(evidence)
    for point in points:
        if (document := evidence.documents.get(point.name)) is None:
            assert (scenario, point.moment, point.at) == ("claimed", "before", 1), f"{point} lost its run"
            continue
        assert document["recovery_count"] <= 2, point
        tries = {step: attempts(evidence, point.name, step) for step in FIVE}
        assert sum(tries.values()) <= len(FIVE) + 2, point
        assert {step for step, n in tries.items() if n > 1}.isdisjoint(point.certain), point
