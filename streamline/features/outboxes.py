"""The outbox that every run is: which of its events the log has not got yet, and what goes into the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from streamline.domain.change import EVENTS_KEPT, Change
from streamline.domain.statuses import TERMINAL
from streamline.domain.transitions.closing import removal

Document = Mapping[str, Any]


def unlogged(run: Document) -> int:
    """Return how many of the events that a run keeps the log may not have."""
    waiting: int = run["event_seq"] - run.get("relayed", 0)
    return max(0, min(waiting, len(run["events"]) if "events" in run else EVENTS_KEPT))


def is_full(run: Document, change: Change) -> bool:
    """Return whether a run would keep more events than it should, because the log has not got them."""
    return bool(change.events) and unlogged(run) + len(change.events) > EVENTS_KEPT


def marked(run: Document, change: Change, now: datetime) -> Change:
    """Return the change with a mark by which the relay finds the run, in the same write; no event leaves it unlogged.

    A run that is to be removed in time is not before the log has its events: the relay sets when.
    """
    if not change.events and "expire_at" not in change.put:
        return change
    return replace(
        change,
        put={path: value for path, value in change.put.items() if path != "expire_at"},
        earliest={**change.earliest, "outbox_at": now},
        keep=max(EVENTS_KEPT, unlogged(run) + len(change.events)),
    )


def entries_of(run: Document, since: datetime) -> list[dict[str, Any]]:
    """Return what is to go into the log, in order: the events from an instant on that it has not got.

    Args:
        run: As the relay reads it.
        since: When the log was begun; what a run tells of an earlier time is not in it.
    """
    relayed = run.get("relayed", 0)
    shared = {name: run.get(name) for name in ("workflow", "version", "tenant_id", "born")}
    return [
        {"run_id": run["_id"], "seq": event["seq"], **shared, "event": dict(event)}
        for event in run["events"]
        if is_event(event) and event["seq"] > relayed and event["at"] >= since
    ]


def is_event(stored: Any) -> bool:
    """Return whether an entry of a ring is an event: a damaged run must not hold up the others."""
    return isinstance(stored, dict) and type(stored.get("seq")) is int and isinstance(stored.get("at"), datetime)


def note_of(run: Document) -> dict[str, Any]:
    """Return what is to be recorded of a run once the log has its events: up to which, and when it may be removed.

    An ended run changes only with its revision; of one that goes on, whatever its events do not tell is of no concern.
    """
    note = {"run_id": run["_id"], "seq": run.get("event_seq")}
    if run.get("status") not in TERMINAL:
        return note
    return note | {"rev": run.get("rev"), "put": {} if "owes_at" in run else removal(run)}
