"""What is agreed about a schedule: its rule, its zone, and what happens around it; checked, and as it is stored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from streamline.domain.durations import check_instant, parse_duration
from streamline.errors import InvalidPolicy, ScheduleError
from streamline.features.recurrence.recurrence import Recurrence
from streamline.features.recurrence.rule_reading import KINDS, asked_rule, stored_rule
from streamline.features.recurrence.wall_clock import zone_of

Overlap = Literal["skip", "queue", "cancel_running", "allow"]
CatchUp = Literal["skip", "latest", "all"]
Terms = dict[str, Any]

TERMS = ("timezone", "overlap", "catch_up", "dst_gap", "dst_fold", "jitter", "until", "count")
_CHOICES = {
    "overlap": ("skip", "queue", "cancel_running", "allow"),
    "catch_up": ("skip", "latest", "all"),
    "dst_gap": ("forward", "skip"),
    "dst_fold": ("first", "second", "both"),
}
# What decides when something occurs, beside the rule; and when it ends.
_READING, _ENDS = ("timezone", "dst_gap", "dst_fold"), ("until_at", "count")
_ANCHORS = ("anchor", "anchor_at")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}", re.ASCII)
_COUNT_MAX = 2**31 - 1


def check_schedule_id(value: object) -> str:
    """Return `value` if it may name a schedule; raise `ScheduleError` otherwise."""
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise ScheduleError("id: 1 to 100 letters, digits and . _ : -, beginning with a letter or digit", field="id")
    return value


def checked_terms(asked: Mapping[str, Any], now: datetime, old: Mapping[str, Any] | None = None) -> Terms:
    """Return the terms that are asked for, over older ones where a schedule is changed.

    Raises:
        ScheduleError: Something is not of the allowed form; names the field.
    """
    if unknown := set(asked) - {*KINDS, *TERMS}:
        raise TypeError(f"unexpected keyword arguments: {', '.join(sorted(unknown))}")
    zone = zone_of(asked.get("timezone", "UTC" if old is None else old["timezone"]))
    is_new = old is None or any(asked.get(kind) is not None for kind in KINDS)
    terms: Terms = {"rule": asked_rule(asked, now, zone) if is_new or old is None else old["rule"]}
    terms["timezone"] = zone.key
    for name, allowed in _CHOICES.items():
        terms[name] = _choice(name, asked.get(name, allowed[0] if old is None else old[name]), allowed)
    kept = old or {"jitter": None, "until_at": None, "count": None}
    terms["jitter"] = _jitter(asked["jitter"]) if "jitter" in asked else kept["jitter"]
    terms["until_at"] = _until(asked["until"]) if "until" in asked else kept["until_at"]
    terms["count"] = _count(asked["count"]) if "count" in asked else kept["count"]
    return terms


def recurrence_of(terms: Mapping[str, Any]) -> Recurrence:
    """Return when what these terms are about recurs."""
    zone = zone_of(terms["timezone"])
    return Recurrence(stored_rule(terms["rule"]), zone, terms["dst_gap"], terms["dst_fold"], terms["until_at"])


def is_same_series(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two terms make for the same series but for its end, whenever each of them was agreed."""
    return _rule(one) == _rule(other) and all(one[name] == other[name] for name in _READING)


def is_same_end(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether the series of two terms end alike."""
    return all(one[name] == other[name] for name in _ENDS)


def is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two terms are the same, whenever each of them was agreed."""
    is_alike = all(one[name] == other[name] for name in ("overlap", "catch_up", "jitter"))
    return is_alike and is_same_series(one, other) and is_same_end(one, other)


def _rule(terms: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in terms["rule"].items() if name not in _ANCHORS}


def _choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise ScheduleError(f"{name}: one of {', '.join(allowed)}", field=name)
    return value


def _jitter(value: Any) -> float | None:
    if value is None:
        return None
    try:
        return parse_duration(value, "jitter").total_seconds() or None
    except InvalidPolicy as error:
        raise ScheduleError(error.message, field="jitter") from error


def _until(value: Any) -> datetime | None:
    try:
        return None if value is None else check_instant(value, "until")
    except InvalidPolicy as error:
        raise ScheduleError(error.message, field="until") from error


def _count(value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _COUNT_MAX):
        raise ScheduleError(f"count: a whole number from 1 to {_COUNT_MAX}", field="count")
    return value
