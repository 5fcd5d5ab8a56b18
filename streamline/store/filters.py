"""Users' queries as filters: only what an index or a bounded scan can answer, and no code."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from streamline.domain.durations import check_instant
from streamline.domain.names import is_storable
from streamline.domain.statuses import ACTIVE, ERRED, RUN_STATUSES
from streamline.errors import CorruptRun, InvalidPolicy, InvalidQuery
from streamline.store.matches import checked_match

PAGE_MAX = 500
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What all runs of some statuses have, and others do not: the conditions of the indexes that hold only these runs.
_FAILING: dict[str, Any] = {"error.code": {"$gt": ""}}
_LIVE: dict[str, Any] = {"live": True}
_ORDERS = {"created_at": 1, "-created_at": -1}


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which runs are wanted, checked.

    Args:
        workflow: Name of a workflow.
        status: A status, or several.
        tags: Tags that a run must all have.
        match: A Mongo filter over ``input``, ``metadata`` and ``output``.
        created_after: Only runs created at or after this instant.
        created_before: Only runs created before this instant.
    """

    workflow: str | None = None
    status: str | Sequence[str] | None = None
    tags: str | Sequence[str] | None = None
    match: Mapping[str, Any] | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None

    def filter(self) -> dict[str, Any]:
        """Return the filter; raise `InvalidQuery` naming the field that is not of the allowed form."""
        query: dict[str, Any] = {}
        if self.workflow is not None:
            query["workflow"] = _text(self.workflow, "workflow")
        if (names := self.statuses) is not None:
            query |= {"status": {"$in": names}} | (_FAILING if ERRED.issuperset(names) else {})
            query |= _LIVE if ACTIVE.issuperset(names) else {}
        if self.tags is not None:
            query["tags"] = {"$all": _texts(self.tags, "tags")}
        created = _bounds(self.created_after, self.created_before)
        if created:
            query["created_at"] = created
        if self.match is not None:
            query = {"$and": [query, checked_match(self.match)]}
        return query

    @property
    def statuses(self) -> list[str] | None:
        """The statuses that are wanted; None for any."""
        return None if self.status is None else _statuses(self.status)

    @property
    def is_narrow(self) -> bool:
        """Whether an index that leads with the tenant serves more of it than the tenant and the workflow."""
        is_bounded = self.created_after is not None or self.created_before is not None
        return is_bounded or (self.statuses is not None and ERRED.issuperset(self.statuses))


def sort_of(order: str) -> tuple[tuple[str, int], ...]:
    """Return the sort that an order's name means; raise `InvalidQuery`."""
    if not isinstance(order, str) or order not in _ORDERS:
        raise InvalidQuery('order: "created_at" or "-created_at"', field="order")
    return (("created_at", _ORDERS[order]), ("_id", _ORDERS[order]))


def checked_limit(limit: object) -> int:
    """Return `limit` if a page may be that long; raise `InvalidQuery`."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= PAGE_MAX:
        raise InvalidQuery(f"limit: a whole number from 1 to {PAGE_MAX}", field="limit")
    return limit


def cursor_of(document: Mapping[str, Any]) -> str:
    """Return the text that stands for the place behind `document`; raise `CorruptRun` where it has none."""
    if not isinstance(document.get("created_at"), datetime):
        raise CorruptRun(f"run {document['_id']}: field created_at", field="created_at")
    milliseconds = (document["created_at"] - _EPOCH) // timedelta(milliseconds=1)
    return base64.urlsafe_b64encode(json.dumps([milliseconds, document["_id"]]).encode()).decode()


def behind(cursor: str, order: str) -> dict[str, Any]:
    """Return the filter for what stands behind a page's cursor; raise `InvalidQuery` where it is not one of ours."""
    same_instant, further = both_behind(cursor, order)
    # The range on created_at alone lets the scan begin at the cursor; the rest settles ties.
    (operator, at), *_ = further["created_at"].items()
    return {"created_at": {operator + "e": at}, "$or": [further, same_instant]}


def both_behind(cursor: str, order: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the filters for what stands behind a cursor, in order: what is of its instant, and what is not.

    Raises:
        InvalidQuery: It is not a cursor of ours.
    """
    try:
        milliseconds, run_id = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        at = _EPOCH + timedelta(milliseconds=int(milliseconds))
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError, binascii.Error):
        raise InvalidQuery("after: not a cursor of a page", field="after") from None
    further = "$lt" if _ORDERS[order] < 0 else "$gt"
    if not isinstance(run_id, str):
        raise InvalidQuery("after: not a cursor of a page", field="after")
    return {"created_at": at, "_id": {further: run_id}}, {"created_at": {further: at}}


def _statuses(status: object) -> list[str]:
    names = _texts(status, "status")
    if unknown := [name for name in names if name not in RUN_STATUSES]:
        raise InvalidQuery(f"status: {len(unknown)} unknown; one of {', '.join(RUN_STATUSES)}", field="status")
    return names


def _texts(value: object, field: str) -> list[str]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, (list, tuple, set, frozenset)) or not items:
        raise InvalidQuery(f"{field}: a string or several", field=field)
    return [_text(item, field) for item in items]


def _text(value: object, field: str) -> str:
    if not isinstance(value, str) or not is_storable(value):
        raise InvalidQuery(f"{field}: a string without lone surrogates", field=field)
    return value


def _bounds(after: object, before: object) -> dict[str, datetime]:
    bounds = {}
    for operator, value, field in (("$gte", after, "created_after"), ("$lt", before, "created_before")):
        if value is None:
            continue
        try:
            bounds[operator] = check_instant(value, field)
        except InvalidPolicy as error:
            raise InvalidQuery(error.message, field=field) from error
    return bounds
