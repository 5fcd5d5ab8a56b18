"""Durations as users write them: a ``timedelta``, seconds as a number, or text such as ``"250ms"``."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

from streamline.errors import InvalidPolicy

Duration = timedelta | float | int | str

_TEXT = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST = timedelta(days=36_500)


def parse_duration(value: object, field: str, *, positive: bool = False) -> timedelta:
    """Return the duration that `value` means.

    Args:
        value: A ``timedelta``, a finite number of seconds, or ``"250ms" "30s" "5m" "1h" "2d"``.
        field: Name of the argument, for the error.
        positive: Refuse zero as well.

    Raises:
        InvalidPolicy: Not a duration, negative, or longer than 100 years.
    """
    duration = _read(value, field)
    if duration < timedelta(0) or (positive and not duration):
        raise InvalidPolicy(f"{field}: must be {'more than' if positive else 'at least'} zero", field=field)
    if duration > _LONGEST:
        raise InvalidPolicy(f"{field}: must be at most 100 years", field=field)
    return duration


def check_instant(value: object, field: str) -> datetime:
    """Return an aware datetime as UTC in whole milliseconds; raise `InvalidPolicy` for anything else."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise InvalidPolicy(f"{field}: an aware datetime", field=field)
    try:
        return value.astimezone(UTC).replace(microsecond=value.microsecond // 1000 * 1000)
    except OverflowError:
        raise InvalidPolicy(f"{field}: the instant is out of range", field=field) from None


def _read(value: object, field: str) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str) and (match := _TEXT.fullmatch(value.strip())):
        return _of_seconds(float(match[1]) * _SECONDS[match[2]], field)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _of_seconds(value, field)
    raise InvalidPolicy(
        f'{field}: give a timedelta, seconds, or text such as "250ms", "30s", "5m", "1h", "2d"', field=field
    )


def _of_seconds(seconds: float, field: str) -> timedelta:
    if not math.isfinite(seconds):
        raise InvalidPolicy(f"{field}: must be a finite number of seconds", field=field)
    try:
        return timedelta(seconds=seconds)
    except OverflowError:
        raise InvalidPolicy(f"{field}: must be at most 100 years", field=field) from None
