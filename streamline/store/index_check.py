"""Comparing the indexes that are there with those that this release needs; nothing is created or dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pymongo.errors import OperationFailure

from streamline.domain.record import Record
from streamline.store.driver import Driver
from streamline.store.operations import Aggregate, Collection

_NO_SUCH_COLLECTION = 26
_MATTERS = ("unique", "sparse", "hidden", "expireAfterSeconds", "partialFilterExpression", "collation")
_SHOWN_PAIRS = 5


@dataclass(frozen=True, slots=True)
class IndexIssue(Record):
    """An index that is not as this release needs it.

    Attributes:
        collection: The collection's name in the database.
        index: The index's name; that of the collection where this is what is missing.
        problem: ``"missing"``; ``"different"``: one of this name has another definition; ``"unknown"``: its name looks
            like one of the engine's and this release has none of that name, so it is another release's, or yours.
        detail: What is different.
        unique: Whether a promise depends on it, not only speed.
    """

    collection: str
    index: str
    problem: Literal["missing", "different", "unknown"]
    detail: str = ""
    unique: bool = False

    @property
    def is_harmless(self) -> bool:
        """Whether the release works as it should all the same."""
        return self.problem == "unknown"


async def issues_of(driver: Driver, name: Collection, wanted: Mapping[str, Mapping[str, Any]]) -> list[IndexIssue]:
    """Return what is not as it should be of one collection's indexes; `wanted` has their definitions by name."""
    collection, there = driver.named(name), await _definitions(driver, driver.named(name))
    found = []
    for index, definition in wanted.items():
        unique = bool(definition.get("unique"))
        if index not in there:
            twin = next((each for each in there if not _difference(definition, there[each])), None)
            detail = "" if twin is None else f"{twin} is the same one under another name"
            found.append(IndexIssue(collection, index, "missing", detail, unique))
        elif detail := _difference(definition, there[index]):
            found.append(IndexIssue(collection, index, "different", detail, unique))
    others = sorted(each for each in there if each not in wanted and each.startswith(f"{name}_"))
    return found + [IndexIssue(collection, each, "unknown") for each in others]


async def find_duplicates(driver: Driver, name: Collection, definition: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return ids of documents that share what a unique index would hold once, in pairs, a few of them."""
    by = {path.replace(".", "_"): f"${path}" for path in definition["key"]}
    pipeline: list[dict[str, Any]] = [
        {"$group": {"_id": by, "one": {"$first": "$_id"}, "other": {"$last": "$_id"}, "n": {"$sum": 1}}},
        {"$match": {"n": {"$gt": 1}}},
        {"$limit": _SHOWN_PAIRS},
    ]
    query = definition.get("partialFilterExpression", {})
    found = await driver.aggregate(driver.named(name), Aggregate("find_duplicates", query, pipeline))
    return [(str(each["one"]), str(each["other"])) for each in found]


async def _definitions(driver: Driver, collection: str) -> dict[str, Mapping[str, Any]]:
    try:
        answer = await driver.command({"listIndexes": collection, "cursor": {"batchSize": 1000}})
    except OperationFailure as error:
        if error.code == _NO_SUCH_COLLECTION:
            return {}
        raise
    return {each["name"]: each for each in answer["cursor"]["firstBatch"]}


def _difference(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> str:
    if list(wanted["key"].items()) != list(there["key"].items()):
        return f"its keys are {', '.join(f'{path} {way}' for path, way in there['key'].items())}"
    # An option that is off is stored as no option.
    other = [name for name in _MATTERS if (wanted.get(name, False)) != (there.get(name, False))]
    return f"{', '.join(other)}: not as it should be" if other else ""
