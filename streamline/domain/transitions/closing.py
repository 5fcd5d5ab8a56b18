"""What is left to do once a run has ended: its parent told, its children closed, its spilled memo removed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from streamline.domain.change import Change
from streamline.domain.place import Document
from streamline.domain.transitions.writing import expiry, operated


def closed(run: Document, now: datetime) -> Change | None:
    """Return the change that notes that nothing is left to do, or None where that is noted already."""
    if "owes_at" not in run:
        return None
    put: Mapping[str, Any] = expiry(run, run["status"], run["ended_at"])
    return operated(run, now, put, drop=("owes_at",))
