"""Every instant at which a process can die: around each of the writes of a run that goes well.

Each crash point has a run of its own, under a workflow name of its own, so that all of them can share a database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from tests.stress.crash_process import crashing
from tests.stress.evidence import Evidence, Runs
from tests.stress.fleet import Fleet
from tests.stress.ledger import Ledger
from tests.stress.target import Opening, tell_events

KILLED = -9
MOMENTS = ("before", "applied", "after")
# Nothing but the death of its process may cost a run its lease here, and nothing may keep it from being born claimed.
DIES = {"lease": "2s", "poll_interval": "100ms", "concurrency": 500}
RECOVERS = {"lease": "1s", "poll_interval": "100ms", "concurrency": 30}
AT_A_TIME = 4

# Each step is one write that also begins the next; the third has one more for its durable call, one that parks the run
# for its durable sleep, and one that claims it when that is over.
STEPS = ("first", "second", "call", "sleep", "wake", "third", "fourth", "fifth")
KINDS = ("advance", "advance", "advance", "advance", "claim", "advance", "advance", "advance")
WRITES = {
    "claimed": ("insert", *KINDS),  # the process starts the run, already claimed, and works on it
    "queued": ("claim", *KINDS),  # the run is there already
    "starting": ("insert",),  # the process starts the run and works on none
}


@dataclass(frozen=True)
class CrashPoint:
    """One run that meets one death.

    Args:
        number: Which one, for the run's input.
        scenario: What the process does; see `WRITES`.
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
        return {"n": self.number, "pace": 0.1}

    @property
    def certain(self) -> tuple[str, ...]:
        """What was stored before the process died, and must not be done again."""
        stored = self.at - 1 if self.moment == "before" else self.at
        return STEPS[: max(0, stored - 1)]

    def spawn(self, fleet: Fleet, opening: Opening) -> str:
        """Begin the process that dies first; return its name."""
        place = {"start": self.scenario != "queued", "moment": self.moment, "at": self.at}
        return self._spawn(fleet, opening, "first", None if self.scenario == "starting" else DIES, **place)

    def spawn_successor(self, fleet: Fleet, opening: Opening) -> str:
        """Begin the process that takes over and dies in its turn; return its name."""
        return self._spawn(fleet, opening, "successor", DIES, start=False, moment=self.then[0], at=self.then[1])

    def _spawn(self, fleet: Fleet, opening: Opening, who: str, worker: dict[str, Any] | None, **place: Any) -> str:
        mine = asdict(replace(opening, flows=(("five", self.name, "1.0.0"),), worker=worker))
        order = crashing(mine, self.name, self.name, self.value, **place)
        return fleet.spawn(f"{self.name}-{who}", "crasher", **order)


def no_crash(scenario: str) -> CrashPoint:
    """Return the run that goes well, and shows which writes there are."""
    return CrashPoint(0, scenario, "before", 0)


def crash_points(scenario: str) -> list[CrashPoint]:
    """Return every crash point of a run."""
    places = enumerate(product(range(1, len(WRITES[scenario]) + 1), MOMENTS), 1)
    return [CrashPoint(number, scenario, moment, at) for number, (at, moment) in places]


def double_crash_points(scenario: str) -> list[CrashPoint]:
    """Return every pair of crash points; who recovers a run needs no more writes than its predecessor."""
    numbers = range(1, len(WRITES[scenario]) + 1)
    places = enumerate(product(numbers, MOMENTS[:2], MOMENTS[:2], numbers), 1)
    return [CrashPoint(number, scenario, one, at, (other, then)) for number, (at, one, other, then) in places]


async def queue(opening: Opening, points: list[CrashPoint]) -> None:
    """Start the runs of the points in a process that works on none."""
    told = Ledger(opening.ledger, "queueing")
    async with _serving(opening, points, None).app(told) as app:
        for point in points:
            told.write("asking", value=point.value)
            handle = await app.start(point.name, point.value, run_id=point.name)
            told.write("started", run=handle.id, value=point.value)
    told.close()


def end_each(fleet: Fleet, points: list[CrashPoint], spawn: Callable[[CrashPoint], str]) -> dict[str, int]:
    """Begin a process for each point, a few at a time; return how each ended, by the run's id."""
    codes: dict[str, int] = {}
    for begin in range(0, len(points), AT_A_TIME):
        names = {point.name: spawn(point) for point in points[begin : begin + AT_A_TIME]}
        codes |= {run_id: fleet.wait(name, within=40) for run_id, name in names.items()}
    return codes


async def recover(opening: Opening, runs: Runs, points: list[CrashPoint]) -> None:
    """Let a worker that serves all points bring the runs that are there to an end."""
    told = Ledger(opening.ledger, "recovering")
    async with _serving(opening, points, RECOVERS).app(told) as app:
        tell_events(app, told)
        await asyncio.gather(*(app.handle(run_id).wait(60) for run_id in runs.documents()))
    told.close()


def attempts(evidence: Evidence, run_id: str, step: str) -> int:
    """Return how many attempts a step took."""
    return len({entry["attempt"] for entry in evidence.of(run_id, "enter", step=step)})


def _serving(opening: Opening, points: list[CrashPoint], worker: dict[str, Any] | None) -> Opening:
    return replace(opening, flows=tuple(("five", point.name, "1.0.0") for point in points), worker=worker)
