"""What is left to do elsewhere once a run has ended or goes another way: parent, children, spilled memo."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from streamline.domain.change import Change
from streamline.domain.place import Document, beginnings
from streamline.domain.statuses import TERMINAL
from streamline.domain.transitions.writing import expiry, operated


def closed(run: Document, now: datetime) -> Change | None:
    """Return the change that notes that nothing is left to do, or None where that is noted already."""
    if "owes_at" not in run:
        return None
    put: Mapping[str, Any] = expiry(run, run["status"], run["ended_at"]) if run["status"] in TERMINAL else {}
    return operated(run, now, put, drop=("owes_at",))


def is_unwanted(run: Document, child: Mapping[str, Any]) -> bool:
    """Return whether a child is to be ended: its parent has ended other than well, is being undone, or began anew."""
    if child["parent"]["on_close"] != "cancel" or child["status"] in TERMINAL:
        return False
    if run["status"] in TERMINAL or run["status"] == "compensating":
        return bool(run["status"] != "done")
    step_id, generation, _ = child["parent"]["fan"].split(".", 2)
    step = next((step for step in run["steps"] if step["id"] == step_id), None)
    return step is None or int(generation) < beginnings(step)
