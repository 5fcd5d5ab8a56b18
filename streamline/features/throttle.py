"""When runs of a throttled workflow may begin: a ledger of the last starts, and of the instants that are promised.

What counts is `started`: of the starts in it, no window holds more than the limit. `plan` only spreads what has to wait
over the time to come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Ledger:
    """The last starts of one key, as many as still count, and the instants promised last; both oldest first."""

    started: tuple[datetime, ...] = ()
    plan: tuple[datetime, ...] = ()


@dataclass(frozen=True, slots=True)
class Turns:
    """Which runs begin, with the instant that counts as their start; and when the others may be tried again."""

    begun: Mapping[str, datetime]
    later: Mapping[str, datetime]


def join(ledger: Ledger, limit: int, window: timedelta, now: datetime) -> tuple[Ledger, datetime]:
    """Return when a new run may begin, `now` or a later instant that is kept free for it."""
    # What was promised last began a little later, and what follows it can do no better.
    instant = max(_free_from(ledger.plan, limit, window, now), _free_from(ledger.started, limit, window, now))
    if instant > now and ledger.plan:
        instant = max(instant, _whole(ledger.plan[-1] + window / limit))
    return Ledger(ledger.started, _counting((*ledger.plan, instant)[-limit:], window, now)), instant


def begin(ledger: Ledger, run_ids: Sequence[str], limit: int, window: timedelta, now: datetime) -> tuple[Ledger, Turns]:
    """Let as many runs begin now as may, in the order given.

    A start that is on record and did not happen is lost: what is on record may be old by the time it does.
    """
    times, begun, later = list(ledger.started), dict[str, datetime](), dict[str, datetime]()
    for run_id in run_ids:
        instant = _free_from(times, limit, window, now)
        times.append(instant)
        (later if instant > now else begun)[run_id] = instant
    started = _counting((*ledger.started, *begun.values()), window, now)
    return Ledger(started, ledger.plan), Turns(begun, later)


def room(ledger: Ledger, limit: int, window: timedelta, now: datetime) -> tuple[int, datetime]:
    """Return how many runs may begin now, and when the next may."""
    instant = _free_from(ledger.started, limit, window, now)
    return (0 if instant > now else limit - sum(at + window > now for at in ledger.started)), instant


def leave(ledger: Ledger, instant: datetime, *, has_begun: bool) -> Ledger:
    """Give back the place of a run that was to begin at an instant, and was not stored after all.

    Args:
        ledger: The ledger.
        instant: The instant that was given to the run.
        has_begun: Whether the run's start is on record; else one that was recorded at the same instant is another's.
    """
    return Ledger(_without(ledger.started, instant) if has_begun else ledger.started, _without(ledger.plan, instant))


def _without(instants: tuple[datetime, ...], instant: datetime) -> tuple[datetime, ...]:
    if instant not in instants:
        return instants
    place = instants.index(instant)
    return (*instants[:place], *instants[place + 1 :])


def _free_from(times: Sequence[datetime], limit: int, window: timedelta, now: datetime) -> datetime:
    """Return the first instant from `now` on by which fewer than `limit` of the times lie within the window."""
    if len(times) < limit:
        return max((now, *times[-1:]))
    return max(now, _whole(times[-limit] + window), times[-1])


def _counting(times: Sequence[datetime], window: timedelta, now: datetime) -> tuple[datetime, ...]:
    """Return the times that still count, under whichever limit, for others may know a larger one; and the last."""
    return (*(each for each in times[:-1] if each + window > now), *times[-1:])


def _whole(instant: datetime) -> datetime:
    """Return an instant in whole milliseconds, as the database keeps them, and not an earlier one."""
    return instant + timedelta(microseconds=-instant.microsecond % 1000)
