"""Cron expressions, five fields: minute, hour, day of month, month, day of week."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from croniter import croniter
from croniter.croniter import CroniterBadDateError, CroniterError

from streamline.errors import ScheduleError
from streamline.features.recurrence.pointing import refused

_FIELDS = (
    "minute, 0-59",
    "hour, 0-23",
    "day of month, 1-31 or L",
    "month, 1-12 or jan-dec",
    "day of week, 0-7 or sun-sat",
)
_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_TEXT_MAX = 200
_ALLOWED = re.compile(r"[0-9a-z*/,#?-]+", re.IGNORECASE | re.ASCII)
# Where a day depends on chance or on a name, two processes would not agree.
_HASHED = re.compile(r"(^|[,/-])[hr]\b", re.IGNORECASE)
# croniter takes a range of one day for the whole week.
_ONE = re.compile(r"(?<![a-z0-9])([a-z0-9]+)-\1(?:/\d+)?(?![a-z0-9])", re.IGNORECASE)
_SECOND = timedelta(seconds=1)
_ANY = ["*"] * 5


@dataclass(frozen=True, slots=True)
class Cron:
    """Whenever the clock on the wall matches five fields.

    Where both days are restricted, one of them suffices; a field that begins with a star restricts nothing.
    """

    text: str

    @property
    def is_rhythm(self) -> bool:
        """Whether it names a pace rather than a time of day: its minute or hour begins with a star."""
        minute, hour, *_ = self.text.split()
        return minute.startswith("*") or hour.startswith("*")

    def walls(self, begin: datetime) -> Iterator[datetime]:
        """Yield the times on the wall from `begin` on, in order; they end where none comes for fifty years."""
        matches = croniter(self.text, begin.replace(microsecond=0) - _SECOND, implement_cron_bug=True)
        try:
            while True:
                if (wall := matches.get_next(datetime)) >= begin:
                    yield wall
        except CroniterBadDateError:
            return


def cron_of(text: object) -> Cron:
    """Return the rule of an expression.

    Raises:
        ScheduleError: It is none; the message shows which field is wrong, and where.
    """
    if not isinstance(text, str) or len(text) > _TEXT_MAX:
        raise ScheduleError(f"cron: text of at most {_TEXT_MAX} characters, such as '30 2 * * *'", field="cron")
    text = text.strip()
    if text.startswith("@"):
        if text.lower() not in _ALIASES:
            raise refused("cron", text, 0, len(text), f"not known; one of {', '.join(_ALIASES)}")
        return Cron(_ALIASES[text.lower()])
    places = list(re.finditer(r"\S+", text))
    if len(places) != len(_FIELDS):
        raise refused("cron", text, 0, len(text), f"{len(places)} fields of five: minute hour day month weekday")
    for i, place in enumerate(places):
        if not _is_field(i, place[0]):
            raise refused("cron", text, *place.span(), f"field {i + 1} is not valid ({_FIELDS[i]})")
    rule = Cron(" ".join(_ONE.sub(r"\1", place[0]) for place in places))
    if not croniter.is_valid(rule.text):
        raise refused("cron", text, 0, len(text), "not a cron expression")
    return rule


def _is_field(i: int, text: str) -> bool:
    if not _ALLOWED.fullmatch(text) or _HASHED.search(text):
        return False
    try:
        croniter.expand(" ".join([*_ANY[:i], text, *_ANY[i + 1 :]]))
    except (CroniterError, ValueError, KeyError, IndexError, TypeError):
        return False
    return True
