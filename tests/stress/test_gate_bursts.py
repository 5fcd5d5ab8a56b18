"""Eight processes start runs behind gates, all at once, and some are killed: no gate lets one too many through.

How many runs are at work, and when they began, is told by what their handlers leave outside the database.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from streamline import Stats, Streamline
from tests.stress import gate_checker as checker
from tests.stress.deadline import until
from tests.stress.evidence import Evidence, Runs
from tests.stress.fleet import Fleet
from tests.stress.gate_crowd import Call, Crowd, calls_of
from tests.stress.target import Opening

WORKER = {"lease": "1500ms", "concurrency": 20, "poll_interval": "300ms", "max_recoveries": 1000}

SPREAD = 1.0  # seconds until every process knows that a workflow is held up; five where a hint is lost
PROMPT = 3.0  # seconds until what is due at once has happened, where eight processes and others share two cores


@dataclass(frozen=True)
class Scale:
    """How large a burst is.

    Args:
        processes: How many there are at a time.
        each: How many calls each of them makes.
        deaths: How many of them are killed.
    """

    processes: int
    each: int
    deaths: int

    @property
    def all(self) -> int:
        """The number of calls."""
        return self.processes * self.each

    def calls(self, **value: Any) -> list[list[Call]]:
        """Return the calls of each process, all with such an input."""
        return [calls_of(place, self.each, **value) for place in range(self.processes)]


def scales(deaths: int = 0, *, smoke: bool = True) -> pytest.MarkDecorator:
    """Return the parameters of the long test, and of the short one where there is one."""
    long = Scale(8, 50, deaths * 4)
    marks = [pytest.mark.stress, pytest.mark.timeout(600)]
    found = [pytest.param(Scale(4, 10, deaths), id="smoke")] if smoke else []
    return pytest.mark.parametrize("scale", [*found, pytest.param(long, id="long", marks=marks)])


_long_only = pytest.mark.stress
whoever_dies = pytest.mark.parametrize(
    "dying", [pytest.param(False, id="living", marks=_long_only), pytest.param(True, id="dying")]
)


@pytest.fixture
def opening(fleet: Fleet, mongo_uri: str, database_name: str) -> Opening:
    """How each process opens its app; the runs of one that is killed are soon taken over."""
    return Opening(mongo_uri, database_name, str(fleet.ledger_path), worker=WORKER)


def left_in(opening: Opening) -> list[dict[str, Any]]:
    """Return what is left in the collection of gates."""
    with MongoClient[dict[str, Any]](opening.uri) as client:
        return list(client[opening.database]["streamline.gates"].find())


async def stats_of(opening: Opening) -> Stats:
    """Return how the deployment says that it stands."""
    async with Streamline(opening.uri, database=opening.database, worker=False) as app:
        return await app.stats()


def check(evidence: Evidence, opening: Opening, *, keys: int = 0, limit: int = 0, refused: bool = False) -> None:
    """Check what always holds in the end: nothing is lost or left, and each throttle's key has one small ledger."""
    assert not [*checker.lost_or_left(evidence), *checker.more_than_asked_for(evidence)]
    assert refused or not evidence.all("refused")
    stats = asyncio.run(stats_of(opening))
    assert (stats.queues, stats.due, sum(stats.workers.values())) == ((), 0, 0)
    assert stats.statuses == {"done": len(evidence.documents)}
    ledgers = left_in(opening)
    assert len(ledgers) == keys
    for each in ledgers:
        assert len(each["started"]) <= limit
        assert len(each["plan"]) <= limit
        assert each["expire_at"]


