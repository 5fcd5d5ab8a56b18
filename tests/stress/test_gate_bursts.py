"""Eight processes start runs behind gates, all at once, and some are killed: no gate lets one too many through.

How many runs are at work, and when they began, is told by what their handlers leave outside the database.
"""

from __future__ import annotations

import random
import statistics
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from tests.stress import gate_checker as checker
from tests.stress.deadline import until
from tests.stress.evidence import Evidence, Runs
from tests.stress.fleet import Fleet
from tests.stress.gate_crowd import SIZE, Call, Crowd, calls_of
from tests.stress.target import Opening

WORKER = {"lease": "10s", "concurrency": 20, "poll_interval": "500ms"}
MORTAL = {"lease": "1500ms", "concurrency": 20, "poll_interval": "300ms", "max_recoveries": 1000}

SMOKE, LONG = 6, 50
BURIED = 2.0  # seconds until the runs of a process that was killed are taken over
SPREAD = 1.0  # seconds until every process knows that a workflow is held up; five where a hint is lost
PROMPT = 1.0  # seconds from a start to its handler, where eight processes share two cores


@pytest.fixture
def opening(fleet: Fleet, mongo_uri: str, database_name: str) -> Opening:
    return Opening(mongo_uri, database_name, str(fleet.ledger_path), worker=WORKER)


@pytest.fixture
def mortal(fleet: Fleet, mongo_uri: str, database_name: str) -> Opening:
    """How processes open that are killed: their runs are soon taken over."""
    return Opening(mongo_uri, database_name, str(fleet.ledger_path), worker=MORTAL)


def sizes(*, deaths: int = 0) -> Any:
    """Return the parameters of the smoke test and of the long one: calls of each process, and deaths."""
    long = pytest.param(LONG, deaths * 4, id="long", marks=[pytest.mark.stress, pytest.mark.timeout(600)])
    return pytest.mark.parametrize(("each", "deaths"), [pytest.param(SMOKE, deaths, id="smoke"), long])


def same_calls(each: int, **value: Any) -> list[list[Call]]:
    return [calls_of(place, each, **value) for place in range(SIZE)]


def left_in(opening: Opening) -> list[dict[str, Any]]:
    """Return what is left in the collection of gates."""
    with MongoClient[dict[str, Any]](opening.uri) as client:
        return list(client[opening.database]["streamline.gates"].find())


def check(evidence: Evidence, opening: Opening, *, keys: int = 0, limit: int = 0, refused: bool = False) -> None:
    """Check what always holds in the end: nothing is lost or left, and each throttle's key has one small ledger."""
    assert not [*checker.lost_or_left(evidence), *checker.more_than_asked_for(evidence)]
    assert refused or not evidence.all("refused")
    ledgers = left_in(opening)
    assert len(ledgers) == keys
    for each in ledgers:
        assert len(each["started"]) <= limit
        assert len(each["plan"]) <= limit
        assert each["expire_at"]


@sizes(deaths=4)
def test_one_run_for_a_key(
    fleet: Fleet, runs: Runs, mortal: Opening, tmp_path: Path, dice: random.Random, each: int, deaths: int
) -> None:
    """All are given the id of one run, which is at work until all were answered; some are killed meanwhile."""
    done = tmp_path / "done"
    calls = same_calls(each, until=str(done))
    for call in (call for several in calls for call in several):
        call["options"] = {"idempotency_key": "only"}
    crowd = Crowd(fleet, runs, mortal, {"concurrency": {"limit": 1}}, calls)
    crowd.until_ready()
    crowd.rage(dice, deaths=deaths)
    crowd.until_answered()
    done.touch()
    evidence = crowd.finish()
    check(evidence, mortal)
    told = evidence.all("started")
    assert len(told) == SIZE * each
    assert {entry["run"] for entry in told} == set(evidence.documents)
    assert len(evidence.documents) == 1
    assert sum(entry["created"] for entry in told) == 1


def check_slots(evidence: Evidence, limit: int, keys: int = 1) -> None:
    """Check that never more than the limit were at work, and that as many were."""
    assert not list(checker.too_many_at_work(evidence, limit))
    assert list(checker.crowds(evidence).values()) == [limit] * keys


@sizes()
def test_never_a_fourth_at_work(fleet: Fleet, runs: Runs, opening: Opening, each: int, deaths: int) -> None:
    """Of two keys three each are at work, and no fourth; between two steps they sleep, and hold their slots."""
    calls = same_calls(each, pace=0.005, rest=0.02)
    for call in (call for several in calls for call in several[::2]):
        call["value"]["key"] = "other"
    evidence = Crowd(fleet, runs, opening, {"concurrency": {"limit": 3}}, calls).finish(within=240)
    check(evidence, opening)
    check_slots(evidence, 3, keys=2)
    assert len(evidence.documents) == SIZE * each


