"""A transition as a value, and the executable model of what it does to a run document.

Transitions build a `Change`; the store compiles it into one guarded update. `apply` says what that update means, in
Python: the driver of a run keeps its own copy current with it, and the conformance tests hold the database to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

EVENTS_KEPT = 100


@dataclass(frozen=True, slots=True)
class AtMost:
    """Guard: the field is present and not greater than `limit`."""

    limit: datetime


@dataclass(frozen=True, slots=True)
class Counted:
    """Guard: the field is a number of at least 0, so that it can be added to."""


@dataclass(frozen=True, slots=True)
class OneOf:
    """Guard: the field equals one of the options."""

    options: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Absent:
    """Guard: the field is not there, or null."""


@dataclass(frozen=True, slots=True)
class Append:
    """Values to add at the end of a list, of which only the newest `keep` stay."""

    values: tuple[Any, ...]
    keep: int | None = None


@dataclass(slots=True)
class Change:
    """One guarded write to one run.

    Nobody alters one; it is not frozen because that costs a call per field, for every write of every run.

    Args:
        guard: What must hold of the stored run, by field path; at least one guarded value is changed by the write, so
            that a repetition of it matches nothing.
        put: New values by field path.
        drop: Field paths to remove.
        add: Numbers to add, by field path; a missing field counts as 0.
        append: Values to add to lists, by field path; a missing field counts as an empty one.
        earliest: Instants to keep where none or a later one is stored, by field path.
        events: Appended to the run's ring of events.
        keep: How many events the ring keeps at most, the newest; more where the log has not got them yet.
        weight: Size in bytes of the users' values in `put`, for the batching of writes.
    """

    guard: Mapping[str, Any]
    put: Mapping[str, Any] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    add: Mapping[str, float] = field(default_factory=dict)
    append: Mapping[str, Append] = field(default_factory=dict)
    earliest: Mapping[str, datetime] = field(default_factory=dict)
    events: tuple[Mapping[str, Any], ...] = ()
    keep: int = EVENTS_KEPT
    weight: int = 0


def apply(document: dict[str, Any], change: Change) -> bool:
    """Carry out `change` on `document` in place and return True, or return False where the guard does not hold."""
    if not all(holds(document, path, wanted) for path, wanted in change.guard.items()):
        return False
    carry_out(document, change)
    return True


def carry_out(document: dict[str, Any], change: Change) -> None:
    """Do to `document`, in place, what a change does whose guard is known to have held."""
    for path, value in change.put.items():
        place, name = _place(document, path)
        place[int(name) if type(place) is list else name] = copy(value) if type(value) in (dict, list) else value
    for path in change.drop:
        parent = read(document, path.rpartition(".")[0]) if "." in path else document
        if isinstance(parent, dict):
            parent.pop(path.rpartition(".")[2], None)
    for path, amount in change.add.items():
        place, name = _place(document, path)
        place[name] = place.get(name, 0) + amount
    for path, more in change.append.items():
        place, name = _place(document, path)
        place[name] = [*place.get(name, ()), *more.values][-more.keep if more.keep else None :]
    for path, instant in change.earliest.items():
        place, name = _place(document, path)
        place[name] = min(place.get(name, instant), instant)
    if change.events:
        document["events"] = [*document.get("events", ()), *change.events][-change.keep :]


def holds(document: Mapping[str, Any], path: str, wanted: Any) -> bool:
    """Return whether the guard `wanted` holds of the field at `path`."""
    found = read(document, path)
    if isinstance(wanted, AtMost):
        return found is not None and bool(found <= wanted.limit)
    if isinstance(wanted, Counted):
        return isinstance(found, int) and not isinstance(found, bool) and found >= 0
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


def _place(document: dict[str, Any], path: str) -> tuple[Any, str]:
    """Return the mapping that holds the field at `path`, made where there is none, and the field's name in it."""
    if "." not in path:
        return document, path
    parents, name = _split(path)
    place: Any = document
    for part in parents:
        place = place[int(part)] if type(place) is list else place.setdefault(part, {})
    return place, name


@lru_cache(maxsize=4096)
def _split(path: str) -> tuple[tuple[str, ...], str]:
    *parents, name = path.split(".")
    return tuple(parents), name
