"""How often and how fast a failing step is tried again."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from streamline.domain.durations import Duration, parse_duration
from streamline.errors import InvalidPolicy

ATTEMPTS_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed attempt is followed by another.

    Args:
        max_attempts: How many attempts may fail before the step does, the first one included; 1 to 1,000,000.
        delay: Pause after the first failure.
        backoff: How the pause grows with each failure: ``"exponential"`` doubles it, ``"linear"`` adds `delay`,
            ``"fixed"`` keeps it, a number of at least 1 multiplies it.
        max_delay: No pause is longer, before jitter.
        jitter: Random share by which a pause may differ either way; 0 to 1.
        retry_on: Exception types worth another attempt; others fail the step at once.

    Raises:
        InvalidPolicy: A value is out of its range; names the field.
    """

    max_attempts: int = 3
    delay: Duration = "1s"
    backoff: Literal["exponential", "linear", "fixed"] | float = "exponential"
    max_delay: Duration = "60s"
    jitter: float = 0.3
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    _delay: timedelta = field(init=False, repr=False, compare=False)
    _max_delay: timedelta = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse what cannot work, and read the durations once."""
        check_attempts(self.max_attempts, "max_attempts")
        _check_backoff(self.backoff)
        _check_number(self.jitter, "jitter", low=0.0, high=1.0)
        _check_exceptions(self.retry_on)
        object.__setattr__(self, "_delay", parse_duration(self.delay, "delay"))
        object.__setattr__(self, "_max_delay", parse_duration(self.max_delay, "max_delay"))

    def pause_after(self, failures: int, chance: float) -> timedelta:
        """Return the pause after the given number of failures.

        Args:
            failures: At least 1.
            chance: A random number in [-1, 1]; it decides where within the jitter the pause falls.
        """
        grown = self._delay.total_seconds() * self._growth(failures)
        capped = min(grown, self._max_delay.total_seconds())
        return timedelta(seconds=capped * (1 + self.jitter * chance))

    def _growth(self, failures: int) -> float:
        if self.backoff == "fixed":
            return 1.0
        if self.backoff == "linear":
            return float(failures)
        factor = 2.0 if self.backoff == "exponential" else float(self.backoff)
        return math.exp(min((failures - 1) * math.log(factor), 700.0))


def check_attempts(value: object, name: str) -> int:
    """Return `value` if it may be a number of attempts; raise `InvalidPolicy` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= ATTEMPTS_MAX:
        raise InvalidPolicy(f"{name}: a whole number from 1 to {ATTEMPTS_MAX}", field=name)
    return value


def _check_backoff(value: object) -> None:
    if value not in ("exponential", "linear", "fixed"):
        _check_number(value, "backoff", low=1.0, high=1000.0)


def _check_number(value: object, name: str, *, low: float, high: float) -> None:
    ok = (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
        and low <= value <= high
    )
    if not ok:
        raise InvalidPolicy(f"{name}: a number from {low:g} to {high:g}", field=name)


def _check_exceptions(value: object) -> None:
    ok = isinstance(value, tuple) and all(isinstance(item, type) and issubclass(item, BaseException) for item in value)
    if not ok:
        raise InvalidPolicy("retry_on: a tuple of exception types", field="retry_on")
