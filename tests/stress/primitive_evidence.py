"""What the kill tests of durable calls look at: the ledger, the documents in the end, and what was stored meanwhile."""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.read_concern import ReadConcern

from tests.stress import ledger
from tests.stress.evidence import Document
from tests.stress.ledger import Entry

ENDED = ["done", "failed", "cancelled", "compensated", "compensation_failed"]
NONCE = re.compile(r"@([^|]+)\|([^|]+)\|[0-9a-f]{12}")

Unit = tuple[str, str]


def unit_of(nonce: str) -> Unit:
    """Return the run of a nonce, and what happened in it."""
    found = NONCE.fullmatch(nonce)
    assert found, nonce
    return found[1], found[2]


def nonces_in(value: Any) -> Iterator[str]:
    """Yield the nonces anywhere in a stored value."""
    if isinstance(value, str):
        if NONCE.fullmatch(value):
            yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from nonces_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from nonces_in(each)


@dataclass
class Proof:
    """All there is to judge by.

    Attributes:
        entries: The ledger.
        documents: The runs in the end.
        memo: Spilled entries that are left in the end.
        stored: By unit, each nonce that was ever seen stored in a run, with the instant by which it was.
        spilled: By unit, the nonces that were ever seen stored beside a run.
    """

    entries: list[Entry]
    documents: dict[str, Document]
    memo: list[Document]
    stored: dict[Unit, dict[str, int]]
    spilled: dict[Unit, set[str]]
    _grouped: dict[str, dict[Unit, list[Entry]]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Group what tells of nonces once."""
        for entry in self.entries:
            if "nonce" in entry:
                of_kind = self._grouped.setdefault(entry["what"], {})
                of_kind.setdefault(unit_of(entry["nonce"]), []).append(entry)

    def told(self, what: str) -> dict[Unit, list[Entry]]:
        """Return the entries of one kind by unit."""
        return self._grouped.get(what, {})

    def all(self, what: str, **wanted: Any) -> list[Entry]:
        """Return the entries of one kind."""
        return list(ledger.pick(self.entries, what, **wanted))

    def settled_at(self, unit: Unit) -> int | None:
        """Return the first instant at which the unit's result is known to have been stored."""
        instants = [entry["at"] for entry in self.told("saw").get(unit, ())]
        return min([*instants, *self.stored.get(unit, {}).values()], default=None)


class Witness:
    """Looks at what is stored while workers die, with a client that has nothing to do with the engine."""

    def __init__(self, client: MongoClient[Document], database: str) -> None:
        concern = ReadConcern("majority")
        self._runs = client[database].get_collection("streamline.runs", read_concern=concern)
        self._memo = client[database].get_collection("streamline.memo", read_concern=concern)
        self._stored: dict[Unit, dict[str, int]] = defaultdict(dict)
        self._spilled: dict[Unit, set[str]] = defaultdict(set)

    def look(self) -> None:
        """Remember what is stored now."""
        found = list(self._runs.find({}, {"steps": 1, "state": 1, "output": 1}))
        at = time.monotonic_ns()
        for nonce in nonces_in(found):
            self._stored[unit_of(nonce)].setdefault(nonce, at)
        for nonce in nonces_in([each["entry"] for each in self._memo.find({}, {"entry.output": 1})]):
            self._spilled[unit_of(nonce)].add(nonce)

    def ended(self) -> int:
        """Return how many runs have ended and owe nobody anything."""
        return self._runs.count_documents({"status": {"$in": ENDED}, "owes_at": {"$exists": False}})

    def count(self) -> int:
        """Return how many runs there are."""
        return self._runs.count_documents({})

    def stuck(self, path: Path) -> str:
        """Return what tells why runs have not ended: some of them, and what the engine has complained of last."""
        wanted = {"$or": [{"status": {"$nin": ENDED}}, {"owes_at": {"$exists": True}}]}
        found = self._runs.find(wanted, {"steps.memo": 0, "events": {"$slice": -5}}).limit(3)
        said = [entry for entry in ledger.read(path) if entry["what"] == "log" and entry["level"] == "ERROR"]
        return json.dumps([*found, *said[-3:]], default=str)

    def proof(self, path: Path) -> Proof:
        """Return all there is to judge by."""
        self.look()
        documents = {document["_id"]: document for document in self._runs.find()}
        left = list(self._memo.find({}, {"entry": 0}))
        return Proof(ledger.read(path), documents, left, dict(self._stored), dict(self._spilled))


@contextmanager
def witness_of(uri: str, database: str) -> Iterator[Witness]:
    """A witness for the time of a ``with``; the database is dropped afterwards."""
    client: MongoClient[Document] = MongoClient(uri, tz_aware=True)
    try:
        yield Witness(client, database)
        client.drop_database(database)
    finally:
        client.close()
