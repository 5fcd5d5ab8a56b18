"""Times of day in a zone, and the instants that they are: written down by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from streamline.features.recurrence.recurrence import Recurrence
from streamline.features.recurrence.rule_reading import asked_rule, stored_rule
from streamline.features.recurrence.wall_clock import zone_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)

TABLE = [
    ("America/New_York", "2026-01-15 09:00", "2026-01-15 14:00"),  # winter
    ("America/New_York", "2026-07-15 09:00", "2026-07-15 13:00"),  # summer
    ("America/Los_Angeles", "2026-01-15 09:00", "2026-01-15 17:00"),
    ("America/Los_Angeles", "2026-07-15 09:00", "2026-07-15 16:00"),
    ("America/Phoenix", "2026-01-15 09:00", "2026-01-15 16:00"),  # Arizona has no summer time
    ("America/Phoenix", "2026-07-15 09:00", "2026-07-15 16:00"),
    ("UTC", "2026-07-15 09:00", "2026-07-15 09:00"),
    ("Asia/Kolkata", "2026-07-15 09:00", "2026-07-15 03:30"),
    ("Asia/Kathmandu", "2026-07-15 09:00", "2026-07-15 03:15"),
    ("Asia/Singapore", "2026-07-15 09:00", "2026-07-15 01:00"),
    ("America/New_York", "2026-01-15 00:00", "2026-01-15 05:00"),  # midnight
    ("Asia/Kathmandu", "2026-01-15 00:00", "2026-01-14 18:15"),
    ("America/New_York", "2028-02-29 12:00", "2028-02-29 17:00"),  # the day that only some years have
    ("America/Los_Angeles", "2026-12-31 23:59", "2027-01-01 07:59"),  # the year ends later there, and sooner here
    ("Asia/Singapore", "2027-01-01 00:00", "2026-12-31 16:00"),
]


@pytest.mark.parametrize(("zone", "local", "utc"), TABLE)
def test_a_time_of_day_is_the_instant_that_its_zone_says(zone: str, local: str, utc: str) -> None:
    wall, instant = datetime.fromisoformat(local), datetime.fromisoformat(f"{utc}+00:00")
    rules = (
        {"at": wall},
        {"daily": f"{wall:%H:%M}"},
        {"weekly": f"{wall:%a %H:%M}".lower()},
        {"monthly": f"{wall.day} {wall:%H:%M}"},
        {"cron": f"{wall.minute} {wall.hour} {wall.day} {wall.month} *"},
    )
    place = zone_of(zone)
    for rule in rules:
        series = Recurrence(stored_rule(asked_rule(rule, NOW, place)), place, "forward", "first")  # type: ignore[arg-type]
        first = next(iter(series.after(instant - timedelta(hours=1))))
        assert first.at == instant, rule
