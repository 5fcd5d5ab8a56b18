"""An oracle for clocks on walls: walk through every minute of real time and write down what the clock shows."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)

# Zone, and a day on which its clock was moved, or would be if it were a zone that moves its clock.
TRANSITIONS = [
    ("America/New_York", datetime(2026, 3, 8)),
    ("America/New_York", datetime(2026, 11, 1)),
    ("Europe/London", datetime(2026, 3, 29)),
    ("Europe/London", datetime(2026, 10, 25)),
    ("Asia/Kolkata", datetime(2026, 3, 29)),
    ("Asia/Kathmandu", datetime(2026, 10, 25)),
    ("Asia/Kathmandu", datetime(1986, 1, 1)),  # by a quarter of an hour, for good
    ("Australia/Lord_Howe", datetime(2026, 4, 5)),  # by half an hour
    ("Australia/Lord_Howe", datetime(2026, 10, 4)),
    ("Pacific/Apia", datetime(2011, 12, 30)),  # a day that did not occur
    ("Africa/Casablanca", datetime(2026, 2, 15)),  # back for Ramadan
    ("Africa/Casablanca", datetime(2026, 3, 22)),
    ("America/Santiago", datetime(2026, 9, 6)),  # a midnight that does not occur
    ("Asia/Beirut", datetime(2026, 10, 25)),  # a midnight that occurs twice
]


class Walk:
    """What the clock of a zone shows, minute by minute, a few days around a date."""

    def __init__(self, zone: ZoneInfo, around: datetime, days: int = 2) -> None:
        self.begin = (around - timedelta(days=days)).replace(tzinfo=UTC)
        self.end = (around + timedelta(days=days)).replace(tzinfo=UTC)
        self._shown = []
        instant = self.begin - timedelta(days=2)
        while instant < self.end + timedelta(days=2):
            self._shown.append((instant, instant.astimezone(zone).replace(tzinfo=None)))
            instant += MINUTE
        self._when: dict[datetime, list[datetime]] = {}
        for instant, wall in self._shown:
            self._when.setdefault(wall.replace(fold=0), []).append(instant)
        jumps = ((before, after) for (_, before), (_, after) in pairwise(self._shown))
        self._gaps = [(before, after) for before, after in jumps if after - before > MINUTE]

    def walls_at(self, at: time) -> list[datetime]:
        """Every day at a time of day, shown or not."""
        days = {wall.date() for wall in (self._shown[0][1] + timedelta(hours=30) + n * DAY for n in range(-1, 30))}
        walls = (datetime.combine(day, at) for day in sorted(days))
        return [wall for wall in walls if self._first() <= wall < self._last()]

    def readings(self, wall: datetime, gap: str, fold: str) -> list[datetime]:
        """The instants that a wanted minute stands for."""
        shown = self._when.get(wall, [])
        if len(shown) == 2:
            return {"first": shown[:1], "second": shown[1:], "both": shown}[fold]
        return shown or ([] if gap == "skip" else [self._after_gap(wall)])

    def expected(self, walls: list[datetime], gap: str, fold: str) -> list[datetime]:
        """All instants within the days in question that the wanted minutes stand for."""
        found = {instant for wall in walls for instant in self.readings(wall, gap, fold)}
        return sorted(instant for instant in found if self.begin < instant <= self.end)

    def _first(self) -> datetime:
        return self._shown[0][1] + timedelta(hours=30)

    def _last(self) -> datetime:
        return self._shown[-1][1] - timedelta(hours=30)

    def _after_gap(self, wall: datetime) -> datetime:
        for before, after in self._gaps:
            if before < wall < after:
                moved_by = after - before - MINUTE
                return self._when[wall + moved_by][0]
        raise AssertionError(f"{wall} is in no gap")
