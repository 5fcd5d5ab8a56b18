"""Rules that name days and times of day, as a calendar on the wall shows them."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import count

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
LAST = 31  # a day that a month does not have is its last one
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class OnDays:
    """At times of day on certain days."""

    times: tuple[time, ...]

    def walls(self, begin: datetime) -> Iterator[datetime]:
        """Yield the times on the wall from `begin` on, in order."""
        for day in self.days(begin.date()):
            for at in self.times:
                if (wall := datetime.combine(day, at)) >= begin:
                    yield wall

    def days(self, begin: date) -> Iterator[date]:
        """Yield the days from `begin` on, in order."""
        return (begin + n * _DAY for n in count())


@dataclass(frozen=True, slots=True)
class Daily(OnDays):
    """Every day."""


@dataclass(frozen=True, slots=True)
class Weekly(OnDays):
    """On certain days of the week; 0 is Monday."""

    weekdays: tuple[int, ...]

    def days(self, begin: date) -> Iterator[date]:
        """Yield the days from `begin` on, in order."""
        return (day for day in OnDays.days(self, begin) if day.weekday() in self.weekdays)


@dataclass(frozen=True, slots=True)
class Monthly(OnDays):
    """On certain days of the month; one that a month does not have is its last."""

    numbers: tuple[int, ...]

    def days(self, begin: date) -> Iterator[date]:
        """Yield the days from `begin` on, in order."""
        for n in count(begin.year * 12 + begin.month - 1):
            year, month = n // 12, n % 12 + 1
            last = monthrange(year, month)[1]
            for number in sorted({min(number, last) for number in self.numbers}):
                if (day := date(year, month, number)) >= begin:
                    yield day


@dataclass(frozen=True, slots=True)
class AtWall:
    """Once, at a date and time of day."""

    wall: datetime

    def walls(self, begin: datetime) -> Iterator[datetime]:
        """Yield the one time on the wall where it is not before `begin`."""
        if self.wall >= begin:
            yield self.wall
