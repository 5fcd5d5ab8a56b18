"""Whoever relays and whoever drives a subscriber is killed again and again: nothing is lost, nothing logged twice."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.read_concern import ReadConcern

from tests.stress import ledger
from tests.stress.deadline import until
from tests.stress.fleet import Fleet
from tests.stress.reaper import Reaper
from tests.stress.starter_process import asking
from tests.stress.target import Opening

FLOWS = (("talking", "talking", "1.0.0"), ("fading", "fading", "1.0.0"))


class Found:
    """What is in the database in the end, read by a client that has nothing to do with the engine."""

    def __init__(self, client: MongoClient[dict[str, Any]], name: str) -> None:
        concern = ReadConcern("majority")
        self._of = lambda kind: client[name].get_collection(f"streamline.{kind}", read_concern=concern)

    @property
    def is_settled(self) -> bool:
        """Whether all runs have ended, the log has all, and the subscriber has had all."""
        runs, tail = self._of("runs"), self._of("log").find_one({}, sort=[("_id", -1)])
        if runs.count_documents({"$or": [{"status": {"$ne": "done"}}, {"outbox_at": {"$exists": True}}]}):
            return False
        audit = self._of("subscribers").find_one({"_id": "audit"})
        return bool(tail and audit and audit["position"] == tail["_id"] and not audit["held"])

    def entries(self) -> list[dict[str, Any]]:
        """The log, in order."""
        return list(self._of("log").find().sort("_id"))

    def last_events(self) -> dict[str, int]:
        """The numbers of the last events of the runs that are still there."""
        return {run["_id"]: run["event_seq"] for run in self._of("runs").find({}, {"event_seq": 1})}


def violations(found: Found, entries: list[ledger.Entry], said: dict[str, int]) -> Iterator[str]:
    """Yield what is wrong; `said` tells how many events each run has said."""
    log, by_run = found.entries(), defaultdict[str, list[dict[str, Any]]](list)
    if [entry["_id"] for entry in log] != list(range(1, len(log) + 1)):
        yield "the positions are not dense"
    for entry in log:
        by_run[entry["run_id"]].append(entry)
    if by_run.keys() != said.keys():
        yield f"of {len(said)} runs the log knows {len(by_run)}"
    last = found.last_events()
    heard = defaultdict[str, list[int]](list)
    for entry in ledger.pick(entries, "heard"):
        heard[entry["run"]].append(entry["seq"])
    for run_id, of_run in by_run.items():
        numbers = [entry["seq"] for entry in of_run]
        if numbers != list(range(1, len(numbers) + 1)) or len(numbers) != last.get(run_id, len(numbers)):
            yield f"{run_id}: logged {numbers}, of {last.get(run_id)}"
        told = [entry["event"]["payload"] for entry in of_run if entry["event"]["type"] == "said"]
        if told != list(range(said.get(run_id, 0))):
            yield f"{run_id}: said {told}"
        if of_run[-1]["event"]["type"] != "run.done":
            yield f"{run_id}: its end is not logged"
        if list(dict.fromkeys(heard[run_id])) != numbers:
            yield f"{run_id}: heard {heard[run_id]}, logged {numbers}"


def slay(
    fleet: Fleet,
    opening: Opening,
    dice: random.Random,
    *,
    inputs: list[dict[str, Any]],
    followers: int,
    over: float,
    fewest: int,
    mercy: float = 1.0,
) -> list[str]:
    """Start runs over so many seconds while so many followers at least are killed; return what is wrong."""
    lease = opening.settings["subscriber_lease"]
    worker = {"lease": lease, "concurrency": 12, "poll_interval": "300ms", "max_recoveries": 1000}
    options = {"opening": {**asdict(opening), "worker": worker}, "failing": 0.02}
    reaper = Reaper(fleet, dice, {"role": "follower", **options}, size=followers)
    until(lambda: any(ledger.pick(ledger.read(fleet.ledger_path), "ready")), within=30)
    for i, name in enumerate(("talking", "fading")):
        mine = inputs[i::2]
        asked = asking(asdict(opening), f"{name}-starter", mine, every=over / len(mine), workflow=name)
        fleet.spawn(role="starter", **asked)
    client: MongoClient[dict[str, Any]] = MongoClient(opening.uri, tz_aware=True)
    with client:
        found = Found(client, opening.database)

        def all_started() -> bool:
            return len(list(ledger.pick(ledger.read(fleet.ledger_path), "finished"))) == 2

        reaper.rage(0.2 * mercy, mercy, until=all_started, within=over * 4 + 60, fewest=fewest)
        until(lambda: found.is_settled, within=240, every=0.2, what="the end of it all")
        entries = ledger.read(fleet.ledger_path)
        said = {entry["run"]: entry["value"]["says"] for entry in ledger.pick(entries, "started")}
        assert len(said) == len(inputs)
        return list(violations(found, entries, said))


def open_with(fleet: Fleet, uri: str, database: str, lease: str) -> Opening:
    return Opening(uri, database, str(fleet.ledger_path), FLOWS, settings={"subscriber_lease": lease})


def test_nothing_is_lost_when_relays_and_subscribers_die(
    fleet: Fleet, dice: random.Random, mongo_uri: str, database_name: str
) -> None:
    inputs = [{"says": dice.choice((0, 3, 20)), "pace": 0.01} for _ in range(20)] + [{"says": 120, "pace": 0}] * 2
    opening = open_with(fleet, mongo_uri, database_name, "1s")
    assert not slay(fleet, opening, dice, inputs=inputs, followers=2, over=3.0, fewest=3)


@pytest.mark.stress
@pytest.mark.timeout(900)
def test_nothing_is_lost_over_many_deaths(
    fleet: Fleet, dice: random.Random, mongo_uri: str, database_name: str
) -> None:
    inputs = [{"says": dice.choice((0, 1, 5, 50, 150)), "pace": 0.05} for _ in range(300)]
    inputs += [{"says": 3000, "pace": 0.02}] * 2
    dice.shuffle(inputs)
    opening = open_with(fleet, mongo_uri, database_name, "3s")
    with MongoClient[dict[str, Any]](mongo_uri) as client:
        client.admin.command("setParameter", 1, ttlMonitorSleepSecs=1)
    assert not slay(fleet, opening, dice, inputs=inputs, followers=3, over=90.0, mercy=3.0, fewest=30)
