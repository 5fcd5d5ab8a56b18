"""How a run passes the gates of its workflow: it is put off, waits in line, is called up, is admitted.

A run that has gates is `gated`, and must not be driven before it is admitted. Its slot, where it has to have one, is
part of the run: it is taken by the write that admits the run, and given back by the one that ends it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from streamline.domain.change import Absent, Change, Counted
from streamline.domain.heard import noted
from streamline.domain.place import Document
from streamline.domain.transitions.birth import Order, of_version, reacting
from streamline.domain.transitions.writing import Entry, due, operated

# What whoever decides about a gated run has to know of it.
SEEN = (
    "status", "rev", "event_seq", "size", "due_at", "start_by", "deadline_at", "paused", "lease", "workflow", "version",
    "route", "tenant_id", "slot_key", "throttle_key", "slot", "gated", "admitted_at", "queued_at", "fire_by",
    "debounce_key", "created_at", "priority", "outbox_at", "relayed", "heard", "passed",
)  # fmt: skip


def is_to_be_admitted(run: Document) -> bool:
    """Return whether the run has gates that it has not passed."""
    return "gated" in run and "admitted_at" not in run


def is_sound(run: Document) -> bool:
    """Return whether the run can be let wait; one that is damaged is taken as it is, to be failed."""
    counts = all(isinstance(run.get(name), int) for name in ("rev", "event_seq"))
    names = all(isinstance(run.get(name), str) for name in ("workflow", "version", "route"))
    return counts and names and all(isinstance(run.get(name, ""), str) for name in ("slot_key", "throttle_key"))


def is_up(run: Document, by: datetime) -> bool:
    """Return whether the run may be admitted: it is due by an instant, or stands in line, and nobody holds it."""
    if not is_to_be_admitted(run) or "lease" in run or run.get("paused"):
        return False
    return "queued_at" in run or ("due_at" in run and bool(run["due_at"] <= by))


def admit(run: Document, now: datetime, lease: Mapping[str, Any], *, slot: int | None, begun_at: datetime) -> Change:
    """Return the claim of a run that passes its gates.

    It has its slot and its turn, so that somebody else who saw none left, and lets the run wait, does not stop it.

    Args:
        run: What is seen of it.
        now: The present instant.
        lease: The claim's lease.
        slot: The slot that it is to hold.
        begun_at: When it begins, as the ledger of its throttle has it.
    """
    guard = {
        "route": run["route"],  # it may have been carried over to another version
        "status": run["status"],
        "lease": Absent(),
        "paused": Absent(),
        "admitted_at": Absent(),
        "slot": run.get("slot", Absent()),
        "attempt": Counted(),
    }
    if "debounce_key" in run:
        guard["rev"] = run.get("rev")  # a later start may have given it another input, and put it off
    put: dict[str, Any] = {"lease": dict(lease), "updated_at": now, "admitted_at": begun_at}
    put |= {} if slot is None else {"slot": slot}
    drop = ("due_at", "queued_at", "debounce_key")
    if run["status"] == "compensating":
        return Change(guard=guard, put=put, drop=drop, add={"attempt": 1})
    put["status"] = "running"
    return Change(guard=guard, put=put, drop=drop, add={"attempt": 1}, earliest={"started_at": begun_at})


def is_in_the_way(run: Document, now: datetime) -> bool:
    """Return whether a run for which there is no slot would be found again at once, rather than wait in line."""
    is_due = run.get("due_at") is not None and run["due_at"] <= now
    return "queued_at" not in run or (is_due and run["due_at"] != run.get("start_by"))


def put_in_line(run: Document, now: datetime) -> Change:
    """Return the change by which a due run waits for a slot, out of the way of others."""
    put: dict[str, Any] = {"queued_at": run.get("queued_at", now)}
    drop = ("debounce_key",) if "debounce_key" in run else ()
    limits = [run[name] for name in ("start_by", "deadline_at") if run.get(name, now) > now]
    if limits:
        put["due_at"] = min(limits)
    else:
        drop = (*drop, "due_at")
    return operated(run, now, put, ("run.queued", {}), drop=drop)


def call_up(run: Document, now: datetime) -> Change:
    """Return the change by which a run that waits in line is due: there is a slot for it, if nobody is faster."""
    return operated(run, now, {"due_at": now}, drop=("queued_at",))


def put_off(run: Document, instant: datetime, now: datetime) -> Change:
    """Return the change by which a run may begin at a later instant, and is in nobody's way until then."""
    drop = tuple(name for name in ("debounce_key", "queued_at", "slot") if name in run)
    return operated(run, now, {"due_at": instant}, ("run.throttled", {"due_at": instant}), drop=drop)


def is_sealed(run: Document, now: datetime) -> bool:
    """Return whether a draft has waited for as long as it may: it begins as it is, and later starts are not its."""
    return "fire_by" in run and bool(run["fire_by"] <= now)


def seal(run: Document, now: datetime) -> Change:
    """Return the change by which a draft gives its key back before it begins."""
    return operated(run, now, {}, drop=("debounce_key",))


def bump(run: Document, order: Order, now: datetime, due_at: datetime) -> Change:
    """Return the change by which a later start under its key gives a draft its input, and puts it off.

    A start by another version makes the draft, of which nothing has begun, a run of that version.
    """
    instant = min(due_at, run["fire_by"]) if "fire_by" in run else due_at
    put, drop = due(run, instant)
    put |= {"input": order.input, "size": order.weight, "priority": order.priority}
    told = {
        "tags": list(order.tags), "metadata": order.metadata, "start_by": order.start_by,
        "deadline_at": order.deadline_at, **{name: order.gate.get(name) for name in ("slot_key", "throttle_key")},
    }  # fmt: skip
    reacts = reacting(order)
    reacts.pop("inbox", None)  # whoever sends to a run that was there before brings the event by itself
    remembered, append = noted(run, reacts.pop("heard", ()))
    told |= dict.fromkeys(("cancel_on", "listens", "chain")) | reacts
    if run["route"] != order.definition.route:
        told |= dict.fromkeys(("compensate_on", "retention")) | of_version(order.definition)
    put |= remembered | {name: value for name, value in told.items() if value}
    drop = (*drop, *(name for name, value in told.items() if not value))
    event: Entry = ("run.debounced", {"due_at": instant})
    return operated(run, now, put, event, drop=drop, append=append, weight=order.weight)
