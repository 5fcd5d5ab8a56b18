"""What to do next with a run, and which change follows from how an attempt went: both as pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeGuard

from streamline.domain.change import Change
from streamline.domain.definition import Definition, StepDefinition
from streamline.domain.durations import parse_duration
from streamline.domain.failures import describe, is_worth_retrying
from streamline.domain.payloads import Encoded
from streamline.domain.statuses import RUN_STATUSES, STEP_STATUSES
from streamline.domain.transitions import stepping
from streamline.domain.transitions.stepping import Ending
from streamline.errors import CorruptRun, InvalidPolicy, RetryAfter


@dataclass(slots=True)
class Completed:
    """The handler returned."""

    output: Encoded
    state: Encoded | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt ended in an error; `final` rules out another attempt whatever the policy says."""

    error: BaseException
    final: bool = False


@dataclass(frozen=True, slots=True)
class Skipped:
    """A predicate said that the step is not wanted."""


@dataclass(frozen=True, slots=True)
class Slept:
    """The handler reached a durable timer."""

    key: str
    due_at: datetime


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The worker is stopping and has ended the handler."""


Outcome = Completed | Failed | Skipped | Slept | Interrupted


@dataclass(frozen=True, slots=True)
class DeadLettered(Exception):
    """The run's worker has died too often in the middle of it."""

    recoveries: int

    def __str__(self) -> str:
        """Say how often."""
        return f"given up after {self.recoveries} recoveries: its worker died each time"


def next_step(run: Mapping[str, Any], definition: Definition) -> StepDefinition:
    """Return the step that the run stands at; raise `CorruptRun` where its workflow has none of that id."""
    step_id = run["steps"][run["cursor"]]["id"]
    if step_id not in definition.index:
        raise CorruptRun(f"run {run['_id']}: {definition.route} has no step {step_id!r}", field="steps")
    return definition.steps[definition.index[step_id]]


def check_run(run: Mapping[str, Any]) -> None:
    """Raise `CorruptRun` naming the field where a stored run is not of the form that this engine writes."""
    steps, cursor = run.get("steps"), run.get("cursor")
    sound = {
        "steps": isinstance(steps, list) and bool(steps) and all(_is_step(step) for step in steps),
        "cursor": isinstance(steps, list) and _is_count(cursor) and cursor < len(steps),
        "status": run.get("status") in RUN_STATUSES,
        "events": isinstance(run.get("events"), list),
        **{name: _is_count(run.get(name)) for name in ("rev", "event_seq", "attempt", "recovery_count")},
    }
    for name, is_sound in sound.items():
        if not is_sound:
            raise CorruptRun(f"run {run.get('_id')}: field {name}", field=name)


def _is_step(step: Any) -> bool:
    return isinstance(step, Mapping) and isinstance(step.get("id"), str) and step.get("status") in STEP_STATUSES


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def recoveries_of_step(run: Mapping[str, Any]) -> int:
    """Return how often the run has lost its worker since it last finished a step."""
    return int(run["recovery_count"]) - int(run.get("recovered_before", 0))


def dead_letter(run: Mapping[str, Any], ending: Ending) -> Change:
    """Return the change that gives up a run whose worker has died too often."""
    error = describe(DeadLettered(recoveries_of_step(run) - 1), run["steps"][run["cursor"]]["id"], run["attempt"])
    return stepping.fail(run, error | {"code": "dead_lettered"}, ending, event="run.dead_lettered")


def conclude(run: Mapping[str, Any], step: StepDefinition, outcome: Outcome, ending: Ending, chance: float) -> Change:
    """Return the change that follows from how an attempt went.

    Args:
        run: The run as its driver knows it.
        step: The step that was attempted.
        outcome: How it went.
        ending: The instant, and what ending the run entails.
        chance: A random number in [-1, 1] for the jitter of a retry.
    """
    match outcome:
        case Completed(output):
            return stepping.complete(run, output, ending)
        case Skipped():
            return stepping.skip(run, ending)
        case Slept(key, due_at):
            return stepping.sleep(run, key, due_at, ending.now)
        case Interrupted():
            return stepping.release(run, ending.now)
        case Failed(error, final):
            return _after_failure(run, step, error, final, ending, chance)


def _after_failure(
    run: Mapping[str, Any], step: StepDefinition, error: BaseException, final: bool, ending: Ending, chance: float
) -> Change:
    kept = describe(error, step.id, run["attempt"])
    failures = run["steps"][run["cursor"]].get("failures", 0) + 1
    if not final and failures < step.retry.max_attempts and is_worth_retrying(error, step.retry):
        return stepping.try_again(run, kept, ending.now + _pause(error, step, failures, chance), ending.now)
    if step.on_error == "skip":
        return stepping.skip(run, ending, kept)
    return stepping.fail(run, kept, ending)


def _pause(error: BaseException, step: StepDefinition, failures: int, chance: float) -> timedelta:
    if isinstance(error, RetryAfter):
        try:
            return parse_duration(error.delay, "RetryAfter.delay")
        except InvalidPolicy:
            pass  # An unusable delay must not lose the attempt: the policy's own takes its place.
    return step.retry.pause_after(failures, chance)
