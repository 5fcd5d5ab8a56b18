"""The shape of a filter: its fields and operators, and none of its values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

_LONGEST = 400
_IN_ORDER = ("tenant_id", "workflow")
_SERVED = frozenset({*_IN_ORDER, "created_at", "_id", "status", "error.code", "live"})
_EXACT = frozenset({"$eq", "$in", "$all"})
_FIELDS = 3


def shape_of(query: Mapping[str, Any]) -> str:
    """Return the fields of a filter with their operators, such as ``"tenant_id $eq, input.amount $gt"``."""
    return _printable(", ".join(_told(query)))[:_LONGEST]


def missing_index(query: Mapping[str, Any]) -> str | None:
    """Return the keys of an index that would serve a filter as no index of the engine does.

    Fields that are compared for equality lead, then comes the order of pages; None where the filter names no field of
    the user's, so that there is nothing to index.
    """
    fields = dict(_conditions(query))
    own = [field for field in fields if field not in _SERVED and not field.startswith("$")]
    if not own:
        return None
    exact = [field for field in own if _EXACT & fields[field]]
    keys = [*(field for field in _IN_ORDER if field in fields), *(exact[:_FIELDS] or own[:1])]
    return _printable(", ".join([*(f"{key}: 1" for key in keys), "created_at: -1", "_id: -1"]))[:_LONGEST]


def _told(query: Mapping[str, Any]) -> Iterator[str]:
    for field, condition in query.items():
        if field == "$and" and isinstance(condition, Sequence):
            for part in condition:
                yield from _told(part)
        elif field.startswith("$") and isinstance(condition, Sequence):
            yield f"{field}({'; '.join(', '.join(_told(part)) for part in condition)})"
        else:
            yield f"{field} {' '.join(_operators(condition))}"


def _operators(condition: object) -> Iterator[str]:
    if not _is_of_operators(condition):
        yield "$eq"
        return
    for operator, value in condition.items():
        if operator == "$not":
            yield f"$not({' '.join(_operators(value))})"
        elif operator == "$elemMatch" and isinstance(value, Mapping):
            inner = " ".join(_operators(value)) if _is_of_operators(value) else ", ".join(_told(value))
            yield f"$elemMatch({inner})"
        else:
            yield operator


def _conditions(query: Mapping[str, Any]) -> Iterator[tuple[str, frozenset[str]]]:
    """Find what every document has to fit: the fields of the filter, and of its ``$and``, with their operators."""
    for field, condition in query.items():
        if field == "$and" and isinstance(condition, Sequence):
            for part in condition:
                yield from _conditions(part)
        else:
            yield field, frozenset(_operators(condition))


def _is_of_operators(condition: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(condition, Mapping) and bool(condition) and all(str(key).startswith("$") for key in condition)


def _printable(text: str) -> str:
    """Field names are users': none may break a line of the log."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