@scales(deaths=4)
def test_one_run_for_a_key(
    fleet: Fleet, runs: Runs, opening: Opening, tmp_path: Path, dice: random.Random, scale: Scale
) -> None:
    """All are given the id of one run, which is at work until all were answered; some are killed meanwhile."""
    done = tmp_path / "done"
    calls = scale.calls(until=str(done))
    for call in (call for several in calls for call in several):
        call["options"] = {"idempotency_key": "only"}
    crowd = Crowd(fleet, runs, opening, {"concurrency": {"limit": 1}}, calls, idle=True)
    crowd.until_ready()
    crowd.rage(dice, deaths=scale.deaths)
    crowd.until_answered()
    done.touch()
    evidence = crowd.finish()
    check(evidence, opening)
    told = evidence.all("started")
    assert len(told) == scale.all
    assert {entry["run"] for entry in told} == set(evidence.documents)
    assert len(evidence.documents) == 1
    assert sum(entry["created"] for entry in told) <= 1  # whoever created it may have died before it was told


def check_slots(evidence: Evidence, limit: int, keys: int = 1) -> None:
    """Check that never more than the limit were at work, and that as many were."""
    assert not list(checker.too_many_at_work(evidence, limit))
    assert list(checker.crowds(evidence).values()) == [limit] * keys


@scales(deaths=4)
@whoever_dies
def test_never_a_fourth_at_work(
    fleet: Fleet, runs: Runs, opening: Opening, dice: random.Random, scale: Scale, *, dying: bool
) -> None:
    """Of two keys three each are at work, and no fourth; between two steps they sleep, and hold their slots."""
    calls = scale.calls(pace=0.05, rest=0.02)
    for call in (call for several in calls for call in several[::2]):
        call["value"]["key"] = "other"
    crowd = Crowd(fleet, runs, opening, {"concurrency": {"limit": 3}}, calls, at_once=5, idle=dying)
    crowd.until_ready()
    crowd.rage(dice, deaths=scale.deaths if dying else 0)
    evidence = crowd.finish(within=300)
    check(evidence, opening)
    check_slots(evidence, 3, keys=2)
    assert len(evidence.documents) >= scale.all


@scales(deaths=4)
def test_just_the_limit_is_let_in(
    fleet: Fleet, runs: Runs, opening: Opening, dice: random.Random, tmp_path: Path, scale: Scale
) -> None:
    """Where the others are refused, three are let in and no more, as long as they are at work."""
    done = tmp_path / "done"
    gates = {"concurrency": {"limit": 3, "on_limit": "reject"}}
    crowd = Crowd(fleet, runs, opening, gates, scale.calls(until=str(done)), idle=True)
    crowd.until_ready()
    crowd.rage(dice, deaths=scale.deaths)
    crowd.until_answered()
    done.touch()
    evidence = crowd.finish()
    check(evidence, opening, refused=True)
    assert len(evidence.documents) == 3
    refused = evidence.all("refused")
    assert {entry["error"] for entry in refused} == {"ConcurrencyLimitReached"}
    assert len(evidence.all("started")) <= 3
    assert len(refused) + len(evidence.all("started")) == scale.all


@scales(deaths=4)
@whoever_dies
def test_no_window_holds_more_starts_than_the_limit(
    fleet: Fleet, runs: Runs, opening: Opening, dice: random.Random, scale: Scale, *, dying: bool
) -> None:
    limit, window = scale.all // 5, 0.4
    gates = {"throttle": {"limit": limit, "window": f"{window}s"}}
    crowd = Crowd(fleet, runs, opening, gates, scale.calls(), idle=dying)
    crowd.until_ready()
    crowd.rage(dice, deaths=scale.deaths if dying else 0)
    evidence = crowd.finish(within=120)
    check(evidence, opening, keys=1, limit=limit)
    assert len(evidence.documents) >= scale.all
    assert not list(checker.too_many_begun(evidence, limit, window))
    lags = checker.lags(evidence).values()
    print(f"handlers began {statistics.median(lags):.3f} s after their starts, {max(lags):.3f} s at most")
    assert not list(checker.begun_late(evidence, within=PROMPT))


