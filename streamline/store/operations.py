"""The kinds of statement, as plain data: what to send, and nothing about how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Filter = Mapping[str, Any]
Document = dict[str, Any]
Sort = Sequence[tuple[str, int]]
Collection = Literal[
    "runs", "memo", "meta", "inbox", "log", "subscribers", "gates", "schedules", "definitions", "workers"
]
Inserted = Literal["inserted", "id_taken", "key_taken", "slot_taken", "draft_taken"]


@dataclass(slots=True)
class Write:
    """One guarded update of one run; answers whether it took effect.

    The update leaves `mark` in the run, so that its effect can be told from another's after an unclear answer.
    """

    name: str
    filter: Filter
    update: Mapping[str, Any]
    mark: str
    weight: int = 0

    @property
    def run_id(self) -> str:
        """The run that is written."""
        return str(self.filter["_id"])


@dataclass(slots=True)
class Insert:
    """One new run; answers whether it, or another with its id or key, is there."""

    name: str
    document: Document
    weight: int = 0

    @property
    def run_id(self) -> str:
        """The run that is written."""
        return str(self.document["_id"])

    @property
    def mark(self) -> str:
        """What tells this insert's document from another's."""
        return str(self.document["born"])


@dataclass(frozen=True, slots=True)
class Extend:
    """Documents to be added in order, up to the first that is refused; answers what came of it."""

    name: str
    documents: Sequence[Document]
    collection: Collection


@dataclass(frozen=True, slots=True)
class Extended:
    """What came of an `Extend`: how many documents were added, and which unique fields refused the next one."""

    count: int
    taken: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WriteEach:
    """Updates of one run each, every one with a guard of its own; answers how many matched."""

    name: str
    rows: Sequence[tuple[Filter, Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class WriteMany:
    """One update of many documents, each guarded by the same filter; answers how many matched.

    Beside the runs, it may make the document where there is none.
    """

    name: str
    filter: Filter
    update: Mapping[str, Any]
    collection: Collection = "runs"
    upsert: bool = False


@dataclass(frozen=True, slots=True)
class Keep:
    """Documents to be stored beside the runs where none of their id is; answers those that were there already."""

    name: str
    documents: Sequence[Document]
    collection: Collection


@dataclass(frozen=True, slots=True)
class Remove:
    """Documents beside the runs to be removed; answers how many were."""

    name: str
    filter: Filter
    collection: Collection


@dataclass(frozen=True, slots=True)
class Find:
    """A read; answers the documents in order."""

    name: str
    filter: Filter
    projection: Mapping[str, Any] | None = None
    sort: Sort = ()
    limit: int = 0
    hint: str | None = None
    collection: Collection = "runs"


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A read by pipeline, its first stage the scoped filter; answers the documents in order."""

    name: str
    filter: Filter
    pipeline: Sequence[Mapping[str, Any]]
    hint: str | None = None
