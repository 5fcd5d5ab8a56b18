"""Earlier outputs of steps that were done again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic

from typing_extensions import TypeVar

from streamline.domain.transitions.jumping import pinned
from streamline.domain.transitions.patching import Patch
from streamline.engine.held.branches import current
from streamline.engine.held.surroundings import Surroundings
from streamline.errors import StepNotFound

T = TypeVar("T", default=Any)


@dataclass(frozen=True, slots=True)
class PastOutput(Generic[T]):
    """An earlier output of a step.

    Attributes:
        version: Counts a step's outputs from 1.
        output: Of the step's type.
        ended_at: When the step was done.
    """

    version: int
    output: T
    ended_at: datetime | None = None


def outputs_before(attempt: Surroundings, step_id: str) -> list[PastOutput[Any]]:
    """Return what a step keeps of its earlier outputs, the oldest first."""
    definition = attempt.find_step(step_id)
    if definition is None:
        raise StepNotFound(f"the workflow has no step {step_id!r}", field="step")
    stored = next(step for step in attempt.holding.run["steps"] if step["id"] == step_id)
    return [
        PastOutput(each["version"], definition.output.decode(each["output"]), each.get("ended_at"))
        for each in stored.get("history", ())
    ]


async def pin_output(attempt: Surroundings, step_id: str, version: int) -> None:
    """Make an earlier output the step's output, once."""
    address, entry = attempt.memo.find(current(attempt.root), "pin", None, name=f"{step_id}@{version}")
    if entry is not None:
        return
    k = next((i for i, step in enumerate(attempt.holding.run["steps"]) if step["id"] == step_id), None)
    if k is None:
        raise StepNotFound(f"the workflow has no step {step_id!r}", field="step")
    place = attempt.memo.place
    put = dict(pinned(attempt.holding.run["steps"][k], f"steps.{k}", version) or {})
    put[f"{place.at}.memo.{address}"] = {"kind": "pin", "name": f"{step_id}@{version}"}
    await attempt.holding.settle(Patch(place, put))
