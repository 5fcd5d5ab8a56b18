"""The filter of an operation on many runs: which runs are meant, and never all of them by mistake."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from streamline.errors import InvalidQuery
from streamline.store.filters import RunQuery
from streamline.store.matches import MATCH_ROOTS

ARGUMENTS = ("workflow", "status", "tags", "match", "created_after", "created_before")


def read_bulk_filter(given: object, *, limited: bool) -> RunQuery:
    """Return the query that a filter means.

    Args:
        given: The arguments of `runs` by name; a field of ``input``, ``metadata`` or ``output`` stands for a part of
            ``match``.
        limited: Whether the number of runs is limited, so that a filter may leave out every condition.

    Raises:
        InvalidQuery: The filter is not of the allowed form, or fits every run; names the field. None is refused: what
            was not set somewhere must not make an operation one on more runs.
    """
    if not isinstance(given, Mapping):
        raise InvalidQuery("filter: a mapping", field="filter")
    for name in given:
        if name not in ARGUMENTS and not _is_payload(name):
            known = ", ".join((*ARGUMENTS, *(f"{root}.…" for root in MATCH_ROOTS)))
            raise InvalidQuery(f"{name!r:.100}: no field of a filter; one of {known}", field=str(name)[:100])
        if given[name] is None:
            raise InvalidQuery(f'{name:.100}: None; leave it out, or say {{"$eq": None}}', field=str(name)[:100])
    told = {name: given[name] for name in ARGUMENTS if name != "match" and name in given}
    query = RunQuery(**told, match=_match(given))
    if not query.filter() and not limited:
        raise InvalidQuery("filter: without a condition it fits every run; say limit=... for that", field="filter")
    return query


def among(query: RunQuery, statuses: Collection[str]) -> RunQuery | None:
    """Return a query for those of its runs that have one of these statuses; None where it asks for others only."""
    asked = query.statuses
    left = sorted(set(statuses) if asked is None else set(statuses).intersection(asked))
    return replace(query, status=left) if left else None


def _match(given: Mapping[str, Any]) -> Any:
    parts = {name: value for name, value in given.items() if _is_payload(name)}
    match = given.get("match", {})
    if match == {}:
        return parts or None
    return {"$and": [match, parts]} if parts else match


def _is_payload(name: object) -> bool:
    return isinstance(name, str) and name.split(".", maxsplit=1)[0] in MATCH_ROOTS
