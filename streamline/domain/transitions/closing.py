"""What is left to do elsewhere once a run has ended or goes another way: parent, children, spilled memo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from streamline.domain.change import Change
from streamline.domain.place import Document, beginnings
from streamline.domain.statuses import TERMINAL
from streamline.domain.transitions.writing import Entry, expiry, operated


def closed(run: Document, now: datetime, *entries: Entry) -> Change | None:
    """Return the change that notes that nothing is left to do, or None where that is noted already."""
    if "owes_at" not in run:
        return None
    drop = ("owes_at", *(("tells",) if "tells" in run else ()))
    return operated(run, now, removal(run), *entries, drop=drop)


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
