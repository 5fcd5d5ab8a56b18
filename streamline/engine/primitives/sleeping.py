"""Durable timers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from streamline.engine.held.branches import current
from streamline.engine.held.surroundings import Surroundings
from streamline.engine.primitives.waiting import hold_on


async def sleep(attempt: Surroundings, due: Callable[[], datetime], key: str | None) -> None:
    """Return once the instant has come that `due` named when this was first reached."""
    branch = current(attempt.root)
    address, entry = attempt.memo.find(branch, "sleep", key)
    await hold_on(attempt, branch, address, entry or {"kind": "sleep", "due_at": due()})
