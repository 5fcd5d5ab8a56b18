"""Which ended runs are to be removed now: by the rules of their workflows as they are today, or by an instant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from streamline.domain.definition import Definition
from streamline.domain.durations import check_instant
from streamline.domain.statuses import TERMINAL
from streamline.errors import InvalidPolicy, InvalidQuery

ByStatus = Mapping[str, timedelta]


@dataclass(frozen=True, slots=True)
class Purge:
    """What is wanted.

    Args:
        now: The present instant.
        statuses: Only runs that have ended so.
        workflow: Only runs of this workflow.
        ended_before: Only runs that ended before this instant, whatever their workflow's rules; None to go by these.
        kept: How long ended runs are kept, by workflow and status.
    """

    now: datetime
    statuses: frozenset[str]
    workflow: str | None = None
    ended_before: datetime | None = None
    kept: Mapping[str, ByStatus] | None = None

    @property
    def created_before(self) -> datetime | None:
        """The instant before which a run must have been created, so that it can have ended long enough ago."""
        if self.kept is None:
            return self.ended_before
        shortest = [kept for rules in self.kept.values() for status, kept in rules.items() if status in self.statuses]
        return self.now - min(shortest) if shortest else None

    def concerns(self, run: Mapping[str, Any]) -> bool:
        """Return whether a run that has ended is to be removed."""
        ended_at = run.get("ended_at")
        if ended_at is None or run["status"] not in self.statuses:
            return False
        if self.kept is None:
            return self.ended_before is not None and bool(ended_at < self.ended_before)
        kept = self.kept.get(run["workflow"], {}).get(run["status"])
        return kept is not None and bool(ended_at + kept <= self.now)


def purge_of(
    definitions: Mapping[str, Definition],
    now: datetime,
    *,
    workflow: str | None,
    ended_before: datetime | None,
    status: object,
) -> Purge:
    """Return what is wanted, checked.

    Args:
        definitions: The workflows whose rules are known, by name.
        now: The present instant.
        workflow: As for `Purge`.
        ended_before: As for `Purge`.
        status: A terminal status, several, or None for all.

    Raises:
        InvalidQuery: A value is not of the allowed form.
    """
    statuses = _statuses(status)
    if ended_before is not None:
        return Purge(now, statuses, workflow, _instant(ended_before))
    kept = {name: each.retention for name, each in definitions.items() if workflow in (None, name)}
    return Purge(now, statuses, workflow, kept=kept)


def is_alone(run: Mapping[str, Any]) -> bool:
    """Return whether there is nothing of a run but its document, nor anything that others wait for."""
    beside = ("owes_at", "outbox_at", "spilled", "removed_at")
    return not any(name in run for name in beside) and not (run.get("parent") or {}).get("wait")


def _statuses(status: object) -> frozenset[str]:
    if status is None:
        return frozenset(TERMINAL)
    names = (status,) if isinstance(status, str) else status
    if not isinstance(names, (list, tuple, set, frozenset)) or not names or not set(names) <= TERMINAL:
        raise InvalidQuery(f"status: of {', '.join(sorted(TERMINAL))}", field="status")
    return frozenset(names)


def _instant(value: object) -> datetime:
    try:
        return check_instant(value, "ended_before")
    except InvalidPolicy as error:
        raise InvalidQuery(error.message, field="ended_before") from error
