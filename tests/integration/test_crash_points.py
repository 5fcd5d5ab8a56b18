"""The process dies at every single write of a run: enumerated, not sampled.

A run that goes well is counted first; then there is one run for each of its writes and each moment around it, with a
process of its own that dies there. Afterwards every run ends right, and nothing was done twice but what the death cut
off. Pairs of deaths: tests/stress/test_crash_pairs.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stress import checker, ledger
from tests.stress.crash_points import (
    KILLED,
    WRITES,
    attempts,
    crash_points,
    end_each,
    no_crash,
    queue,
    recover,
)
from tests.stress.evidence import Runs, gather, runs_of
from tests.stress.fleet import Fleet, fleet_in
from tests.stress.flows import FIVE
from tests.stress.target import Opening


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with fleet_in(tmp_path) as processes:
        yield processes


@pytest.fixture
def stored(mongo_uri: str, database_name: str) -> Iterator[Runs]:
    with runs_of(mongo_uri, database_name) as found:
        yield found


@pytest.mark.slow
@pytest.mark.parametrize("scenario", list(WRITES))
async def test_a_process_dies_at_every_write(
    fleet: Fleet, stored: Runs, mongo_uri: str, database_name: str, scenario: str
) -> None:
    opening = Opening(mongo_uri, database_name, str(fleet.ledger_path))
    sound, points = no_crash(scenario), crash_points(scenario)
    if scenario == "queued":
        await queue(opening, [sound, *points])

    codes = end_each(fleet, [sound, *points], lambda point: point.spawn(fleet, opening))
    survived = next(ledger.pick(ledger.read(opening.ledger), "survived", run=sound.name))
    assert tuple(survived["writes"]) == WRITES[scenario]
    assert {name for name, code in codes.items() if code != KILLED} == {sound.name}
    await recover(opening, stored, [sound, *points])

    evidence = gather(stored, fleet.ledger_path)
    assert not checker.violations(evidence)
    for point in points:
        if (document := evidence.documents.get(point.name)) is None:
            assert (point.scenario != "queued", point.moment, point.at) == (True, "before", 1), f"{point} lost its run"
            continue
        assert document["recovery_count"] <= 1, point
        tries = {step: attempts(evidence, point.name, step) for step in FIVE}
        assert sum(tries.values()) <= len(FIVE) + 1, point
        assert {step for step, n in tries.items() if n > 1}.isdisjoint(point.certain), point
        assert "call" not in point.certain or len(evidence.of(point.name, "call")) == 1, point
    assert evidence.documents[sound.name]["recovery_count"] == 0