@scales(deaths=4)
@whoever_dies
def test_one_run_with_the_last_input(
    fleet: Fleet, runs: Runs, opening: Opening, dice: random.Random, scale: Scale, *, dying: bool
) -> None:
    crowd = Crowd(fleet, runs, opening, {"debounce": {"window": "1500ms"}}, scale.calls(), idle=dying)
    crowd.until_ready()
    crowd.rage(dice, deaths=scale.deaths if dying else 0)
    evidence = crowd.finish(within=120)
    check(evidence, opening)
    assert not list(checker.outdated_inputs(evidence))
    assert len(evidence.documents) == 1
    assert sum(entry["created"] for entry in evidence.all("started")) <= 1


@scales(deaths=3)
def test_a_draft_waits_no_longer_than_it_may(
    fleet: Fleet, runs: Runs, opening: Opening, dice: random.Random, scale: Scale
) -> None:
    """Starts keep coming for longer than `max_wait`: each run begins by then, with the last input that it was given."""
    longest = 1.2
    gates = {"debounce": {"window": "1s", "max_wait": f"{longest}s"}}
    crowd = Crowd(fleet, runs, opening, gates, scale.calls(), at_once=1, every=2.5 / scale.each)
    crowd.until_ready()
    crowd.rage(dice, deaths=scale.deaths)
    evidence = crowd.finish(within=120)
    check(evidence, opening)
    assert not list(checker.outdated_inputs(evidence))
    assert len(evidence.documents) >= 2
    for run in evidence.documents.values():
        assert (run["started_at"] - run["created_at"]).total_seconds() <= longest + PROMPT


@scales(deaths=5)
def test_all_gates_at_once(fleet: Fleet, runs: Runs, opening: Opening, dice: random.Random, scale: Scale) -> None:
    """Of two keys, starts that have idempotency keys make drafts, which wait for a slot and a place in the window."""
    gates = {
        "concurrency": {"limit": 2},
        "throttle": {"limit": 3, "window": "1s"},
        "debounce": {"window": "200ms", "max_wait": "400ms"},
    }
    calls = scale.calls(pace=0.1)
    for call in (call for several in calls for call in several):
        call["value"]["key"] = f"k{call['value']['n'] % 2}"
        call["options"] = {"idempotency_key": f"{call['value']['key']}-{call['value']['n'] % 5}"}
    crowd = Crowd(fleet, runs, opening, gates, calls, at_once=2, every=2.5 / scale.each, idle=True)
    crowd.until_ready()
    crowd.rage(dice, deaths=scale.deaths)
    evidence = crowd.finish(within=300)
    check(evidence, opening, keys=2, limit=3)
    violations = [
        *checker.too_many_at_work(evidence, 2),
        *checker.too_many_begun(evidence, 3, 1.0),
        *checker.begun_late(evidence, within=PROMPT),
        *checker.at_once_under_one_key(evidence),
    ]
    assert not violations
    assert len(evidence.documents) >= 6


@scales()
@pytest.mark.parametrize(
    "limits", [pytest.param((2, 5), id="higher", marks=_long_only), pytest.param((4, 2), id="lower")]
)
def test_a_deploy_changes_the_limit(
    fleet: Fleet, runs: Runs, opening: Opening, scale: Scale, limits: tuple[int, int]
) -> None:
    """Processes are replaced one by one by others with another limit: both hold meanwhile, then the new one alone."""
    before, after = limits
    calls = scale.calls(pace=0.08)
    crowd = Crowd(fleet, runs, opening, {"concurrency": {"limit": before}}, calls)
    crowd.until_answered()
    changed = deploy(crowd, fleet, {"concurrency": {"limit": after}})
    evidence = crowd.finish(within=240)
    check(evidence, opening)
    assert not list(checker.too_many_at_work(evidence, max(limits)))
    assert not list(checker.too_many_at_work(evidence, after, since=changed))
    assert checker.crowds(evidence, since=changed) == {"one": after}


def deploy(crowd: Crowd, fleet: Fleet, gates: dict[str, Any]) -> int:
    """Replace every process, one after the other; return the instant from which on there are only new ones."""
    for place, name in enumerate(crowd.alive):
        fleet.kill(name) if place % 2 else fleet.dismiss(name)
        fleet.wait(name, within=30)
        crowd.replace(place, gates=gates)
    crowd.until_ready()
    return max(int(entry["at"]) for entry in crowd.entries() if entry["what"] == "ready")


