"""Answering what a run waits for: exactly one answer, timeout or cancellation of a wait can win.

Whatever is written here is guarded by the revision that was read, and takes the wait's mark of being open away.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from streamline.domain.change import Append, Change
from streamline.domain.heard import noted
from streamline.domain.payloads import NO_VALUE, Encoded
from streamline.domain.place import Document, Place, open_waits
from streamline.domain.reactions import matches
from streamline.domain.statuses import TERMINAL
from streamline.domain.transitions.writing import answerable, hashes_of, operated, woken
from streamline.errors import AlreadyFinished, InvalidInput, NotWaiting, PayloadTooLarge

INBOX_MAX = 100
# What a wait keeps when it is answered: where the answer is of no use, it goes on.
LASTING = ("kind", "name", "key", "opened_at", "due_at", "hash", "older", "generation")


@dataclass(frozen=True, slots=True)
class Reply:
    """What somebody answers.

    Args:
        outcome: ``"answered"``, ``"approved"``, ``"rejected"`` or ``"withdrawn"``.
        payload: The answer's value.
        by: Who answers.
        reason: Why.
        authority: Whether the app itself answers, for whom it likes.
    """

    outcome: str
    payload: Encoded = field(default_factory=lambda: NO_VALUE)
    by: str | None = None
    reason: str | None = None
    authority: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """Which wait is answered: of one of these kinds, under this key or with this hash; the oldest where several are."""

    kinds: Collection[str]
    key: str | None = None
    hash: str | None = None

    def find(self, run: Document) -> tuple[Place, str, Mapping[str, Any]] | None:
        """Return the open wait with its place and address, or None."""
        found = [each for each in open_waits(run) if self._is_meant(each[1], each[2])]
        return min(found, key=lambda each: each[2]["opened_at"], default=None)

    def _is_meant(self, address: str, entry: Mapping[str, Any]) -> bool:
        is_named = self.key in (None, address, entry.get("key")) and (
            self.hash is None or self.hash in hashes_of(entry)
        )
        return entry["kind"] in self.kinds and is_named


def answer(run: Document, target: Target, reply: Reply, now: datetime) -> Change:
    """Return the change that answers a wait and makes the run due.

    Raises:
        NotWaiting: The run waits for nothing of the kind, or no longer.
        InvalidInput: Whoever answers is not among those who may.
    """
    if run["status"] in TERMINAL:
        raise NotWaiting(f"the run is {run['status']}: it waits for nothing", field="run_id")
    found = target.find(run)
    if found is None:
        raise NotWaiting("the run waits for nothing of the kind", field="run_id")
    place, address, entry = found
    approvers = entry.get("approvers")
    if approvers and not reply.authority and reply.by not in approvers:
        raise InvalidInput("by: not among those who may answer", field="by")
    if _is_over(entry, now):
        raise NotWaiting("the time to answer is over", field="run_id")
    return _answered(run, place, address, entry, reply, now)


def _answered(
    run: Document,
    place: Place,
    address: str,
    entry: Mapping[str, Any],
    reply: Reply,
    now: datetime,
    *,
    heard: tuple[Mapping[str, Any], ...] = (),
) -> Change:
    settled = settled_entry(entry, reply, now)
    path = f"{place.at}.memo.{address}"
    put = {path: settled, **woken(run, now)}
    if reply.payload.size:
        put["size"] = run.get("size", 0) + reply.payload.size
    left, drop = answerable(run, without=lambda where, key: (where, key) == (place, address))
    told = {"step": run["steps"][place.k]["id"], "key": address, "outcome": reply.outcome}
    told |= {"by": reply.by} if reply.by is not None else {}
    remembered, append = noted(run, heard)
    put |= left | remembered
    return operated(run, now, put, ("wait.answered", told), drop=drop, append=append, weight=reply.payload.size)


def settled_entry(entry: Mapping[str, Any], reply: Reply, now: datetime) -> dict[str, Any]:
    """Return a wait's memo entry once it is answered."""
    kept = {name: entry[name] for name in LASTING if name in entry}
    settled = {**kept, "outcome": reply.outcome, "output": reply.payload.value, "size": reply.payload.size, "at": now}
    settled |= {"by": reply.by} if reply.by is not None else {}
    return settled | ({"reason": reply.reason} if reply.reason is not None else {})


def deliver(run: Document, name: str, payload: Encoded, event_id: str, now: datetime) -> Change:
    """Return the change by which an event reaches a run: the wait for it is answered, or it is kept for a later one.

    Raises:
        AlreadyFinished: The run has ended.
        PayloadTooLarge: It keeps as many events as it can.
    """
    if run["status"] in TERMINAL:
        raise AlreadyFinished(f"the run is {run['status']}: no event can reach it", field="run_id")
    for place, address, entry in listening(run, name, now):
        if matches(entry.get("match"), payload.value):
            return _answered(run, place, address, entry, Reply("answered", payload), now)
    if len(run.get("inbox", ())) >= INBOX_MAX:
        raise PayloadTooLarge(f"the run keeps {INBOX_MAX} events that it has not waited for yet", field="name")
    kept = {"id": event_id, "name": name, "payload": payload.value, "size": payload.size, "at": now}
    put = {"size": run.get("size", 0) + payload.size} if payload.size else {}
    event = ("event.received", {"name": name})
    return operated(run, now, put, event, append={"inbox": Append((kept,))}, weight=payload.size)


def listening(run: Document, name: str, now: datetime) -> list[tuple[Place, str, Mapping[str, Any]]]:
    """Return the open waits for an event of a name whose time is not over, the oldest first."""
    found = [each for each in open_waits(run) if each[2]["kind"] == "event" and each[2]["name"] == name]
    return sorted((each for each in found if not _is_over(each[2], now)), key=lambda each: each[2]["opened_at"])


def bring(run: Document, wait: tuple[Place, str, Mapping[str, Any]], event: Mapping[str, Any], now: datetime) -> Change:
    """Return the change by which a kept event answers an open wait, and is remembered."""
    reply = Reply("answered", Encoded(event["payload"], event.get("size", 0)))
    return _answered(run, *wait, reply, now, heard=(event,))


def _is_over(entry: Mapping[str, Any], now: datetime) -> bool:
    return entry.get("due_at") is not None and bool(entry["due_at"] <= now)
