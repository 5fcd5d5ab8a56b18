"""Senders and waiters are killed with SIGKILL: each event reaches each run that it is for, once, in order."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import asdict, replace
from typing import Any

import pytest
from pymongo import MongoClient

from streamline import Streamline
from tests.stress import ledger
from tests.stress.deadline import until
from tests.stress.evidence import Runs
from tests.stress.fleet import Fleet
from tests.stress.reaper import Reaper
from tests.stress.target import Opening

FLOWS = (("hearing", "hearing", "1.0.0"), ("triggered", "triggered", "1.0.0"))
WORKER = {"lease": "800ms", "concurrency": 20, "poll_interval": "300ms", "max_recoveries": 10_000}


async def slay(
    fleet: Fleet, runs: Runs, opening: Opening, dice: random.Random, *, listeners: int, events: int, fewest: int
) -> None:
    """Send so many events at least while so many processes at least are killed; check everything."""
    opening = replace(opening, flows=FLOWS)
    working, sending = {"opening": {**asdict(opening), "worker": WORKER}}, {"opening": asdict(opening)}
    async with Streamline(opening.uri, database=opening.database, worker=False) as app:
        workers = Reaper(fleet, dice, working, size=2)
        until(lambda: bool(list(ledger.pick(ledger.read(fleet.ledger_path), "ready"))), within=30, what="a worker")
        app.register(_hearing())
        for n in range(listeners):
            await app.start("hearing", {"group": n % 2}, run_id=f"listener{n}")
        senders = Reaper(fleet, dice, {**sending, "role": "sender", "every": 0.01}, size=2, called="sender")
        while len(sent(fleet)) < events or workers.deaths + senders.deaths < fewest:
            dice.choice((workers, senders)).rage(0.1, 0.5, until=_twice(), within=60)
        for name in senders.alive:
            fleet.kill(name)
        await app.send_event("tick", {"stop": True})
        until(lambda: runs.count(workflow="hearing", status="done") == listeners, within=180, what="the listeners' end")
        until(lambda: _nothing_is_owed(opening), within=60, what="what is owed")
        until(lambda: runs.count(workflow="triggered", status={"$ne": "done"}) == 0, within=60, what="triggered runs")
    check_what_was_heard(fleet, runs, listeners)
    check_what_was_started(fleet, runs)


def _twice() -> Any:
    looks = iter((False, True))
    return lambda: next(looks)


def _hearing() -> Any:
    from tests.stress.flows import hearing

    return hearing(None)  # type: ignore[arg-type]


def _nothing_is_owed(opening: Opening) -> bool:
    with MongoClient[dict[str, Any]](opening.uri) as client:
        owed = {"$or": [{"owed_at": {"$exists": True}}, {"triggers": {"$ne": []}}]}
        return client[opening.database]["streamline.inbox"].count_documents(owed) == 0


def sent(fleet: Fleet) -> list[ledger.Entry]:
    return list(ledger.pick(ledger.read(fleet.ledger_path), "sent"))


def check_what_was_heard(fleet: Fleet, runs: Runs, listeners: int) -> None:
    """Each acknowledged event that a run fits was taken by it, none twice, and each sender's in order."""
    acknowledged = sent(fleet)
    for run_id, run in runs.documents(workflow="hearing").items():
        heard = [(event["by"], event["n"]) for event in run["output"] if "by" in event]
        assert not [event for event, times in Counter(heard).items() if times > 1], run_id
        group = run["input"]["group"]
        assert {event["group"] for event in run["output"] if "by" in event} <= {None, group}, run_id
        mine = {(entry["by"], entry["n"]) for entry in acknowledged if entry["group"] in (None, group)}
        assert not mine - set(heard), run_id
        for by, numbers in itertools.groupby(sorted(heard, key=lambda event: event[0]), key=lambda event: event[0]):
            in_order = [n for _, n in numbers]
            assert in_order == sorted(in_order), (run_id, by)
    assert runs.count(workflow="hearing") == listeners


def check_what_was_started(fleet: Fleet, runs: Runs) -> None:
    """Each acknowledged event that starts a run has started one, and none has started two."""
    started = Counter((run["input"]["by"], run["input"]["n"]) for run in runs.documents(workflow="triggered").values())
    assert not [event for event, times in started.items() if times > 1]
    assert not {(entry["by"], entry["n"]) for entry in sent(fleet) if entry["n"] % 3 == 0} - set(started)


async def test_events_survive_the_death_of_senders_and_waiters(
    fleet: Fleet, runs: Runs, dice: random.Random, mongo_uri: str, database_name: str
) -> None:
    opening = Opening(mongo_uri, database_name, str(fleet.ledger_path))
    await slay(fleet, runs, opening, dice, listeners=4, events=60, fewest=4)


@pytest.mark.stress
@pytest.mark.timeout(600)
async def test_many_events_survive_many_deaths(
    fleet: Fleet, runs: Runs, dice: random.Random, mongo_uri: str, database_name: str
) -> None:
    opening = Opening(mongo_uri, database_name, str(fleet.ledger_path))
    await slay(fleet, runs, opening, dice, listeners=6, events=400, fewest=20)
