"""Recurrence rules of RFC 5545, as far as they name days and times of day."""

from __future__ import annotations

import re
from calendar import isleap
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dateutil.rrule import rrulestr

from streamline.errors import ScheduleError
from streamline.features.recurrence.pointing import refused

_TEXT_MAX = 500
_PARTS = (
    "FREQ", "INTERVAL", "COUNT", "UNTIL", "WKST", "BYSETPOS", "BYMONTH", "BYMONTHDAY", "BYYEARDAY", "BYWEEKNO", "BYDAY",
    "BYHOUR", "BYMINUTE", "BYSECOND",
)  # fmt: skip
_FREQUENCIES = ("YEARLY", "MONTHLY", "WEEKLY", "DAILY")
_BEGIN = re.compile(r"(?:DTSTART:(\S+)\s+)?(?:RRULE:)?(\S+)\s*", re.IGNORECASE)
_STAMP = "%Y%m%dT%H%M%S"
_TIMES_MAX = 288
_MICROSECOND = timedelta(microseconds=1)
# The calendar repeats itself in 28 years, and dateutil looks no further than the year 9999.
_TRIAL = datetime(9972, 1, 1)


@dataclass(frozen=True, slots=True)
class TextRule:
    """What a recurrence rule says, from a first time on the wall on."""

    text: str
    anchor: datetime

    def walls(self, begin: datetime) -> Iterator[datetime]:
        """Yield the times on the wall from `begin` on, in order."""
        rule: Any = rrulestr(self.text, dtstart=_begun(self.text, self.anchor, begin))
        yield from rule.xafter(begin, inc=True)


def has_begin(text: str) -> bool:
    """Return whether a valid text says itself when its rule begins."""
    found = _BEGIN.fullmatch(text.strip())
    return found is not None and found[1] is not None


def _begun(rule: str, anchor: datetime, begin: datetime) -> datetime:
    """Return a time shortly before `begin` from which a rule goes on as it does from its first.

    From the first, dateutil would go through all that lies between; a rule that counts has to.
    """
    parts = dict(part.split("=") for part in rule.split(";"))
    frequency, interval = parts["FREQ"], int(parts.get("INTERVAL", 1))
    if "COUNT" in parts:
        return anchor
    if frequency in ("DAILY", "WEEKLY"):
        # The first week counts from its first time on; it must be over.
        period = timedelta(days=interval * (7 if frequency == "WEEKLY" else 1))
        return anchor + max(0, (begin - anchor) // period - 1) * period
    last = anchor.year + (begin.year - 1 - anchor.year) // interval * interval
    fitting = (year for year in range(last, anchor.year, -interval) if isleap(year) or not _is_leap_day(anchor))
    return anchor.replace(year=next(fitting, anchor.year))


def _is_leap_day(day: datetime) -> bool:
    return (day.month, day.day) == (2, 29)


def text_rule_of(text: object, today: datetime) -> TextRule:
    """Return the rule of an ``RRULE`` text, after an optional ``DTSTART``.

    Args:
        text: Such as ``"FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=9"``; times are those on the wall, without zones.
        today: Naive; without a ``DTSTART`` the rule begins with this day.

    Raises:
        ScheduleError: It is none; the message shows which part is wrong, and where.
    """
    if not isinstance(text, str) or len(text) > _TEXT_MAX:
        raise ScheduleError(f"rrule: text of at most {_TEXT_MAX} characters, such as 'FREQ=DAILY'", field="rrule")
    if (found := _BEGIN.fullmatch(text.strip())) is None:
        raise ScheduleError("rrule: one rule, after an optional DTSTART of the form 20260131T090000", field="rrule")
    anchor = _stamp(found[1]) if found[1] else today.replace(hour=0, minute=0, second=0, microsecond=0)
    rule = found[2].upper()
    _check_parts(rule, anchor)
    if not _can_match(rule):
        raise refused("rrule", rule, 0, len(rule), "no day matches")
    return TextRule(rule, anchor)


def _stamp(text: str) -> datetime:
    try:
        return datetime.strptime(text.upper(), _STAMP)
    except ValueError:
        raise ScheduleError("rrule: DTSTART of the form 20260131T090000, without a zone", field="rrule") from None


def _check_parts(rule: str, anchor: datetime) -> None:
    seen: set[str] = set()
    times = 1
    for part in re.finditer(r"[^;]+", rule):
        name, _, value = part[0].partition("=")
        why = _objection(name, value) or ("given twice" if name in seen else None)
        if why is None and name != "FREQ":
            why = _refusal(f"FREQ=YEARLY;{part[0]}", anchor)
        if why is not None:
            raise refused("rrule", rule, *part.span(), why)
        seen.add(name)
        times *= value.count(",") + 1 if name in ("BYHOUR", "BYMINUTE", "BYSECOND") else 1
    why = "COUNT or UNTIL, not both" if {"COUNT", "UNTIL"} <= seen else None
    if why := why or ("FREQ is missing" if "FREQ" not in seen else _refusal(rule, anchor)):
        raise refused("rrule", rule, 0, len(rule), why)
    if times > _TIMES_MAX:
        raise refused("rrule", rule, 0, len(rule), f"at most {_TIMES_MAX} times a day")


def _objection(name: str, value: str) -> str | None:
    if name not in _PARTS:
        return f"not known; one of {', '.join(_PARTS)}"
    if name == "FREQ" and value not in _FREQUENCIES:
        return f"one of {', '.join(_FREQUENCIES)}; for what recurs within a day there are cron and every"
    if name in ("INTERVAL", "COUNT") and not re.fullmatch(r"[1-9][0-9]{0,4}", value):
        return "a whole number from 1 to 99999"
    if name == "UNTIL" and value.endswith("Z"):
        return "a time on the wall, without Z"
    return None


def _refusal(rule: str, anchor: datetime) -> str | None:
    try:
        rrulestr(rule, dtstart=anchor)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return "not valid"
    return None


def _can_match(rule: str) -> bool:
    """Whether any day ever matches; left to itself, dateutil would look for one until the year 9999."""
    kept = [part for part in rule.split(";") if part.partition("=")[0] not in ("COUNT", "UNTIL", "INTERVAL")]
    return next(iter(rrulestr(";".join(kept), dtstart=_TRIAL)), None) is not None
