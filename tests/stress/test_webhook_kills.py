"""Whoever delivers webhooks is killed again and again: each event arrives all the same, those of a run in order."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import defaultdict
from dataclasses import asdict, replace
from typing import Any

import pytest

from streamline.errors import SignatureInvalid
from tests.integration.receiver import Received, receiving
from tests.stress.deadline import until
from tests.stress.evidence import Runs
from tests.stress.fleet import Fleet
from tests.stress.ledger import Ledger
from tests.stress.reaper import Reaper
from tests.stress.starter_process import asking
from tests.stress.target import Opening

SETTINGS = {
    "webhook_networks": ["127.0.0.0/8"],
    "webhook_retry": {"max_attempts": 1000, "delay": "20ms", "backoff": "fixed"},
    "webhook_failures": 1_000_000,
    "subscriber_lease": "1s",
}


class Customer:
    """What the receiver took, in the order in which it did; some is refused, and has to come again."""

    def __init__(self, secret: str, seed: int) -> None:
        self._secret = secret
        self._dice = random.Random(seed)
        self._lock = threading.Lock()
        self.taken: defaultdict[str, list[int]] = defaultdict(list)
        self.count = self.unsigned = 0

    def answer(self, received: Received) -> int:
        with self._lock:
            if self._dice.random() < 0.1:
                return self._dice.choice((500, 503, 404))
            try:
                received.verified(self._secret)
            except SignatureInvalid:
                self.unsigned += 1
            self.taken[received.json["run_id"]].append(received.json["seq"])
            self.count += 1
            return 204

    def missing(self, wanted: dict[str, int]) -> dict[str, list[int]]:
        """Return which events were not taken, of runs that have so many."""
        with self._lock:
            left = {run_id: set(range(1, count + 1)) - set(self.taken[run_id]) for run_id, count in wanted.items()}
            return {run_id: sorted(seqs) for run_id, seqs in left.items() if seqs}

    def until_all_are_taken(self, wanted: dict[str, int], *, quiet: float) -> None:
        """Wait until there is nothing missing; fail where nothing more comes for so many seconds."""
        while missing := self.missing(wanted):
            before = self.count
            try:
                until(lambda before=before: self.count > before, within=quiet, what="another webhook")
            except AssertionError:
                raise AssertionError(f"nothing more comes, and there is missing: {missing}") from None


async def create(opening: Opening, ledger: Ledger, url: str) -> str:
    async with replace(opening, worker=None).app(ledger) as app:
        return (await app.webhooks.create("customer", url, on=["*"])).secret


def deliver_under_fire(
    fleet: Fleet, runs: Runs, opening: Opening, dice: random.Random, *, n: int, over: float, fewest: int
) -> int:
    """Let `n` runs be told of while so many workers at least die; return how many repetitions there were."""
    with receiving() as receiver:
        secret = asyncio.run(create(opening, Ledger(fleet.ledger_path, "creator"), receiver.url))
        customer = Customer(secret, dice.randrange(2**32))
        receiver.answer = customer.answer
        worker = {"lease": "1s", "concurrency": 20, "poll_interval": "300ms", "max_recoveries": 1000}
        reaper = Reaper(fleet, dice, {"opening": {**asdict(opening), "worker": worker}}, size=3)
        inputs = [{"n": i, "pace": 0.1} for i in range(n)]
        fleet.spawn(role="starter", **asking(asdict(opening), "starting", inputs, every=over / n))
        reaper.rage(0.4, 1.4, until=lambda: runs.count() >= n, within=over * 4 + 30, fewest=fewest)
        assert fleet.wait("starting", within=30) == 0
        runs.until_ended(n, within=60)
        wanted = {run_id: document["event_seq"] for run_id, document in runs.documents().items()}
        customer.until_all_are_taken(wanted, quiet=20)
    assert customer.unsigned == 0
    assert customer.taken.keys() == wanted.keys()
    for run_id, count in wanted.items():
        first_times = list(dict.fromkeys(customer.taken[run_id]))
        assert first_times == list(range(1, count + 1)), run_id
    return customer.count - sum(wanted.values())


@pytest.fixture
def opening(fleet: Fleet, mongo_uri: str, database_name: str) -> Opening:
    settings: dict[str, Any] = SETTINGS
    return Opening(mongo_uri, database_name, str(fleet.ledger_path), settings=settings)


def test_webhooks_survive_the_death_of_those_who_send_them(
    fleet: Fleet, runs: Runs, opening: Opening, dice: random.Random
) -> None:
    deliver_under_fire(fleet, runs, opening, dice, n=20, over=3.0, fewest=3)


@pytest.mark.stress
@pytest.mark.timeout(600)
def test_many_webhooks_survive_many_deaths(fleet: Fleet, runs: Runs, opening: Opening, dice: random.Random) -> None:
    repeated = deliver_under_fire(fleet, runs, opening, dice, n=200, over=35.0, fewest=20)
    assert repeated > 0, "nobody died between an answer and the record of it"
