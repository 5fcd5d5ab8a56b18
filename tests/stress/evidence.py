"""What is looked at after a test: the stored runs on one side, the ledger on the other."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

from tests.stress import ledger
from tests.stress.deadline import until
from tests.stress.ledger import Entry

TERMINAL = ["done", "failed", "cancelled"]
Document = dict[str, Any]


@dataclass
class Evidence:
    """Runs as they are stored, and the ledger's entries about them in the order in which they were written."""

    documents: dict[str, Document]
    entries: list[Entry]
    _grouped: dict[tuple[str, str], list[Entry]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Group the entries once by kind and run."""
        grouped: defaultdict[tuple[str, str], list[Entry]] = defaultdict(list)
        for entry in self.entries:
            grouped[entry["what"], entry.get("run", "")].append(entry)
        self._grouped = dict(grouped)

    def of(self, run_id: str, what: str, **wanted: Any) -> list[Entry]:
        """Return the entries of one kind about one run."""
        return list(ledger.pick(self._grouped.get((what, run_id), []), what, **wanted))

    def all(self, what: str, **wanted: Any) -> list[Entry]:
        """Return the entries of one kind."""
        return list(ledger.pick(self.entries, what, **wanted))

    def acknowledged(self, run_id: str, step: str) -> list[Entry]:
        """Return when a worker learned that the step's output is stored: at most once, if all is well."""
        return self.of(run_id, "acknowledged", type="step.done", step=step)


class Runs:
    """The collection of runs, read by a client that has nothing to do with the engine."""

    def __init__(self, client: MongoClient[Document], database: str) -> None:
        self._collection = client[database].get_collection("streamline.runs", read_concern=ReadConcern("majority"))

    def documents(self, **query: Any) -> dict[str, Document]:
        """Return runs by id."""
        return {document["_id"]: document for document in self._collection.find(query)}

    def count(self, **query: Any) -> int:
        """Return how many runs match; -1 while the database does not answer."""
        try:
            return self._collection.count_documents(query)
        except PyMongoError:
            return -1

    def until_ended(self, n: int | None = None, *, within: float) -> None:
        """Wait until there are `n` runs, default any number, and all have ended; fail with what is stuck."""

        def ended() -> bool:
            found = self.count()
            return (n is None or found == n) and self.count(status={"$in": TERMINAL}) == found >= 0

        try:
            until(ended, within=within, every=0.1)
        except AssertionError:
            found = self.documents()
            stuck = [document for document in found.values() if document["status"] not in TERMINAL]
            shown = "\n".join(json.dumps(document, default=str) for document in stuck[:3])
            said = f"{len(found)} runs of {n or 'all'}, {len(stuck)} not ended within {within:g} s"
            raise AssertionError(f"{said}:\n{shown}") from None


@contextmanager
def runs_of(uri: str, database: str) -> Iterator[Runs]:
    """The runs of a database for the time of a ``with``; the database is dropped afterwards, if it is still there."""
    client: MongoClient[Document] = MongoClient(uri, tz_aware=True, serverSelectionTimeoutMS=5000)
    try:
        yield Runs(client, database)
        client.drop_database(database)
    finally:
        client.close()


def gather(runs: Runs, ledger_path: Path) -> Evidence:
    """Return what there is to look at now."""
    return Evidence(runs.documents(), ledger.read(ledger_path))
