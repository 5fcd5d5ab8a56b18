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
from streamline.domain.place import Document, Place, attempt_of, recoveries_of_step
from streamline.domain.policies import RetryPolicy
from streamline.domain.statuses import RUN_STATUSES, STEP_STATUSES
from streamline.domain.transitions import compensating, jumping, operating, parking, stepping
from streamline.domain.transitions.stepping import Ending
from streamline.errors import CorruptRun, IllegalTransition, InvalidPolicy, NonRetriableError, RetryAfter, StepNotFound

STALE = "stale_heartbeat"


@dataclass(slots=True)
class Completed:
    """The handler returned."""

    output: Encoded


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt ended in an error; `final` rules out another attempt whatever the policy says."""

    error: BaseException
    final: bool = False


@dataclass(frozen=True, slots=True)
class Skipped:
    """A predicate said that the step is not wanted."""


@dataclass(frozen=True, slots=True)
class Parked:
    """The handler waits: by address in its memo, for what."""

    waits: parking.Waits


@dataclass(frozen=True, slots=True)
class Jumped:
    """The handler wants to go on at another step."""

    to: str


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The worker is stopping and has ended the handler."""


Outcome = Completed | Failed | Skipped | Parked | Jumped | Interrupted


@dataclass(frozen=True, slots=True)
class DeadLettered(Exception):
    """The run's worker has died too often in the middle of it."""

    recoveries: int

    def __str__(self) -> str:
        """Say how often."""
        return f"given up after {self.recoveries} recoveries: its worker died each time"


def step_at(run: Mapping[str, Any], k: int, definition: Definition) -> StepDefinition:
    """Return the definition of a run's step; raise `CorruptRun` where its workflow has none of that id."""
    step_id = run["steps"][k]["id"]
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


def dead_letter(run: Document, ending: Ending) -> Change:
    """Return the change that gives up a run whose worker has died too often."""
    error = describe(DeadLettered(recoveries_of_step(run) - 1), run["steps"][run["cursor"]]["id"], run["attempt"])
    error |= {"code": "dead_lettered"}
    # Whoever follows failures hears of this one, too.
    return stepping.give_up(run, error, ending, "run.failed", ("run.dead_lettered", {"error": error}))


def is_lost(run: Document) -> bool:
    """Return whether a run was taken from a worker that no longer beat, and nothing was done with it since."""
    return run["status"] == "running" and (run.get("lease") or {}).get("news") == "recovered"


