"""How many runs of a workflow may be at work, begin, or pile up: what users declare of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from streamline.domain.durations import Duration, parse_duration
from streamline.errors import InvalidPolicy

LIMIT_MAX = 10_000

Key = Callable[[Any], str | int]


@dataclass(frozen=True, slots=True)
class Concurrency:
    """Never more than `limit` runs of one key at work: running, waiting or compensating.

    Args:
        limit: 1 to 10,000.
        key: Function of the validated input; default one key for the workflow.
        on_limit: ``"queue"`` lets further runs wait for their turn, larger priority first, then older; ``"reject"``
            raises `ConcurrencyLimitReached`.

    Raises:
        InvalidPolicy: A value is not of the allowed form; names the field.
    """

    limit: int
    key: Key | None = None
    on_limit: Literal["queue", "reject"] = "queue"

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        _check_limit(self.limit)
        _check_function(self.key)
        if self.on_limit not in ("queue", "reject"):
            raise InvalidPolicy('on_limit: "queue" or "reject"', field="on_limit")


@dataclass(frozen=True, slots=True)
class Throttle:
    """Never more than `limit` runs of one key begin in any window of time; the excess is spread, none is dropped.

    Args:
        limit: 1 to 10,000.
        window: Length of the window.
        key: Function of the validated input; default one key for the workflow.

    Raises:
        InvalidPolicy: A value is not of the allowed form; names the field.
    """

    limit: int
    window: Duration
    key: Key | None = None
    window_time: timedelta = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Read the window and refuse what cannot work."""
        _check_limit(self.limit)
        _check_function(self.key)
        object.__setattr__(self, "window_time", parse_duration(self.window, "window", positive=True))


@dataclass(frozen=True, slots=True)
class Debounce:
    """One draft per key, with the latest input; it begins once nobody has started it again for `window`.

    Args:
        window: How long it must be quiet.
        key: Function of the validated input; default one key for the workflow.
        max_wait: How long after the first start it begins at the latest; default as long as starts keep coming.

    Raises:
        InvalidPolicy: A value is not of the allowed form; names the field.
    """

    window: Duration
    key: Key | None = None
    max_wait: Duration | None = None
    window_time: timedelta = field(init=False, repr=False, compare=False)
    longest: timedelta | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Read the durations and refuse what cannot work."""
        _check_function(self.key)
        window = parse_duration(self.window, "window", positive=True)
        longest = None if self.max_wait is None else parse_duration(self.max_wait, "max_wait", positive=True)
        if longest is not None and longest < window:
            raise InvalidPolicy("max_wait: at least as long as the window", field="max_wait")
        object.__setattr__(self, "window_time", window)
        object.__setattr__(self, "longest", longest)


def _check_limit(limit: object) -> None:
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= LIMIT_MAX:
        raise InvalidPolicy(f"limit: a whole number from 1 to {LIMIT_MAX}", field="limit")


def _check_function(key: object) -> None:
    if key is not None and not callable(key):
        raise InvalidPolicy("key: a function of the input", field="key")
