"""A worker that was away longer than its lease comes back: it writes nothing, and what it was doing is ended.

Away by SIGSTOP, or because a handler blocked the event loop and with it the heartbeat.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import pytest

from tests.stress.deadline import until
from tests.stress.evidence import Evidence, Runs, gather
from tests.stress.fleet import Fleet
from tests.stress.starter_process import asking
from tests.stress.target import Opening

LEASE = 0.6
WORKER = {"lease": f"{LEASE}s", "concurrency": 20, "poll_interval": "200ms", "cancel_grace": "1s"}


@pytest.fixture
def opening(mongo_uri: str, database_name: str, fleet: Fleet) -> Opening:
    return Opening(mongo_uri, database_name, str(fleet.ledger_path), (("holding", "holding", "1.0.0"),), WORKER)


def holding(*, turns: int = 1, turn: float = 0.0, again: float = 0.0, block: str | None = None) -> dict[str, Any]:
    """Return an input of the workflow of that name."""
    return {"turns": turns, "turn": turn, "again": again, "block": block}


def begin(fleet: Fleet, runs: Runs, opening: Opening, inputs: list[dict[str, Any]]) -> None:
    """Let a first worker begin all runs, then have a second one at hand."""
    fleet.spawn("first", opening=asdict(opening))
    add(fleet, runs, opening, "starter", inputs)
    fleet.spawn("second", opening=asdict(opening))


def add(fleet: Fleet, runs: Runs, opening: Opening, name: str, inputs: list[dict[str, Any]]) -> None:
    """Start runs and wait until the first worker has begun them all."""
    n = runs.count() + len(inputs)
    fleet.spawn(role="starter", **starting(opening, name, inputs))
    until(lambda: len(gather(runs, fleet.ledger_path).all("enter", by="first")) == n, within=20, what="work")


def starting(opening: Opening, name: str, inputs: list[dict[str, Any]]) -> dict[str, Any]:
    return asking({**asdict(opening), "worker": None}, name, inputs, workflow="holding")


def nothing_was_overwritten(evidence: Evidence, n: int) -> None:
    assert len(evidence.documents) == n
    for run_id, run in evidence.documents.items():
        assert run["status"] == "done", run
        assert run["output"]["by"] == "second", run
        assert run["recovery_count"] == 1, run
        (told,) = evidence.acknowledged(run_id, "hold")
        assert told["by"] == "second"
        assert not [entry for entry in evidence.of(run_id, "enter", step="after") if entry["by"] != "second"]


def ended_by_first(fleet: Fleet, runs: Runs) -> int:
    """Return how many handlers of the first worker have ended, by themselves or because they were told to."""
    evidence = gather(runs, fleet.ledger_path)
    return len(evidence.all("exit", by="first")) + len(evidence.all("cancelled", by="first"))


def unchanged_for(runs: Runs, seconds: float) -> None:
    """Let the zombie speak for so long, and see that what is stored stays as it is."""
    before, deadline = runs.documents(), time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert runs.documents() == before
        time.sleep(0.05)


def test_a_zombie_that_has_finished_is_refused(fleet: Fleet, runs: Runs, opening: Opening) -> None:
    """Its handlers return the moment it is continued, so that each of them tries to commit."""
    n = 10
    begin(fleet, runs, opening, [holding(turn=2.0, again=2.0)] * n)
    fleet.freeze("first")
    runs.until_ended(n, within=20)
    fleet.thaw("first")
    until(lambda: ended_by_first(fleet, runs) == n, within=20, what="the end of its handlers")
    unchanged_for(runs, 2 * LEASE)
    nothing_was_overwritten(gather(runs, fleet.ledger_path), n)


def test_a_zombie_comes_back_in_the_middle_of_the_new_attempt(fleet: Fleet, runs: Runs, opening: Opening) -> None:
    """The old holder's outputs come first, and still are not taken."""
    n, turn = 10, 2.0
    begin(fleet, runs, opening, [holding(turn=turn, again=2 * turn)] * n)
    begun = time.monotonic()
    fleet.freeze("first")
    until(lambda: len(gather(runs, fleet.ledger_path).all("enter", by="second")) == n, within=10, what="recovery")
    until(lambda: time.monotonic() > begun + turn, within=10)  # its handlers return as soon as it is continued
    fleet.thaw("first")
    runs.until_ended(n, within=20)
    unchanged_for(runs, 2 * LEASE)
    nothing_was_overwritten(gather(runs, fleet.ledger_path), n)


def test_what_a_zombie_was_doing_is_cancelled(fleet: Fleet, runs: Runs, opening: Opening) -> None:
    """Its handlers have much left to do when it is continued: they are told to end, and the worker is of use again."""
    n = 5
    begin(fleet, runs, opening, [holding(turns=600, turn=0.1)] * n)
    fleet.freeze("first")
    runs.until_ended(n, within=20)
    fleet.thaw("first")
    until(lambda: ended_by_first(fleet, runs) == n, within=10, what="cancellation")
    unchanged_for(runs, 2 * LEASE)
    evidence = gather(runs, fleet.ledger_path)
    nothing_was_overwritten(evidence, n)
    assert not evidence.all("exit", by="first")
    fleet.kill("second")
    fleet.spawn(role="starter", **starting(opening, "later", [holding()]))
    runs.until_ended(n + 1, within=20)


def test_a_blocked_event_loop_makes_a_zombie_too(fleet: Fleet, runs: Runs, opening: Opening) -> None:
    """One handler blocks its process for longer than the lease; others in the same process lose their runs with it."""
    unblock = fleet.ledger_path.with_name("unblock")
    patient, blocking = holding(turns=600, turn=0.1), holding(turns=0, block=str(unblock))
    fleet.spawn("first", opening=asdict(opening))
    add(fleet, runs, opening, "starter", [patient, patient])
    add(fleet, runs, opening, "blocker", [blocking])
    fleet.spawn("second", opening=asdict(opening))
    runs.until_ended(3, within=20)
    unblock.touch()
    until(lambda: ended_by_first(fleet, runs) == 3, within=10, what="the end of its handlers")
    unchanged_for(runs, 2 * LEASE)
    evidence = gather(runs, fleet.ledger_path)
    nothing_was_overwritten(evidence, 3)
    assert len(evidence.all("cancelled", by="first")) >= 2
