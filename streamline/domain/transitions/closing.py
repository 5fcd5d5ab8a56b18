"""What is left to do elsewhere once a run has ended or goes another way: parent, children, spilled memo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from streamline.domain.change import Change
from streamline.domain.place import Document, beginnings
from streamline.domain.statuses import ACTIVE, TERMINAL
from streamline.domain.transitions.writing import Entry, expiry, operated

_SOON = timedelta(seconds=5)


def closed(run: Document, now: datetime, *entries: Entry, awaited: bool) -> Change | None:
    """Return the change that notes that nothing is left to do, or None where that is noted already.

    A run that its parent has yet to read, and whose time will be over, is looked at again then: were it removed, the
    parent would take it for one that was never started.

    Args:
        run: The run.
        now: The present instant.
        entries: What its events are to tell.
        awaited: Whether its parent may still want to read it.
    """
    if "owes_at" not in run:
        return None
    drop = ("tells",) if "tells" in run else ()
    kept = removal(run)
    if not awaited or not kept:
        return operated(run, now, kept, *entries, drop=("owes_at", *drop))
    # The longer its parent takes, the longer it is left alone.
    half = timedelta(milliseconds=(now - run["ended_at"]) // timedelta(milliseconds=2))
    again = max(kept["expire_at"], now + max(_SOON, half))
    return operated(run, now, {"owes_at": again, "told_at": run["ended_at"]}, *entries, drop=drop)


def is_told(run: Document) -> bool:
    """Return whether all that follows from the run's last end is done, but for its removal."""
    return run.get("told_at") is not None and run["told_at"] == run.get("ended_at")


def is_awaited(parent: Document, run: Document) -> bool:
    """Return whether a run's parent, read with its memos, has yet to read how the run ended."""
    family = run.get("parent") or {}
    if not family.get("wait") or parent["status"] not in ACTIVE:
        return False
    steps = [step for step in parent["steps"] if step["id"] == family["fan"].partition(".")[0]]
    memos = [place.get("memo") or {} for step in steps for place in (step, step.get("compensation") or {})]
    return any(family["fan"] in waited_for(memo) for memo in memos)


def telling(run: Document, change: Change) -> Change:
    """Return the change that ends a run, such that workflows which are started by that end are owed it."""
    put = {name: value for name, value in change.put.items() if name != "expire_at"}
    told = {"owes_at": put["ended_at"], "tells": True, "ends": run.get("ends", 0) + 1}
    return replace(change, put=put | told)


def removal(run: Document) -> dict[str, Any]:
    """Return the field that lets the database remove a run in time, once it has ended."""
    return expiry(run, run["status"], run["ended_at"]) if run["status"] in TERMINAL else {}


def is_unwanted(run: Document, child: Mapping[str, Any], *, knows_memo: bool = True) -> bool:
    """Return whether a child is to be ended: its parent has ended, is being undone, began anew, or no longer waits.

    Args:
        run: The parent.
        child: The child.
        knows_memo: Whether the parent was read with its memo, which says what it waits for.
    """
    family = child["parent"]
    if family["on_close"] != "cancel" or child["status"] in TERMINAL:
        return False
    if run["status"] in TERMINAL or run["status"] == "compensating":
        return bool(run["status"] != "done" or family["wait"])
    step_id, generation, _ = family["fan"].split(".", 2)
    step = next((step for step in run["steps"] if step["id"] == step_id), None)
    if step is None or int(generation) < beginnings(step):
        return True
    return bool(family["wait"] and knows_memo and family["fan"] not in waited_for(step.get("memo") or {}))


def waited_for(memo: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Return the fans of children that are waited for."""
    return {entry["fan"] for entry in memo.values() if "fan" in entry and "output" not in entry}
