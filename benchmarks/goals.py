"""What a figure has to reach: the goal that is aimed at, and the floor under which the benchmark fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["met", "goal missed", "FLOOR MISSED"]


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound for a figure.

    Args:
        aim: What it should reach.
        floor: What it must reach; None never fails the benchmark.
        largest: Whether the figure has to stay below the bounds, as a latency, or to be above them, as a rate.
        unit: How the bounds are shown.
    """

    aim: float
    floor: float | None
    largest: bool
    unit: str = "x"

    def judge(self, figure: float) -> Verdict:
        """Return what the figure comes to."""
        if self.floor is not None and not self._reaches(figure, self.floor):
            return "FLOOR MISSED"
        return "met" if self._reaches(figure, self.aim) else "goal missed"

    def show(self, bound: float | None) -> str:
        """Return a bound as text."""
        return "-" if bound is None else f"{'<=' if self.largest else '>='} {bound:g} {self.unit}".rstrip()

    def _reaches(self, figure: float, bound: float) -> bool:
        return figure <= bound if self.largest else figure >= bound


def at_least(aim: float, floor: float | None = None, unit: str = "x") -> Goal:
    """Return a goal for a figure that should be large."""
    return Goal(aim, floor, largest=False, unit=unit)


def at_most(aim: float, floor: float | None = None, unit: str = "x") -> Goal:
    """Return a goal for a figure that should be small."""
    return Goal(aim, floor, largest=True, unit=unit)
