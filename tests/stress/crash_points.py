"""Every instant at which a process can die: around each of the writes of a run that goes well."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from tests.stress.crash_process import crashing
from tests.stress.fleet import Fleet
from tests.stress.target import Opening

# Nothing but the death of its process may cost a run its lease here, and nothing may keep it from being born claimed.
DIES = {"lease": "2s", "poll_interval": "100ms", "concurrency": 500}
MOMENTS = ("before", "applied", "after")


@dataclass(frozen=True)
class CrashPoint:
    """One run that meets one death.

    Args:
        number: Which one, for the run's input.
        scenario: ``"claimed"``: the process starts the run and works on it. ``"queued"``: the run is there already.
        moment: See `Saboteur`.
        at: At which write.
        then: The same of the process that comes next, where that dies as well.
    """

    number: int
    scenario: str
    moment: str
    at: int
    then: tuple[str, int] = ("", 0)

    @property
    def name(self) -> str:
        """The name of its own workflow, so that nobody else takes its run, and its run's id."""
        return "-".join(map(str, (self.scenario, self.moment, self.at, *(self.then if self.then[1] else ()))))

    @property
    def value(self) -> dict[str, Any]:
        """The run's input."""
        return {"n": self.number, "pace": 0.01}

    def opening(self, opening: Opening, **worker: Any) -> dict[str, Any]:
        """Return how to open an app that serves this run only."""
        return asdict(replace(opening, flows=(("five", self.name, "1.0.0"),), worker=worker or None))

    def spawn(self, fleet: Fleet, opening: Opening) -> str:
        """Begin the process that dies first; return its name."""
        start = self.scenario == "claimed"
        return self._spawn(fleet, opening, "first", start=start, moment=self.moment, at=self.at)

    def spawn_successor(self, fleet: Fleet, opening: Opening) -> str:
        """Begin the process that takes over and dies in its turn; return its name."""
        return self._spawn(fleet, opening, "successor", start=False, moment=self.then[0], at=self.then[1])

    def _spawn(self, fleet: Fleet, opening: Opening, who: str, **place: Any) -> str:
        order = crashing(self.opening(opening, **DIES), self.name, self.name, self.value, **place)
        return fleet.spawn(f"{self.name}-{who}", "crasher", **order)


def crash_points(scenario: str, writes: int) -> list[CrashPoint]:
    """Return every crash point of a run that takes so many writes."""
    places = enumerate(product(range(1, writes + 1), MOMENTS), 1)
    return [CrashPoint(number, scenario, moment, at) for number, (at, moment) in places]


def double_crash_points(scenario: str, writes: int) -> list[CrashPoint]:
    """Return every pair of crash points; a successor that recovers a run needs no more writes than its predecessor."""
    numbers = range(1, writes + 1)
    places = enumerate(product(numbers, MOMENTS[:2], MOMENTS[:2], numbers), 1)
    return [CrashPoint(number, scenario, one, at, (other, then)) for number, (at, one, other, then) in places]


def all_flows(points: list[CrashPoint]) -> tuple[tuple[str, str, str], ...]:
    """Return the flows of an app that serves the runs of all points."""
    return tuple(("five", point.name, "1.0.0") for point in points)
