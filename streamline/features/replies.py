"""What people answer: decisions on approvals, answers to questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from streamline.domain.record import Record

DecisionOutcome = Literal["approved", "rejected", "withdrawn", "timed_out"]
AnswerOutcome = Literal["answered", "rejected", "withdrawn", "timed_out"]


@dataclass(frozen=True, slots=True)
class Decision(Record):
    """How an approval ended.

    Attributes:
        outcome: ``"approved"``, ``"rejected"``, ``"withdrawn"`` or ``"timed_out"``.
        by: Who decided, where they said so.
        reason: Why, where they said so.
        data: What they added.
        at: When it was decided.
    """

    outcome: DecisionOutcome
    by: str | None = None
    reason: str | None = None
    data: Any = None
    at: datetime | None = None

    @property
    def approved(self) -> bool:
        """Whether it was approved."""
        return self.outcome == "approved"

    def __bool__(self) -> bool:
        """Return whether it was approved."""
        return self.approved


@dataclass(frozen=True, slots=True)
class Answer(Record):
    """How a question ended.

    Attributes:
        outcome: ``"answered"``, ``"rejected"``, ``"withdrawn"`` or ``"timed_out"``.
        data: The answer, of the type that was asked for.
        by: Who answered, where they said so.
        reason: Why it was rejected or withdrawn, where they said so.
        at: When it was answered.
    """

    outcome: AnswerOutcome
    data: Any = None
    by: str | None = None
    reason: str | None = None
    at: datetime | None = None

    @property
    def answered(self) -> bool:
        """Whether there is an answer."""
        return self.outcome == "answered"

    @property
    def value(self) -> Any:
        """The answer; the same as `data`."""
        return self.data


def decision_of(entry: Mapping[str, Any]) -> Decision:
    """Return the decision that a settled approval holds."""
    return Decision(entry["outcome"], entry.get("by"), entry.get("reason"), entry.get("output"), entry.get("at"))
