"""Parking a run whose handlers wait: it costs nothing until something is due, or somebody answers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from streamline.domain.change import Change
from streamline.domain.place import Document, Place, attempt_of, open_waits
from streamline.domain.reactions import matches
from streamline.domain.transitions.patching import begun
from streamline.domain.transitions.writing import Entry, answerable, driven, of_place, parked

Waits = Mapping[str, Mapping[str, Any]]


def park(run: Document, waits: Mapping[Place, Waits], now: datetime, *, others: tuple[datetime, ...] = ()) -> Change:
    """Return the change that stores what the handlers wait for and parks the run until the first of it is due.

    Args:
        run: The run, as fresh as the write demands: what was answered meanwhile makes it due at once.
        waits: For each place, what its handler waits for, by address.
        now: The present instant.
        others: Instants at which steps of the group are to be tried again.
    """
    put: dict[str, Any] = {}
    dues, entries = list(others), list[Entry]()
    for place, entries_of in waits.items():
        put |= begun(run, place) | {f"{place.at}.status": "waiting", f"{place.at}.attempt": attempt_of(run, place)}
        fresh, instants = _of_place(run, place, entries_of, now)
        put |= fresh | {f"{place.at}.waits": list(entries_of)}
        dues += instants
        entries.append(_waiting(run, place, instants))
    held, drop = parked(run, _first(run, dues, now))
    # Waking is not another attempt: the claim will count one.
    put |= held | {"attempt": run["attempt"] - 1}
    dead = _dead(run, waits)
    left, closed = answerable(run, without=lambda place, address: (place, address) in dead, more=_fresh(put))
    put |= left
    drop = (*drop, *closed, *(f"{place.at}.memo.{address}" for place, address in dead))
    if "nudged" in run:
        drop = (*drop, "nudged")
    return driven(run, now, put, *entries, places=tuple(waits), drop=drop)


# Who opens such a wait waits for it: one that nobody waits for belongs to a branch that was ended.
_AWAITED = ("approval", "event", "question", "wait")


def _dead(run: Document, waits: Mapping[Place, Waits]) -> set[tuple[Place, str]]:
    """Return the waits that can be answered and that no handler waits for any more."""
    return {
        (place, address)
        for place, address, entry in open_waits(run)
        if place in waits and address not in waits[place] and entry["kind"] in _AWAITED
    }


def _fresh(put: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [entry for entry in put.values() if isinstance(entry, Mapping) and entry.get("open")]


def waiting_event(run: Document, entry: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the oldest event in the run's inbox that a wait is for, or None."""
    if entry["kind"] != "event":
        return None
    end = entry.get("due_at")
    in_time = (event for event in run.get("inbox", ()) if end is None or event["at"] <= end)
    mine = (event for event in in_time if event["name"] == entry["name"])
    return next((event for event in mine if matches(entry.get("match"), event["payload"])), None)


def _of_place(run: Document, place: Place, waits: Waits, now: datetime) -> tuple[dict[str, Any], list[datetime]]:
    put: dict[str, Any] = {}
    dues: list[datetime] = []
    memo = place.memo(run)
    for address, entry in waits.items():
        stored = memo.get(address)
        if stored is None or not (entry.get("open") or stored == entry):
            put[f"{place.at}.memo.{address}"] = dict(entry)
        answered = stored is not None and entry.get("open") and not stored.get("open")
        if answered or waiting_event(run, entry) is not None:
            dues.append(now)
        elif entry.get("due_at") is not None:
            dues.append(entry["due_at"])
    return put, dues


def _first(run: Document, dues: list[datetime], now: datetime) -> datetime | None:
    if "nudged" in run:
        return now
    deadline = None if run["status"] == "compensating" else run.get("deadline_at")
    return min([*dues, *([deadline] if deadline is not None else [])], default=None)


def _waiting(run: Document, place: Place, dues: list[datetime]) -> Entry:
    return ("run.waiting", of_place(run, place) | ({"due_at": min(dues)} if dues else {}))
