"""A rule, a zone and what to do about its transitions: the instants of a series, whatever today's date is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

from streamline.features.recurrence.cron_rule import Cron
from streamline.features.recurrence.steady_rules import AtInstant, Every
from streamline.features.recurrence.wall_clock import (
    Fold,
    Gap,
    Occurrence,
    bound,
    earliest_wall,
    readings,
    wall_of,
)

# Instants near the ends of the calendar have no time on the wall everywhere.
_BEGIN, _END = datetime(100, 1, 1, tzinfo=UTC), datetime(9900, 1, 1, tzinfo=UTC)
_FIRST_LOOK_BACK = timedelta(minutes=1)


class WallRule(Protocol):
    """A rule about what a clock on the wall shows."""

    def walls(self, begin: datetime) -> Iterator[datetime]:
        """Yield naive times from `begin` on, in order."""
        ...


Rule = WallRule | Every | AtInstant


@dataclass(frozen=True, slots=True)
class Recurrence:
    """When something recurs.

    Args:
        rule: What is wanted.
        zone: Whose clock on the wall the rule is about.
        gap: What becomes of a time of day that does not occur.
        fold: Which one is meant of a time of day that occurs twice.
        until: Last instant at which it may occur.
    """

    rule: Rule
    zone: ZoneInfo
    gap: Gap = "forward"
    fold: Fold = "first"
    until: datetime | None = None

    def after(self, instant: datetime) -> Iterator[Occurrence]:
        """Yield what occurs after an instant, in order, each instant once."""
        last = min(self.until or _END, _END)
        for occurrence in self._found(min(max(instant, _BEGIN), _END)):
            if occurrence.at > last:
                return
            yield occurrence

    def first(self, after: datetime) -> Occurrence | None:
        """Return what occurs next after an instant."""
        return next(self.after(after), None)

    def latest(self, after: datetime, until: datetime, limit: int) -> list[Occurrence]:
        """Return the last few that occur after one instant and not after another, in order.

        It looks back further and further, so that what recurs often need not be gone through from the beginning.
        """
        back = _FIRST_LOOK_BACK
        while True:
            begin = max(after, until - back)
            found = list(self._until(begin, until))
            if len(found) >= limit or begin == after:
                return found[-limit:]
            back *= 4

    def _until(self, after: datetime, until: datetime) -> Iterator[Occurrence]:
        for occurrence in self.after(after):
            if occurrence.at > until:
                return
            yield occurrence

    def _found(self, after: datetime) -> Iterator[Occurrence]:
        if isinstance(self.rule, (Every, AtInstant)):
            return self._of_instants(self.rule, after)
        return self._of_walls(self.rule, after)

    def _of_instants(self, rule: Every | AtInstant, after: datetime) -> Iterator[Occurrence]:
        for at in rule.instants(after):
            if at > _END:
                return
            yield Occurrence(at, wall_of(at, self.zone))

    def _of_walls(self, rule: WallRule, after: datetime) -> Iterator[Occurrence]:
        # What a gap moves forward can fall behind, or onto, what is wanted later on the wall: order is made here.
        pending: dict[datetime, Occurrence] = {}
        is_rhythm = isinstance(rule, Cron) and rule.is_rhythm
        gap: Gap = "skip" if is_rhythm else self.gap
        fold: Fold = "both" if is_rhythm else self.fold
        for wall in rule.walls(earliest_wall(after, self.zone)):
            if wall.year > _END.year:
                break
            settled = bound(wall, self.zone)
            for at in sorted(at for at in pending if at < settled):
                yield pending.pop(at)
            for occurrence in readings(wall, self.zone, gap, fold):
                if occurrence.at > after and getattr(pending.get(occurrence.at), "mark", "gap") == "gap":
                    pending[occurrence.at] = occurrence
        for at in sorted(pending):
            yield pending[at]
