"""From what a clock on the wall shows to instants: zones, gaps and folds.

Where a zone's clock is put forward, some times of day do not occur: a gap. Where it is put back, some occur twice: a
fold. What is wanted is kept as the time on the wall; what comes of it is computed here and depends on nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from streamline.domain.record import Record
from streamline.errors import ScheduleError

Gap = Literal["forward", "skip"]
Fold = Literal["first", "second", "both"]
Mark = Literal["gap", "fold_first", "fold_second"]

# No zone was ever moved by more than a day; transitions that matter to an instant lie this near.
_REACH_HOURS = 26
_SAMPLE_HOURS = 2
_NAME_MAX = 100
# What a machine's directory of zones has beside zones: its own setting, and copies that count leap seconds.
_NO_ZONES = re.compile(r"localtime|posixrules|Factory|(right|posix)/.*")


@dataclass(frozen=True, slots=True)
class Occurrence(Record):
    """One instant of a series.

    Attributes:
        at: The instant, aware UTC.
        wall: What the rule asks for: date and time of day in the schedule's zone, naive.
        mark: ``"gap"`` where that time does not occur and the instant stands in for it, ``"fold_first"`` or
            ``"fold_second"`` where it occurs twice; else None.
    """

    at: datetime
    wall: datetime
    mark: Mark | None = None


def zone_of(name: object) -> ZoneInfo:
    """Return the zone of an IANA name such as ``"Europe/Paris"``; raise `ScheduleError` for anything else."""
    if isinstance(name, ZoneInfo):
        name = name.key
    try:
        if isinstance(name, str) and 0 < len(name) <= _NAME_MAX and not _NO_ZONES.fullmatch(name):
            return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        pass
    raise ScheduleError('timezone: the IANA name of a zone, such as "Europe/Paris"', field="timezone")


def readings(wall: datetime, zone: ZoneInfo, gap: Gap, fold: Fold) -> tuple[Occurrence, ...]:
    """Return the instants that a time on the wall stands for: none, one or two.

    Args:
        wall: Naive date and time of day.
        zone: Whose clock.
        gap: What to do where it does not occur: move it forward by as much as the clock was, or leave it out.
        fold: Which one to take where it occurs twice.
    """
    before, after = _offsets(wall, zone)
    if before == after:
        return (Occurrence(_instant(wall, before), wall),)
    if before < after:
        return () if gap == "skip" else (Occurrence(_instant(wall, before), wall, "gap"),)
    both = (
        Occurrence(_instant(wall, before), wall, "fold_first"),
        Occurrence(_instant(wall, after), wall, "fold_second"),
    )
    return {"first": both[:1], "second": both[1:], "both": both}[fold]


def bound(wall: datetime, zone: ZoneInfo) -> datetime:
    """Return an instant before which no reading of this time on the wall, or of a later one, can lie."""
    return _instant(wall, max(_offsets(wall, zone)))


def wall_of(instant: datetime, zone: ZoneInfo) -> datetime:
    """Return what the clock on the wall shows at an instant."""
    return instant.astimezone(zone).replace(tzinfo=None)


def earliest_wall(instant: datetime, zone: ZoneInfo) -> datetime:
    """Return a time on the wall, as late as possible, before which none has a reading after `instant`."""
    hours = range(-_REACH_HOURS, _REACH_HOURS + 1, _SAMPLE_HOURS)
    offsets = [_offset(instant + timedelta(hours=n), zone) for n in hours]
    return wall_of(instant, zone) - (max(offsets) - min(offsets))


def _offsets(wall: datetime, zone: ZoneInfo) -> tuple[timedelta, timedelta]:
    """Return by how much the clock is ahead of UTC, by the rule before and by the rule after a transition at hand."""
    first, second = (wall.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1))
    return first or timedelta(), second or timedelta()


def _offset(instant: datetime, zone: ZoneInfo) -> timedelta:
    return instant.astimezone(zone).utcoffset() or timedelta()


def _instant(wall: datetime, offset: timedelta) -> datetime:
    return (wall - offset).replace(tzinfo=UTC)
