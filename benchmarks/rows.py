"""A line of the result: what was measured, what it came to, and what it is held to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.goals import Goal


class Malfunction(Exception):
    """The engine did something wrong: a run was done twice, lost, or gave the wrong output."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line.

    Args:
        workload: Its name in docs/performance.md.
        what: What the figure compares.
        measured: The absolute numbers, for a reader.
        figure: What the goal is held against; None where there is nothing to judge.
        goal: What it has to reach; None where it is only shown.
        unit: Of the figure; ``x`` is a ratio.
        note: Stands in place of a verdict.
        detail: Kept in the JSON only.
    """

    workload: str
    what: str
    measured: str
    figure: float | None = None
    goal: Goal | None = None
    unit: str = "x"
    note: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """What the figure comes to."""
        if self.note:
            return self.note
        return "-" if self.goal is None or self.figure is None else self.goal.judge(self.figure)


def ratio_row(
    workload: str, what: str, measured: str, ratios: Sequence[float], goal: Goal | None, **detail: Any
) -> Row:
    """Return the line of a ratio that was taken once per round: its median counts."""
    figures = {"per_round": [round(ratio, 4) for ratio in ratios], **detail}
    return Row(workload, what, measured, median(ratios), goal, detail=figures)
