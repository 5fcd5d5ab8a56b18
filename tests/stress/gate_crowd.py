"""Processes that start runs behind gates all at once, and their deaths."""

from __future__ import annotations

import random
import time
from dataclasses import asdict
from typing import Any

from tests.stress import ledger
from tests.stress.deadline import until
from tests.stress.evidence import Evidence, Runs, gather
from tests.stress.fleet import Fleet
from tests.stress.ledger import Entry
from tests.stress.target import Opening

_HEAD_START = 0.5

Call = dict[str, Any]


def calls_of(place: int, each: int, **value: Any) -> list[Call]:
    """Return the calls of one process, with inputs that no other call has."""
    return [{"call": f"{place}-{i}", "value": {"n": place * 10_000 + i, "key": "one", **value}} for i in range(each)]


class Crowd:
    """Processes that each make their calls, and work on the runs meanwhile; whoever dies has a successor at once.

    A successor makes the calls again that were not answered, so that in the end each has been.

    Args:
        fleet: Their home.
        runs: What they store.
        opening: How each opens its app; with a worker, or without one.
        gates: See `gated`.
        calls: Those of each process.
        at_once: How many calls a process makes at the same time.
        every: Seconds that it waits after each.
        idle: Whether every other process only starts runs, and works on none.
    """

    def __init__(
        self,
        fleet: Fleet,
        runs: Runs,
        opening: Opening,
        gates: dict[str, dict[str, Any]],
        calls: list[list[Call]],
        *,
        at_once: int = 1000,
        every: float = 0.0,
        idle: bool = False,
    ) -> None:
        self._fleet = fleet
        self._runs = runs
        plain = {name: value for name, value in asdict(opening).items() if name != "flows"}
        self._options: dict[str, Any] = {"opening": plain, "gates": gates, "at_once": at_once, "every": every}
        self._idle = idle
        self._calls = calls
        self._begun = 0
        self._first = time.monotonic() + _HEAD_START
        self.deaths = 0
        self.alive = [self._begin(place, calls[place]) for place in range(len(calls))]

    def strike(self, dice: random.Random) -> None:
        """Kill one process, and begin another in its place."""
        place = dice.randrange(len(self.alive))
        assert self._fleet.kill(self.alive[place]), f"{self.alive[place]} had ended by itself"
        self.deaths += 1
        self.replace(place)

    def replace(self, place: int, **options: Any) -> None:
        """Begin another process in the place of one that has ended, which may open otherwise."""
        self._options |= options
        answered = {entry["call"] for entry in self.entries() if entry["what"] in ("started", "refused")}
        self.alive[place] = self._begin(place, [call for call in self._calls[place] if call["call"] not in answered])

    def rage(self, dice: random.Random, *, deaths: int, shortest: float = 0.05, longest: float = 0.4) -> None:
        """Kill so many processes, one now and then."""
        for _ in range(deaths):
            time.sleep(dice.uniform(shortest, longest))
            self.strike(dice)

    def entries(self) -> list[Entry]:
        """Return what the processes have written so far."""
        return ledger.read(self._fleet.ledger_path)

    def until_ready(self) -> None:
        """Wait until every process has opened its app."""

        def ready() -> bool:
            return set(self.alive) <= {entry["by"] for entry in self.entries() if entry["what"] == "ready"}

        until(ready, within=60, every=0.1, what="every process ready")

    def until_answered(self, within: float = 60) -> None:
        """Wait until every call has been answered."""
        calls = {call["call"] for several in self._calls for call in several}

        def answered() -> bool:
            return calls <= {entry["call"] for entry in self.entries() if entry["what"] in ("started", "refused")}

        until(answered, within=within, every=0.1, what="every call answered")

    def finish(self, within: float = 60) -> Evidence:
        """Wait until every call was answered and every run has ended, end the processes, and return what is left."""
        self.until_answered(within)
        self._runs.until_ended(within=within)
        self.dismiss()
        return gather(self._runs, self._fleet.ledger_path)

    def dismiss(self) -> None:
        """Let every process end by itself."""
        self.until_ready()
        for name in self.alive:
            self._fleet.dismiss(name)
        for name in self.alive:
            assert self._fleet.wait(name, within=30) == 0, name

    def _begin(self, place: int, calls: list[Call]) -> str:
        self._begun += 1
        name, options = f"p{place}.{self._begun}", {**self._options, "calls": calls, "not_before": self._first}
        if self._idle and place % 2:
            options["opening"] = {**self._options["opening"], "worker": None}
        return self._fleet.spawn(name, "burster", **options)
