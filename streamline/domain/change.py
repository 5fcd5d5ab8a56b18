"""A transition as a value, and the executable model of what it does to a run document.

Transitions build a `Change`; the store compiles it into one guarded update. `apply` says what that update means, in
Python: the driver of a run keeps its own copy current with it, and the conformance tests hold the database to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

EVENTS_KEPT = 100


@dataclass(frozen=True, slots=True)
class AtMost:
    """Guard: the field is present and not greater than `limit`."""

    limit: datetime


@dataclass(frozen=True, slots=True)
class OneOf:
    """Guard: the field equals one of the options."""

    options: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Absent:
    """Guard: the field is not there, or null."""


@dataclass(frozen=True, slots=True)
class Change:
    """One guarded write to one run.

    Args:
        guard: What must hold of the stored run, by field path; at least one guarded value is changed by the write, so
            that a repetition of it matches nothing.
        put: New values by field path.
        drop: Field paths to remove.
        add: Whole numbers to add, by field path; a missing field counts as 0.
        earliest: Instants to keep where none or a later one is stored, by field path.
        events: Appended to the run's ring of events.
        weight: Size in bytes of the users' values in `put`, for the batching of writes.
    """

    guard: Mapping[str, Any]
    put: Mapping[str, Any] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    add: Mapping[str, int] = field(default_factory=dict)
    earliest: Mapping[str, datetime] = field(default_factory=dict)
    events: tuple[Mapping[str, Any], ...] = ()
    weight: int = 0


def apply(document: dict[str, Any], change: Change) -> bool:
    """Carry out `change` on `document` in place and return True, or return False where the guard does not hold."""
    if not all(holds(document, path, wanted) for path, wanted in change.guard.items()):
        return False
    for path, value in change.put.items():
        _place(document, path)[_last(path)] = copy(value) if isinstance(value, (dict, list)) else value
    for path in change.drop:
        _place(document, path).pop(_last(path), None)
    for path, amount in change.add.items():
        place = _place(document, path)
        place[_last(path)] = place.get(_last(path), 0) + amount
    for path, instant in change.earliest.items():
        place = _place(document, path)
        place[_last(path)] = min(place.get(_last(path), instant), instant)
    if change.events:
        document["events"] = [*document["events"], *change.events][-EVENTS_KEPT:]
    return True


def holds(document: Mapping[str, Any], path: str, wanted: Any) -> bool:
    """Return whether the guard `wanted` holds of the field at `path`."""
    found = read(document, path)
    if isinstance(wanted, AtMost):
        return found is not None and bool(found <= wanted.limit)
    if isinstance(wanted, OneOf):
        return found in wanted.options
    if isinstance(wanted, Absent):
        return found is None
    return bool(found == wanted)


def read(document: Mapping[str, Any], path: str) -> Any:
    """Return the value at a field path such as ``steps.2.id``, or None where there is none."""
    found: Any = document
    for part in path.split("."):
        if isinstance(found, list):
            found = found[int(part)] if int(part) < len(found) else None
        elif isinstance(found, Mapping):
            found = found.get(part)
        else:
            return None
    return found


def _place(document: dict[str, Any], path: str) -> dict[str, Any]:
    place: Any = document
    for part in path.split(".")[:-1]:
        place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
    assert isinstance(place, dict)
    return place


def _last(path: str) -> str:
    return path.rpartition(".")[2]
