"""When runs of a throttled workflow may begin: a ledger of the last starts, and of the instants that are promised.

What counts is `started`: of the starts in it, no window holds more than the limit. `plan` only spreads what has to wait
over the time to come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

Start = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ledger:
    """The starts of one key, oldest first, at most as many as the limit; and the instants promised last."""

    started: tuple[Start, ...] = ()
    plan: tuple[datetime, ...] = ()


@dataclass(frozen=True, slots=True)
class Turns:
    """Which runs begin, with the instant that counts as their start; and when the others may be tried again."""

    begun: Mapping[str, datetime]
    later: Mapping[str, datetime]


def join(ledger: Ledger, run_id: str, limit: int, window: timedelta, now: datetime) -> tuple[Ledger, datetime]:
    """Return when a new run may begin, `now` or a later instant that is kept free for it."""
    instant = _free_from(ledger.plan, limit, window, now)
    if instant > now:
        instant = max(instant, _whole(ledger.plan[-1] + window / limit))
    return Ledger(ledger.started, (*ledger.plan, instant)[-limit:]), instant


def begin(ledger: Ledger, run_ids: Sequence[str], limit: int, window: timedelta, now: datetime) -> tuple[Ledger, Turns]:
    """Let as many runs begin now as may, in the order given; one that has begun is not counted twice."""
    begun = {start["id"]: start["at"] for start in ledger.started if start["id"] in run_ids}
    started, later = list(ledger.started), dict[str, datetime]()
    times = [start["at"] for start in started]
    for run_id in run_ids:
        if run_id in begun:
            continue
        instant = _free_from(times, limit, window, now)
        times.append(instant)
        if instant > now:
            later[run_id] = instant
            continue
        begun[run_id] = instant
        started.append({"id": run_id, "at": instant})
    return Ledger(tuple(started[-limit:]), ledger.plan), Turns(begun, later)


def _free_from(times: Sequence[datetime], limit: int, window: timedelta, now: datetime) -> datetime:
    """Return the first instant from `now` on by which fewer than `limit` of the times lie within the window."""
    if len(times) < limit:
        return max((now, *times[-1:]))
    return max(now, _whole(times[-limit] + window), times[-1])


def _whole(instant: datetime) -> datetime:
    """Return an instant in whole milliseconds, as the database keeps them, and not an earlier one."""
    return instant + timedelta(microseconds=-instant.microsecond % 1000)