@sizes(deaths=5)
def test_never_a_fourth_at_work_whoever_dies(
    fleet: Fleet, runs: Runs, mortal: Opening, dice: random.Random, each: int, deaths: int
) -> None:
    crowd = Crowd(fleet, runs, mortal, {"concurrency": {"limit": 3}}, same_calls(each, pace=0.05), at_once=3)
    crowd.until_ready()
    crowd.rage(dice, deaths=deaths)
    evidence = crowd.finish(within=300)
    check(evidence, mortal)
    check_slots(evidence, 3)
    assert len(evidence.documents) >= SIZE * each


@sizes(deaths=4)
def test_just_the_limit_is_let_in(
    fleet: Fleet, runs: Runs, mortal: Opening, dice: random.Random, tmp_path: Path, each: int, deaths: int
) -> None:
    """Where the others are refused, three are let in and no more, as long as they are at work."""
    done = tmp_path / "done"
    gates = {"concurrency": {"limit": 3, "on_limit": "reject"}}
    crowd = Crowd(fleet, runs, mortal, gates, same_calls(each, until=str(done)))
    crowd.until_ready()
    crowd.rage(dice, deaths=deaths)
    crowd.until_answered()
    done.touch()
    evidence = crowd.finish()
    check(evidence, mortal, refused=True)
    assert len(evidence.documents) == 3
    refused = evidence.all("refused")
    assert {entry["error"] for entry in refused} == {"ConcurrencyLimitReached"}
    assert len(evidence.all("started")) <= 3
    assert len(refused) + len(evidence.all("started")) == SIZE * each


@sizes(deaths=4)
@pytest.mark.parametrize("dying", [False, True], ids=["living", "dying"])
def test_no_window_holds_more_starts_than_the_limit(
    fleet: Fleet, runs: Runs, mortal: Opening, dice: random.Random, each: int, deaths: int, *, dying: bool
) -> None:
    limit, window = (15, 0.5) if each == SMOKE else (40, 1.0)
    gates = {"throttle": {"limit": limit, "window": f"{window}s"}}
    crowd = Crowd(fleet, runs, mortal, gates, same_calls(each))
    crowd.until_ready()
    crowd.rage(dice, deaths=deaths if dying else 0)
    evidence = crowd.finish(within=120)
    check(evidence, mortal, keys=1, limit=limit)
    assert len(evidence.documents) >= SIZE * each
    assert not list(checker.too_many_begun(evidence, limit, window))
    lags = checker.lags(evidence)
    print(f"handlers began after {statistics.median(lags.values()):.3f} s, at most {max(lags.values()):.3f} s")
    assert not list(checker.begun_late(evidence, within=PROMPT))


@sizes(deaths=4)
@pytest.mark.parametrize("dying", [False, True], ids=["living", "dying"])
def test_one_run_with_the_last_input(
    fleet: Fleet, runs: Runs, mortal: Opening, dice: random.Random, each: int, deaths: int, *, dying: bool
) -> None:
    gates = {"debounce": {"window": "2s"}}
    crowd = Crowd(fleet, runs, mortal, gates, same_calls(each))
    crowd.until_ready()
    crowd.rage(dice, deaths=deaths if dying else 0, longest=0.4)
    evidence = crowd.finish(within=120)
    check(evidence, mortal)
    assert not list(checker.outdated_inputs(evidence))
    assert len(evidence.documents) == 1
    assert sum(entry["created"] for entry in evidence.all("started")) <= 1


@sizes(deaths=3)
def test_a_draft_waits_no_longer_than_it_may(
    fleet: Fleet, runs: Runs, mortal: Opening, dice: random.Random, each: int, deaths: int
) -> None:
    """Starts keep coming for longer than `max_wait`: each run begins by then, with the last input that it was given."""
    longest = 1.5
    gates = {"debounce": {"window": "1s", "max_wait": f"{longest}s"}}
    crowd = Crowd(fleet, runs, mortal, gates, same_calls(each), at_once=1, every=3.0 / each)
    crowd.until_ready()
    crowd.rage(dice, deaths=deaths, longest=0.4)
    evidence = crowd.finish(within=120)
    check(evidence, mortal)
    assert not list(checker.outdated_inputs(evidence))
    assert len(evidence.documents) >= 2
    for span in checker.spans(evidence):
        first = min(entry["at"] for entry in evidence.of(span.run, "started"))
        assert (span.begins - first) / checker.SECOND <= longest + PROMPT + BURIED