def end_lost(run: Document, *, cancel: bool, ending: Ending) -> Change:
    """Return the change that ends a run whose worker no longer beat, instead of going on with it."""
    if cancel:
        return operating.abandon(run, ending.now, STALE)
    said = "its worker stopped beating in the middle of it"
    return stepping.give_up(run, {"code": STALE, "type": "HeartbeatLost", "message": said, **_where(run)}, ending)


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit of the time that a run has."""

    field: str
    code: str
    said: str


_LIMITS = (
    Limit("deadline_at", "run.timeout", "the run did not end in the time allowed"),
    Limit("start_by", "run.expired", "the run did not begin in the time allowed"),
)


def is_overdue(run: Document, now: datetime) -> Limit | None:
    """Return the limit that the run has passed, or None while there is time."""
    for limit in _LIMITS:
        instant = run.get(limit.field)
        if instant is None or instant > now:
            continue
        if limit.field == "deadline_at" or run.get("started_at", now) > instant:
            return limit
    return None


def time_out(run: Document, limit: Limit, ending: Ending) -> Change:
    """Return the change that fails a run whose time is over, or which did not begin in time."""
    error = {"code": limit.code, "type": "RunTimeout", "message": limit.said, **_where(run)}
    return stepping.give_up(run, error, ending, "run.timed_out")


def _where(run: Document) -> dict[str, Any]:
    return {"step": run["steps"][run["cursor"]]["id"], "attempt": run["attempt"]}


def conclude(
    run: Document, place: Place, step: StepDefinition, outcome: Outcome, ending: Ending, chance: float, jumps_max: int
) -> Change:
    """Return the change that follows from how an attempt of a step went.

    Args:
        run: The run as its driver knows it.
        place: Where the step stands in it.
        step: The step that was attempted.
        outcome: How it went.
        ending: The instant, and what ending the step entails.
        chance: A random number in [-1, 1] for the jitter of a retry.
        jumps_max: How often a run may jump.
    """
    match outcome:
        case Completed(output):
            return stepping.complete(run, place, output, ending)
        case Skipped():
            return stepping.skip(run, place, ending)
        case Parked(waits):
            return parking.park(run, {place: waits}, ending.now)
        case Interrupted():
            return stepping.release(run, ending.now)
        case Jumped(to):
            refused = refused_jump(run, to, jumps_max)
            if refused is None:
                return jumping.jump(run, place, to, ending)
            return _after_failure(run, place, step, Failed(refused, final=True), ending, chance)
        case Failed():
            return _after_failure(run, place, step, outcome, ending, chance)


def conclude_undo(
    run: Document, place: Place, step: StepDefinition, outcome: Outcome, ending: Ending, chance: float
) -> Change:
    """Return the change that follows from how an attempt of a compensation went; arguments as for `conclude`."""
    match outcome:
        case Completed() | Skipped():
            return compensating.compensated(run, place, ending.now, go_on=ending.go_on, state=ending.state)
        case Parked(waits):
            return parking.park(run, {place: waits}, ending.now)
        case Interrupted():
            return stepping.release(run, ending.now)
        case Jumped():
            outcome = Failed(NonRetriableError("a compensation cannot jump"), final=True)
        case Failed():
            pass
    assert step.compensation is not None
    policy, failures = step.compensation.retry, place.activity(run).get("failures", 0) + 1
    kept = describe(outcome.error, step.id, attempt_of(run, place))
    if is_to_be_retried(outcome, policy, failures):
        return stepping.try_again(
            run, place, kept, ending.now + _pause(outcome.error, policy, failures, chance), ending.now
        )
    return compensating.not_compensated(run, place, kept, ending.now, go_on=ending.go_on)


def conclude_member(
    run: Document, place: Place, step: StepDefinition, outcome: Outcome, ending: Ending, due_at: datetime | None
) -> Change:
    """Return the change that follows from how an attempt of a step of a group went, whose others may be at work.

    Args:
        run: As for `conclude`.
        place: As for `conclude`.
        step: As for `conclude`.
        outcome: As for `conclude`.
        ending: As for `conclude`.
        due_at: When a failed attempt is followed by another, if it is.
    """
    if isinstance(outcome, Jumped):
        outcome = Failed(IllegalTransition("goto: a step of a group cannot jump"), final=True)
    if isinstance(outcome, Failed) and due_at is not None:
        return stepping.record_failure(
            run, place, describe(outcome.error, step.id, attempt_of(run, place)), due_at, ending.now
        )
    return conclude(run, place, step, outcome, ending, 0.0, 0)


def next_attempt(
    run: Document, place: Place, step: StepDefinition, outcome: Outcome, now: datetime, chance: float
) -> datetime | None:
    """Return when a failed attempt is to be followed by another, or None where it is not."""
    failures = place.activity(run).get("failures", 0) + 1
    if not isinstance(outcome, Failed) or not is_to_be_retried(outcome, step.retry, failures):
        return None
    return now + _pause(outcome.error, step.retry, failures, chance)


def is_to_be_retried(outcome: Failed, policy: RetryPolicy, failures: int) -> bool:
    """Return whether a failed attempt is followed by another."""
    return not outcome.final and failures < policy.max_attempts and is_worth_retrying(outcome.error, policy)


def _after_failure(
    run: Document, place: Place, step: StepDefinition, outcome: Failed, ending: Ending, chance: float
) -> Change:
    kept = describe(outcome.error, step.id, attempt_of(run, place))
    due_at = next_attempt(run, place, step, outcome, ending.now, chance)
    if due_at is not None:
        return stepping.try_again(run, place, kept, due_at, ending.now)
    if step.on_error == "skip":
        return stepping.skip(run, place, ending, kept)
    return stepping.fail(run, place, kept, ending)


def refused_jump(run: Document, to: str, jumps_max: int) -> Exception | None:
    """Return what is wrong with a jump, if anything is."""
    try:
        jumping.index_of(run, to)
    except StepNotFound as error:
        return error
    if run.get("jumps", 0) >= jumps_max:
        return IllegalTransition(f"goto: the run has jumped {jumps_max} times, which is the limit", field="goto")
    return None


def _pause(error: BaseException, policy: RetryPolicy, failures: int, chance: float) -> timedelta:
    if isinstance(error, RetryAfter):
        try:
            return parse_duration(error.delay, "RetryAfter.delay")
        except InvalidPolicy:
            pass  # An unusable delay must not lose the attempt: the policy's own takes its place.
    return policy.pause_after(failures, chance)
