"""From what users write, and from what is stored, to rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, time
from typing import Any
from zoneinfo import ZoneInfo

from streamline.domain.durations import check_instant, parse_duration
from streamline.errors import InvalidPolicy, ScheduleError
from streamline.features.recurrence.calendar_rules import LAST, WEEKDAYS, AtWall, Daily, Monthly, Weekly
from streamline.features.recurrence.cron_rule import Cron, cron_of
from streamline.features.recurrence.pointing import refused
from streamline.features.recurrence.recurrence import Rule
from streamline.features.recurrence.steady_rules import AtInstant, Every
from streamline.features.recurrence.text_rrule import TextRule, has_begin, text_rule_of
from streamline.features.recurrence.wall_clock import wall_of

KINDS = ("cron", "daily", "weekly", "monthly", "every", "at", "rrule")
Stored = dict[str, Any]

_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?", re.ASCII)
_FULL_NAMES = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_TIMES_MAX = 288
_SHORTEST = 1.0


def asked_rule(asked: Mapping[str, Any], now: datetime, zone: ZoneInfo) -> Stored:
    """Return the one rule that is given, checked and as it is stored.

    Args:
        asked: Rules by kind; None where there is none.
        now: What ``every`` counts from.
        zone: Whose clock a time on the wall is about.

    Raises:
        ScheduleError: No rule, several, or one that cannot be read; ``field`` names its kind.
    """
    given = [kind for kind in KINDS if asked.get(kind) is not None]
    if len(given) != 1:
        raise ScheduleError(f"rule: give one of {', '.join(KINDS)}", field="rule")
    kind = given[0]
    stored = _READERS[kind](asked[kind], now, zone)
    return {"kind": kind, **stored}


def stored_rule(stored: Mapping[str, Any]) -> Rule:
    """Return the rule that is stored."""
    match stored["kind"]:
        case "cron":
            return Cron(stored["cron"])
        case "daily":
            return Daily(_times(stored))
        case "weekly":
            return Weekly(_times(stored), tuple(WEEKDAYS.index(day) for day in stored["days"]))
        case "monthly":
            return Monthly(_times(stored), tuple(LAST if day == "last" else day for day in stored["days"]))
        case "every":
            return Every(parse_duration(stored["seconds"], "every"), stored["anchor_at"])
        case "at":
            return AtInstant(stored["at"]) if "at" in stored else AtWall(datetime.fromisoformat(stored["wall"]))
        case _:
            return TextRule(stored["rrule"], datetime.fromisoformat(stored.get("dtstart") or stored["anchor"]))


def _read_cron(value: Any, now: datetime, zone: ZoneInfo) -> Stored:
    return {"cron": cron_of(value).text}


def _read_daily(value: Any, now: datetime, zone: ZoneInfo) -> Stored:
    return {"times": _read_times(value, "daily")}


def _read_weekly(value: Any, now: datetime, zone: ZoneInfo) -> Stored:
    days, times = _split(value, "weekly", "'mon,thu 09:00', or a pair of days and a time")
    chosen = {day for each in _listed(days) for day in _weekdays(each)}
    return {"days": [day for day in WEEKDAYS if day in chosen], "times": _read_times(times, "weekly")}


def _read_monthly(value: Any, now: datetime, zone: ZoneInfo) -> Stored:
    days, times = _split(value, "monthly", "'1,15 09:00', 'last 18:00', or a pair of days and a time")
    numbers = {_day_of_month(day) for day in _listed(days)}
    ordered = sorted(numbers, key=lambda day: (day == "last", day if isinstance(day, int) else 0))
    return {"days": ordered, "times": _read_times(times, "monthly")}


def _read_every(value: Any, now: datetime, zone: ZoneInfo) -> Stored:
    try:
        seconds = parse_duration(value, "every").total_seconds()
    except InvalidPolicy as error:
        raise ScheduleError(error.message, field="every") from error
    if seconds < _SHORTEST:
        raise ScheduleError("every: at least one second", field="every")
    return {"seconds": seconds, "anchor_at": now}


def _read_at(value: Any, now: datetime, zone: ZoneInfo) -> Stored:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        if isinstance(moment, datetime):
            if moment.tzinfo is None:
                return {"wall": moment.replace(fold=0, microsecond=0).isoformat()}
            return {"at": check_instant(moment, "at")}
    except (ValueError, InvalidPolicy):
        pass
    raise ScheduleError(
        "at: an aware datetime, or a naive one that is meant in the schedule's timezone, or its ISO 8601 text",
        field="at",
    )


def _read_rrule(value: Any, now: datetime, zone: ZoneInfo) -> Stored:
    rule = text_rule_of(value, wall_of(now, zone))
    return {"rrule": rule.text, "dtstart" if has_begin(value) else "anchor": rule.anchor.isoformat()}


_READERS: dict[str, Callable[[Any, datetime, ZoneInfo], Stored]] = {
    "cron": _read_cron,
    "daily": _read_daily,
    "weekly": _read_weekly,
    "monthly": _read_monthly,
    "every": _read_every,
    "at": _read_at,
    "rrule": _read_rrule,
}


def _split(value: Any, field: str, allowed: str) -> tuple[Any, Any]:
    """Return days and times, of a text, a pair or a mapping."""
    if isinstance(value, str):
        days, _, times = value.strip().rpartition(" ")
        if days and ":" in times:
            return days, times
    elif isinstance(value, Mapping):
        given = dict(value)
        days = given.pop("days", None) or given.pop("day", None)
        times = given.pop("times", None) or given.pop("time", None) or given.pop("at", None)
        if days is not None and times is not None and not given:
            return days, times
    elif isinstance(value, Sequence) and len(value) == 2:
        return value[0], value[1]
    raise ScheduleError(f"{field}: {allowed}", field=field)


def _listed(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return list(value) if isinstance(value, (Sequence, set, frozenset)) and value else [value]


def _weekdays(value: Any) -> list[str]:
    if isinstance(value, str):
        ends = [_weekday(part.strip()) for part in value.lower().split("-")]
        if len(ends) == 1 and ends[0] is not None:
            return [ends[0]]
        if len(ends) == 2 and ends[0] is not None and ends[1] is not None:
            first, last = WEEKDAYS.index(ends[0]), WEEKDAYS.index(ends[1])
            return [WEEKDAYS[n % 7] for n in range(first, last + 1 if last >= first else last + 8)]
        raise refused("weekly", value, 0, len(value), f"a day of the week, or a range: {', '.join(WEEKDAYS)}")
    raise ScheduleError(f"weekly: days of the week: {', '.join(WEEKDAYS)}", field="weekly")


def _weekday(text: str) -> str | None:
    return text[:3] if text in WEEKDAYS or text in _FULL_NAMES else None


def _day_of_month(value: Any) -> int | str:
    if isinstance(value, str):
        if value.strip().lower() == "last":
            return "last"
        value = int(value) if re.fullmatch(r"\s*\d{1,2}\s*", value, re.ASCII) else None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LAST:
        raise ScheduleError("monthly: days from 1 to 31, or 'last'", field="monthly")
    return value


def _read_times(value: Any, field: str) -> list[str]:
    times = {_time_of_day(each, field) for each in _listed(value)}
    if len(times) > _TIMES_MAX:
        raise ScheduleError(f"{field}: at most {_TIMES_MAX} times", field=field)
    return [each.isoformat() for each in sorted(times)]


def _time_of_day(value: Any, field: str) -> time:
    if isinstance(value, time) and value.tzinfo is None:
        return value.replace(microsecond=0, fold=0)
    if isinstance(value, str):
        if (found := _TIME.fullmatch(value.strip())) is None:
            raise refused(field, value, 0, len(value), "a time of day is HH:MM or HH:MM:SS, from 00:00 to 23:59:59")
        return time(int(found[1]), int(found[2]), int(found[3] or 0))
    raise ScheduleError(f"{field}: a time of day as text, HH:MM or HH:MM:SS, or a naive datetime.time", field=field)


def _times(stored: Mapping[str, Any]) -> tuple[time, ...]:
    return tuple(time.fromisoformat(each) for each in stored["times"])
