"""Processes race for the occurrences of schedules and are killed at random: each is one run, none is lost."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import pytest
from pymongo import MongoClient

from tests.stress.deadline import until
from tests.stress.evidence import Runs, gather
from tests.stress.fleet import Fleet
from tests.stress.ledger import Ledger
from tests.stress.reaper import Reaper
from tests.stress.target import Opening

OVERLAPS = ("allow", "queue", "skip", "allow")
WORKER = {"lease": "1s", "concurrency": 20, "poll_interval": "300ms", "max_recoveries": 1000}


async def create(opening: Opening, size: int, count: int) -> dict[str, datetime]:
    """Create schedules of one occurrence a second; return the first occurrence of each."""
    ledger = Ledger(opening.ledger, "creating")
    async with opening.app(ledger) as app:
        made = [
            await app.schedules.create(
                f"s{i}",
                "five",
                every="1s",
                count=count,
                catch_up="all",
                overlap=OVERLAPS[i % len(OVERLAPS)],  # type: ignore[arg-type]
                input={"n": i, "pace": 0.0},
            )
            for i in range(size)
        ]
    ledger.close()
    return {each.id: each.next_at for each in made if each.next_at is not None}


def occurrences(runs: Runs) -> dict[str, list[datetime]]:
    """By schedule the occurrences of its runs, in order."""
    found: defaultdict[str, list[datetime]] = defaultdict(list)
    for run in runs.documents().values():
        found[run["schedule_id"]].append(run["scheduled_at"])
    return {name: sorted(instants) for name, instants in found.items()}


async def race(
    fleet: Fleet, runs: Runs, dice: random.Random, opening: Opening, pace: float, *, workers: int, size: int, count: int
) -> int:
    """Let workers race, and die, until all schedules have come to their end; return the number of deaths."""
    firsts = await create(opening, size, count)
    reaper = Reaper(fleet, dice, {"opening": {**asdict(opening), "worker": WORKER}}, size=workers)
    with MongoClient[dict[str, Any]](opening.uri, tz_aware=True) as client:
        schedules = client[opening.database]["streamline.schedules"]
        is_open = {"$or": [{"next_at": {"$ne": None}}, {"waiting": {"$ne": []}}]}
        reaper.rage(pace / 4, pace, until=lambda: schedules.count_documents(is_open) == 0, within=count * 4 + 120)
        runs.until_ended(size * count, within=60)
        stored = {each["_id"]: each for each in schedules.find()}
    found = occurrences(runs)
    assert found.keys() == firsts.keys()
    for name, instants in found.items():
        assert instants[0] >= firsts[name]
        # What was skipped, because a run was not over, was decided once and is missing; everything else is there once.
        missing = (instants[-1] - firsts[name]) // timedelta(seconds=1) + 1 - count
        assert (len(instants), len(set(instants))) == (count, count), name
        assert missing == stored[name]["skipped"], name
        assert missing == 0 or stored[name]["overlap"] == "skip", name
        assert (stored[name]["occurrences"], stored[name]["failed"]) == (count, 0), name
    evidence = gather(runs, fleet.ledger_path)
    begun = Counter(entry["run"] for entry in evidence.all("enter", step="first"))
    for run_id, run in evidence.documents.items():
        assert begun[run_id] <= 1 + run["recovery_count"], run_id
    return reaper.deaths


async def test_each_occurrence_is_one_run(
    fleet: Fleet, runs: Runs, dice: random.Random, mongo_uri: str, database_name: str
) -> None:
    opening = Opening(mongo_uri, database_name, str(fleet.ledger_path))
    assert await race(fleet, runs, dice, opening, 0.8, workers=4, size=4, count=5) >= 3


@pytest.mark.stress
@pytest.mark.timeout(600)
async def test_eight_processes_race_for_a_long_time(
    fleet: Fleet, runs: Runs, dice: random.Random, mongo_uri: str, database_name: str
) -> None:
    opening = Opening(mongo_uri, database_name, str(fleet.ledger_path))
    assert await race(fleet, runs, dice, opening, 2.0, workers=8, size=12, count=40) >= 30
    until(lambda: runs.count() == 12 * 40, within=5, what="no run comes after the end")
