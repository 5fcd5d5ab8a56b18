"""Processes are killed around the commit of transactional steps: each step's writes are there once, if it is done."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import cycle
from typing import Any

import pytest
from pymongo import MongoClient

from tests.stress.evidence import Runs, gather
from tests.stress.fleet import Fleet
from tests.stress.ledger import Ledger
from tests.stress.target import Opening
from tests.stress.transfers import ACCOUNTS, NAME, POINTS, paying, transfers, wishes

SNAPSHOT_TOO_OLD = 239  # this server keeps no history: a slow look comes too late
LIFETIME = 2  # seconds after which the server ends what a dead process has left open
WORKER = {"lease": "1s", "concurrency": 6, "poll_interval": "100ms", "max_recoveries": 10_000}


@pytest.fixture(autouse=True)
def short_transactions(mongo_uri: str) -> Iterator[None]:
    """Let the server end abandoned transactions soon."""
    name = "transactionLifetimeLimitSeconds"
    with MongoClient(mongo_uri) as client:
        before = client.admin.command("getParameter", 1, **{name: 1})[name]
        client.admin.command("setParameter", 1, **{name: LIFETIME})
        yield
        client.admin.command("setParameter", 1, **{name: before})


class Auditor:
    """Compares, at one instant of the database at a time, what was written with which steps are done."""

    def __init__(self, uri: str, database: str) -> None:
        self._client: MongoClient[dict[str, Any]] = MongoClient(uri)
        self._database = self._client[database]
        self._stop = threading.Event()
        self.audits = 0
        self.seen: list[str] = []

    def audit(self) -> None:
        """Look once."""
        with self._client.start_session(snapshot=True) as session:
            runs = list(self._database["streamline.runs"].find({}, {"steps": 1}, session=session))
            entries = list(self._database["entries"].find({}, session=session))
            accounts = list(self._database["accounts"].find({}, session=session))
        written = Counter(entry["run"] for entry in entries)
        done = {run["_id"] for run in runs if run["steps"][1]["status"] == "done"}
        if written != Counter(done):
            self.seen.append(f"written {set(written) - done}, done {done - set(written)}, {written.most_common(1)}")
        if sum(account["money"] for account in accounts):
            self.seen.append("money has come or gone")
        self.audits += 1

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Look again and again meanwhile."""
        thread = threading.Thread(target=self._look)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def close(self) -> None:
        self._client.close()

    def _look(self) -> None:
        while not self._stop.wait(0.05):
            try:
                self.audit()
            except Exception as error:  # noqa: BLE001 - it is told, and fails the test
                if getattr(error, "code", None) != SNAPSHOT_TOO_OLD:
                    self.seen.append(repr(error))


async def begin(opening: Opening, wanted: list[dict[str, Any]]) -> list[str]:
    """Start the transfers in this process, which works on none."""
    told = Ledger(opening.ledger, "starting")
    async with replace(opening, worker=None).app(told) as app:
        handles = await app.start_many(transfers(), wanted)
    told.close()
    return [handle.id for handle in handles]


def massacre(
    fleet: Fleet, runs: Runs, opening: Opening, dice: random.Random, *, n: int, deaths: int, size: int
) -> None:
    """Keep `size` processes at work on `n` runs, each of which dies at its point, or at random."""
    plan = cycle([*((point, at) for at in (1, 2, 5) for point in POINTS), (None, 0)])
    alive: dict[str, float] = {}
    begun = died = 0
    deadline = time.monotonic() + 40 + deaths
    while died < deaths and runs.count(status="done") < n:
        assert time.monotonic() < deadline, f"{died} of {deaths} deaths"
        while len(alive) < size:
            begun += 1
            point, at = next(plan)
            name = fleet.spawn(f"payer{begun}", "payer", **paying(asdict(opening), point, at))
            # One that does not come to its point is killed all the same.
            alive[name] = time.monotonic() + (dice.uniform(0.3, 1.0) if point is None else 15.0)
        for name, until in list(alive.items()):
            if fleet.code(name) is None and time.monotonic() > until:
                fleet.kill(name)
            if (code := fleet.code(name)) is not None:
                assert code == -9, fleet.stderr_path.read_text()[-2000:]
                del alive[name]
                died += 1
        time.sleep(0.01)
    for name in alive:
        fleet.kill(name)


async def kill_around_commits(
    fleet: Fleet, runs: Runs, dice: random.Random, uri: str, database: str, *, transfers_wanted: int, deaths: int
) -> Counter[str]:
    opening = Opening(uri, database, str(fleet.ledger_path), flows=(), worker=WORKER)
    wanted = wishes(database, transfers_wanted, dice)
    with MongoClient(uri) as client:
        client[database]["accounts"].insert_many([{"_id": n, "money": 0} for n in range(ACCOUNTS)])
        client[database].create_collection("entries")
    auditor = Auditor(uri, database)
    ids = await begin(opening, wanted)
    with auditor.at_work():
        massacre(fleet, runs, opening, dice, n=transfers_wanted, deaths=deaths, size=3)
        fleet.spawn("survivor", "payer", **paying(asdict(opening), None, 0))
        runs.until_ended(transfers_wanted, within=max(60, transfers_wanted * 0.2))
    auditor.audit()
    auditor.close()
    assert auditor.seen == []
    assert auditor.audits > 5
    evidence = gather(runs, fleet.ledger_path)
    assert {document["status"] for document in evidence.documents.values()} == {"done"}
    assert [evidence.documents[run_id]["output"] for run_id in ids] == [each["amount"] for each in wanted]
    assert all(document["workflow"] == NAME for document in evidence.documents.values())
    return Counter(entry["point"] for entry in evidence.all("dies"))


async def test_each_is_there_once_if_its_step_is_done(
    fleet: Fleet, runs: Runs, dice: random.Random, mongo_uri: str, database_name: str
) -> None:
    where = (mongo_uri, database_name)
    died = await kill_around_commits(fleet, runs, dice, *where, transfers_wanted=60, deaths=12)
    assert set(died) == set(POINTS)


@pytest.mark.stress
@pytest.mark.timeout(600)
async def test_each_is_there_once_over_hundreds_of_deaths(
    fleet: Fleet, runs: Runs, dice: random.Random, mongo_uri: str, database_name: str
) -> None:
    where = (mongo_uri, database_name)
    died = await kill_around_commits(fleet, runs, dice, *where, transfers_wanted=1000, deaths=200)
    assert set(died) == set(POINTS)
    assert sum(died.values()) >= 50