@scales(smoke=False)
@pytest.mark.parametrize("limits", [(10, 25), (25, 10)], ids=["higher", "lower"])
def test_a_deploy_changes_the_throttle(
    fleet: Fleet, runs: Runs, opening: Opening, scale: Scale, limits: tuple[int, int]
) -> None:
    """Old and new processes live side by side for a while: no window holds more starts than the larger limit."""
    before, after = limits
    gates = {"throttle": {"limit": before, "window": "500ms"}}
    crowd = Crowd(fleet, runs, opening, gates, scale.calls(), at_once=1, every=8 / scale.each)
    crowd.until_ready()
    changed = deploy(crowd, fleet, {"throttle": {"limit": after, "window": "500ms"}})
    since = datetime.now(UTC) - timedelta(seconds=(time.monotonic_ns() - changed) / checker.SECOND)
    evidence = crowd.finish(within=240)
    check(evidence, opening, keys=1, limit=max(limits))
    assert not list(checker.too_many_begun(evidence, max(limits), 0.5))
    assert not list(checker.too_many_begun(evidence, after, 0.5, since=since))


@scales(deaths=2)
def test_nothing_begins_in_a_workflow_that_is_held_up(
    fleet: Fleet, runs: Runs, opening: Opening, dice: random.Random, scale: Scale
) -> None:
    """Runs are started meanwhile and processes die: no step begins until the workflow may go on, then all do."""
    gates = {"concurrency": {"limit": 5}}
    crowd = Crowd(fleet, runs, opening, gates, scale.calls(pace=0.05), at_once=1, every=2.5 / scale.each)
    crowd.until_ready()
    plain = {"uri": opening.uri, "database": opening.database, "ledger": opening.ledger}
    fleet.spawn("holder", "holder", opening=plain, gates=gates, seconds=2.5)
    until(lambda: any(entry["what"] == "held up" for entry in crowd.entries()), within=30, every=0.05)
    crowd.rage(dice, deaths=scale.deaths)
    assert fleet.wait("holder", within=60) == 0
    evidence = crowd.finish(within=240)
    check(evidence, opening)
    (held_up,), (let_go,) = evidence.all("held up"), evidence.all("letting go")
    begun = [entry["at"] for entry in evidence.all("enter")]
    assert not [at for at in begun if held_up["at"] + SPREAD * checker.SECOND < at < let_go["at"]]
    assert max(begun) > let_go["at"]
    assert [entry for entry in evidence.all("started") if held_up["at"] < entry["at"] < let_go["at"]]


@scales()
def test_the_next_begins_at_once(fleet: Fleet, runs: Runs, opening: Opening, scale: Scale) -> None:
    """Where one run of a line ends, the next begins within milliseconds, whichever process drives it."""
    next_begins_at_once(Crowd(fleet, runs, opening, {"concurrency": {"limit": 1}}, scale.calls()), opening)


@scales(smoke=False)
def test_the_next_begins_at_once_in_one_process(fleet: Fleet, runs: Runs, opening: Opening, scale: Scale) -> None:
    calls = [calls_of(0, scale.all)]
    next_begins_at_once(Crowd(fleet, runs, opening, {"concurrency": {"limit": 1}}, calls), opening)


def next_begins_at_once(crowd: Crowd, opening: Opening) -> None:
    evidence = crowd.finish(within=240)
    check(evidence, opening)
    check_slots(evidence, 1)
    pauses = sorted((other.begins - one.ends) / checker.SECOND for one, other in pairwise(checker.spans(evidence)))
    median, late = statistics.median(pauses), pauses[len(pauses) * 95 // 100]
    said = f"the next began after {median * 1000:.1f} ms, 95 % within {late * 1000:.1f} ms"
    print(said)
    assert median < PROMPT / 10, said
