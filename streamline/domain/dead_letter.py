"""Events that could not be delivered, as users see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from streamline.domain.record import Record
from streamline.domain.run import Event, read_entry


@dataclass(frozen=True, slots=True)
class DeadLetter(Record):
    """An event that a subscriber's handler has failed on for good.

    Attributes:
        event: The event.
        attempts: How often it was tried.
        error: What it failed with last: ``{code, type, message}``.
        died_at: When it was put aside.
    """

    event: Event
    attempts: int
    error: Mapping[str, Any]
    died_at: datetime

    @property
    def position(self) -> int:
        """The event's place in the log, by which the letter is named."""
        return self.event.position or 0


def read_letter(stored: Mapping[str, Any]) -> DeadLetter:
    """Return the dead letter that a document holds."""
    return DeadLetter(read_entry(stored["entry"]), stored["attempts"], stored["error"], stored["died_at"])
