"""Schedules as users see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from streamline.domain.payloads import ANY, Codec
from streamline.domain.record import Record, required
from streamline.errors import ScheduleError
from streamline.features.recurrence.terms import CatchUp, Overlap, recurrence_of
from streamline.features.recurrence.wall_clock import Fold, Gap, Occurrence

PREVIEW_MAX = 1000
_JUST_BEFORE = timedelta(milliseconds=1)


@dataclass(frozen=True)
class ScheduleFields:
    """What a schedule has as a value and as it is stored."""

    __slots__ = ()

    workflow: str = required()
    rule: Mapping[str, Any] = required()
    timezone: str = required()
    input: Any = required()
    overlap: Overlap = required()
    catch_up: CatchUp = required()
    dst_gap: Gap = required()
    dst_fold: Fold = required()
    next_at: datetime | None = required()
    paused: bool = required()
    occurrences: int = required()
    skipped: int = required()
    failed: int = required()
    waiting: tuple[datetime, ...] = required()
    last_run_id: str | None = required()
    last_at: datetime | None = required()
    last_error: Mapping[str, Any] | None = required()
    tenant_id: str | None = required()
    created_at: datetime = required()
    updated_at: datetime = required()


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule(ScheduleFields, Record):
    """A series of runs, as it was stored when it was read.

    Attributes:
        id: Its name.
        workflow: What it starts.
        rule: When: its ``kind`` and what was said.
        timezone: Whose clock on the wall the rule is about.
        next_at: The next occurrence that nothing has been decided about; None where none is to come.
        paused: Whether it starts nothing until it is resumed.
        occurrences: How many runs it has started or is about to.
        skipped: How many occurrences were skipped because a run was not over.
        failed: How many runs could not be started.
        waiting: Occurrences whose runs are about to be started, or wait for the run before.
        last_run_id: The run that it started last.
        last_at: The occurrence of that run.
        last_error: Why a run could not be started: ``code``, ``message``, ``at``.
    """

    id: str
    jitter: timedelta | None
    until: datetime | None
    count: int | None

    @property
    def ended(self) -> bool:
        """Whether it will start nothing more."""
        return self.next_at is None and not self.waiting

    def preview(self, n: int = 5) -> tuple[Occurrence, ...]:
        """Return what occurs next, from `next_at` on, with the transitions of the clock marked.

        Args:
            n: How many at most; 1 to 1,000.
        """
        if self.next_at is None:
            return ()
        left = n if self.count is None else min(n, self.count - self.occurrences)
        terms = {name: getattr(self, name) for name in ("rule", "timezone", "dst_gap", "dst_fold")}
        return previewed({**terms, "until_at": self.until}, self.next_at - _JUST_BEFORE, n, left)


def previewed(terms: Mapping[str, Any], after: datetime, n: int, left: int | None = None) -> tuple[Occurrence, ...]:
    """Return the first few occurrences after an instant; raise `ScheduleError` where that is asked wrongly."""
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= PREVIEW_MAX:
        raise ScheduleError(f"n: a whole number from 1 to {PREVIEW_MAX}", field="n")
    return tuple(islice(recurrence_of(terms).after(after), n if left is None else min(n, left)))


def _input(stored: Any, codec: Codec | None) -> Any:
    try:
        return (codec or ANY).decode(stored)
    except ValueError:
        return stored


def read_schedule(document: Mapping[str, Any], codec: Codec | None) -> Schedule:
    """Return the schedule that a document holds; its input as stored where it does not fit the workflow any more."""
    jitter = document["jitter"]
    same: dict[str, Any] = {each.name: document[each.name] for each in fields(ScheduleFields)}
    same |= {"input": _input(document["input"], codec), "waiting": tuple(document["waiting"])}
    return Schedule(
        **same,
        id=document["name"],
        jitter=None if jitter is None else timedelta(seconds=jitter),
        until=document["until_at"],
        count=document["count"],
    )
