"""Rules in absolute time, which no clock on a wall concerns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count


@dataclass(frozen=True, slots=True)
class Every:
    """After each period, counted from an instant."""

    period: timedelta
    anchor: datetime

    def instants(self, after: datetime) -> Iterator[datetime]:
        """Yield the instants after one, in order."""
        first = max(1, (after - self.anchor) // self.period + 1)
        return (self.anchor + n * self.period for n in count(first))


@dataclass(frozen=True, slots=True)
class AtInstant:
    """Once, at an instant."""

    at: datetime

    def instants(self, after: datetime) -> Iterator[datetime]:
        """Yield the one instant where it lies after another."""
        if self.at > after:
            yield self.at
