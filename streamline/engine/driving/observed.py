"""An attempt, told of: to the log records that are made inside it, to traces, to measurements."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Final

from streamline.domain.decisions import Completed, Failed, Interrupted, Jumped, Outcome, Parked, Skipped
from streamline.engine.driving.attempt import Attempt
from streamline.telemetry import NOTHING, SPEAKING_OF, TELEMETRY, Meters

_WORDS: Final[Mapping[type[Outcome], str]] = {
    Completed: "done",
    Failed: "failed",
    Interrupted: "interrupted",
    Jumped: "jumped",
    Parked: "waiting",
    Skipped: "skipped",
}


def observed(attempt: Attempt) -> Awaitable[Outcome | None]:
    """Return the carrying out of an attempt, to be awaited, which says how it went; None where the lease was lost."""
    run = attempt.holding.run
    # A task that outlives its handler may keep this for long: words, and not what they were taken from.
    SPEAKING_OF.set(
        (
            run["_id"],
            run.get("workflow"),
            run.get("version"),
            attempt.step.id,
            attempt.number,
            run.get("tenant_id"),
            run["lease"]["worker"],
        )
    )
    if TELEMETRY.meters is None and attempt.holding.section is NOTHING:
        return attempt.outcome()
    return _told(attempt, TELEMETRY.meters)


async def _told(attempt: Attempt, meters: Meters | None) -> Outcome | None:
    holding, place, said, began = attempt.holding, attempt.place, "lost", attempt.clock.monotonic()
    try:
        with holding.section.step(holding.run, place.k, attempt.number, undo=place.undo) as section:
            outcome = await attempt.outcome()
            said = (holding.why_lost or said) if outcome is None else _WORDS[type(outcome)]
            section.tell("outcome", said)
            if isinstance(outcome, Failed):
                section.failed(outcome.error)
            return outcome
    finally:
        if meters is not None:
            meters.attempted(holding.run, attempt.step.id, said, attempt.clock.monotonic() - began)