@sizes(deaths=5)
def test_all_gates_at_once(
    fleet: Fleet, runs: Runs, mortal: Opening, dice: random.Random, each: int, deaths: int
) -> None:
    """Of two keys, starts that have idempotency keys make drafts, which wait for a slot and a place in the window."""
    gates = {
        "concurrency": {"limit": 2},
        "throttle": {"limit": 3, "window": "1s"},
        "debounce": {"window": "200ms", "max_wait": "400ms"},
    }
    calls = [calls_of(place, each, pace=0.1, key=f"k{place % 2}") for place in range(SIZE)]
    for call in (call for several in calls for call in several):
        call["options"] = {"idempotency_key": f"{call['value']['key']}-{call['value']['n'] % 5}"}
    crowd = Crowd(fleet, runs, mortal, gates, calls, at_once=2, every=3.0 / each)
    crowd.until_ready()
    crowd.rage(dice, deaths=deaths)
    evidence = crowd.finish(within=300)
    check(evidence, mortal, keys=2, limit=3)
    violations = [
        *checker.too_many_at_work(evidence, 2),
        *checker.too_many_begun(evidence, 3, 1.0),
        *checker.begun_late(evidence, within=PROMPT),
        *checker.at_once_under_one_key(evidence),
    ]
    assert not violations
    assert len(evidence.documents) >= 6


@sizes()
@pytest.mark.parametrize("limits", [(4, 2), (2, 5)], ids=["lower", "higher"])
def test_a_deploy_changes_the_limit(
    fleet: Fleet, runs: Runs, mortal: Opening, each: int, deaths: int, limits: tuple[int, int]
) -> None:
    """Processes are replaced one by one by others with another limit: both hold meanwhile, then the new one alone."""
    before, after = limits
    calls = same_calls(each, pace=0.1)
    crowd = Crowd(fleet, runs, mortal, {"concurrency": {"limit": before}}, calls)
    crowd.until_answered()
    for place in range(SIZE):
        fleet.kill(crowd.alive[place]) if place % 2 else fleet.dismiss(crowd.alive[place])
    for place in range(SIZE):
        fleet.wait(crowd.alive[place], within=30)
        crowd.replace(place, gates={"concurrency": {"limit": after}})
    crowd.until_ready()
    changed = max(entry["at"] for entry in crowd.entries() if entry["what"] == "ready")
    evidence = crowd.finish(within=240)
    check(evidence, mortal)
    assert not list(checker.too_many_at_work(evidence, max(limits)))
    assert not list(checker.too_many_at_work(evidence, after, since=changed))
    assert checker.crowds(evidence, since=changed) == {"one": after}


@sizes(deaths=2)
def test_nothing_begins_in_a_workflow_that_is_held_up(
    fleet: Fleet, runs: Runs, mortal: Opening, dice: random.Random, each: int, deaths: int
) -> None:
    """Runs are started meanwhile and processes die: no step begins until the workflow may go on, then all do."""
    gates = {"concurrency": {"limit": 5}}
    crowd = Crowd(fleet, runs, mortal, gates, same_calls(each, pace=0.05), at_once=1, every=3.0 / each)
    crowd.until_ready()
    plain = {"uri": mortal.uri, "database": mortal.database, "ledger": mortal.ledger}
    fleet.spawn("holder", "holder", opening=plain, gates=gates, seconds=2.5)
    until(lambda: any(entry["what"] == "held up" for entry in crowd.entries()), within=30, every=0.05)
    crowd.rage(dice, deaths=deaths)
    assert fleet.wait("holder", within=60) == 0
    evidence = crowd.finish(within=240)
    check(evidence, mortal)
    (held_up,), (let_go,) = evidence.all("held up"), evidence.all("letting go")
    begun = [entry["at"] for entry in evidence.all("enter")]
    assert not [at for at in begun if held_up["at"] + SPREAD * checker.SECOND < at < let_go["at"]]
    assert max(begun) > let_go["at"]
    assert [entry for entry in evidence.all("started") if held_up["at"] < entry["at"] < let_go["at"]]


@pytest.mark.parametrize("processes", [1, SIZE])
@sizes()
def test_the_next_begins_at_once(
    fleet: Fleet, runs: Runs, opening: Opening, each: int, deaths: int, processes: int
) -> None:
    """Where one run of a line ends, the next begins within milliseconds, whichever process drives it."""
    calls = [calls_of(place, each * SIZE // processes) for place in range(processes)]
    evidence = Crowd(fleet, runs, opening, {"concurrency": {"limit": 1}}, calls).finish(within=240)
    check(evidence, opening)
    check_slots(evidence, 1)
    pauses = [(other.begins - one.ends) / checker.SECOND for one, other in pairwise(checker.spans(evidence))]
    late = sorted(pauses)[-len(pauses) // 20 :][0]
    median = statistics.median(pauses)
    said = f"{processes} processes: the next began after {median * 1000:.1f} ms, 95 % within {late * 1000:.1f} ms"
    print(said)
    assert median < PROMPT / 4, said
