"""An attempt, told of: to the log records that are made inside it, to traces, to measurements."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from streamline.domain.decisions import Completed, Failed, Interrupted, Jumped, Outcome, Parked, Skipped
from streamline.engine.attempt import Attempt
from streamline.telemetry import SPEAKING_OF, TELEMETRY, about

_WORDS: Final[Mapping[type[Outcome], str]] = {
    Completed: "done",
    Failed: "failed",
    Interrupted: "interrupted",
    Jumped: "jumped",
    Parked: "waiting",
    Skipped: "skipped",
}


async def observed(attempt: Attempt) -> Outcome | None:
    """Carry an attempt out and return how it went; None where the lease was lost meanwhile."""
    holding, place, meters, said = attempt.holding, attempt.place, TELEMETRY.meters, "lost"
    token = SPEAKING_OF.set(partial(_fields, attempt))
    began = 0.0 if meters is None else attempt.clock.monotonic()
    try:
        with holding.section.step(holding.run, place.k, attempt.number, undo=place.undo) as section:
            outcome = await attempt.outcome()
            said = (holding.why_lost or said) if outcome is None else _WORDS[type(outcome)]
            section.tell("outcome", said)
            if isinstance(outcome, Failed):
                section.failed(outcome.error)
            return outcome
    finally:
        SPEAKING_OF.reset(token)
        if meters is not None:
            meters.attempted(holding.run, attempt.step.id, said, attempt.clock.monotonic() - began)


def _fields(attempt: Attempt) -> dict[str, Any]:
    return about(attempt.holding.run, attempt.step.id, attempt.number)
