"""Which change follows from how an attempt went."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from streamline import NonRetriableError, RetryAfter, RetryPolicy
from streamline.domain.change import apply
from streamline.domain.decisions import (
    Completed,
    Failed,
    Interrupted,
    Jumped,
    Outcome,
    Parked,
    Skipped,
    check_run,
    conclude,
    conclude_member,
    conclude_undo,
    dead_letter,
    next_attempt,
    step_at,
)
from streamline.domain.definition import CompensationDefinition
from streamline.domain.payloads import Encoded
from streamline.domain.place import Place, here
from streamline.domain.transitions.stepping import Ending
from streamline.errors import CorruptRun, SerializationError
from tests.conformance.documents import FLOW, NOW, held

POLICY = RetryPolicy(max_attempts=3, delay="10s", backoff="fixed", jitter=0.5, max_delay="1h")
STEP = replace(FLOW.steps[0], retry=POLICY)


def concluded(outcome: Outcome, *, failures: int = 0, chance: float = 0.0, **rules: Any) -> dict[str, Any]:
    run = held("r")
    run["steps"][0]["failures"] = failures
    change = conclude(run, here(run), replace(STEP, **rules), outcome, Ending(NOW), chance, 10)
    document = copy.deepcopy(run)
    assert apply(document, change)
    return document


def test_a_completed_attempt_moves_on() -> None:
    run = concluded(Completed(Encoded("out", 3)))
    assert (run["status"], run["cursor"], run["steps"][0]["output"]) == ("running", 1, "out")


def test_a_skipped_step_moves_on() -> None:
    run = concluded(Skipped())
    assert (run["cursor"], run["steps"][0]["status"]) == (1, "skipped")


def test_a_sleep_parks_the_run() -> None:
    run = concluded(Parked({"sleep#1": {"kind": "sleep", "due_at": NOW + timedelta(hours=1)}}))
    assert (run["status"], run["due_at"]) == ("waiting", NOW + timedelta(hours=1))


def test_an_interrupted_attempt_is_handed_on() -> None:
    run = concluded(Interrupted())
    assert (run["status"], run["due_at"], run["attempt"]) == ("waiting", NOW, 0)


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 10), (1.0, 15), (-1.0, 5)])
def test_a_failed_attempt_is_followed_by_another_after_a_pause(chance: float, seconds: float) -> None:
    run = concluded(Failed(ValueError("no")), chance=chance)
    assert (run["status"], run["due_at"]) == ("waiting", NOW + timedelta(seconds=seconds))
    assert run["steps"][0]["failures"] == 1


@pytest.mark.parametrize(
    ("failed", "failures"),
    [
        (Failed(ValueError()), 2),
        (Failed(ValueError()), 99),
        (Failed(ValueError(), final=True), 0),
        (Failed(NonRetriableError()), 0),
        (Failed(SerializationError()), 0),
        (Failed(RetryAfter(5)), 2),
    ],
    ids=repr,
)
def test_a_failure_without_another_attempt_fails_the_run_or_skips_the_step(failed: Failed, failures: int) -> None:
    assert concluded(failed, failures=failures)["status"] == "failed"
    run = concluded(failed, failures=failures, on_error="skip")
    assert (run["status"], run["cursor"], run["steps"][0]["status"]) == ("running", 1, "skipped")
    assert run["steps"][0]["error"]["type"] == type(failed.error).__name__


@pytest.mark.parametrize(("delay", "seconds"), [("90s", 90), (0, 0), ("2h", 7200), (-5, 10), ("soon", 10), (None, 10)])
def test_retry_after_sets_the_pause_where_it_can_be_read(delay: Any, seconds: float) -> None:
    run = concluded(Failed(RetryAfter(delay)), chance=0.0)
    assert run["due_at"] == NOW + timedelta(seconds=seconds)


def test_a_jump_goes_on_at_the_other_step() -> None:
    run = concluded(Jumped("s2"))
    assert (run["cursor"], run["jumps"], run["steps"][1]["status"]) == (2, 1, "skipped")


@pytest.mark.parametrize(("to", "jumps", "code"), [("nowhere", 0, "StepNotFound"), ("s2", 10, "IllegalTransition")])
def test_a_jump_that_is_not_allowed_fails_the_step_for_good(to: str, jumps: int, code: str) -> None:
    run = held("r") | {"jumps": jumps}
    assert apply(run, conclude(run, here(run), STEP, Jumped(to), Ending(NOW), 0.0, 10))
    assert (run["status"], run["cursor"], run["error"]["type"]) == ("failed", 0, code)


def test_a_member_of_a_group_that_fails_is_tried_again_without_letting_go_of_the_run() -> None:
    run = held("r")
    for step in run["steps"][:2]:
        step |= {"group": "g", "status": "running"}
    failed, later = Failed(ValueError("no")), NOW + timedelta(seconds=10)
    due_at = next_attempt(run, Place(1), STEP, failed, NOW, 0.0)
    assert due_at == later
    assert apply(run, conclude_member(run, Place(1), STEP, failed, Ending(NOW), due_at))
    assert (run["status"], "lease" in run, run["steps"][1]["due_at"]) == ("running", True, later)
    assert (run["steps"][1]["status"], run["steps"][1]["failures"]) == ("pending", 1)
    assert apply(run, conclude_member(run, Place(0), STEP, Jumped("s2"), Ending(NOW), None))
    assert (run["steps"][0]["status"], run["steps"][0]["error"]["type"]) == ("failed", "IllegalTransition")
    assert run["status"] == "running"


@pytest.mark.parametrize("outcome", [Completed(Encoded("out", 3)), Skipped(), Interrupted(), Failed(ValueError("no"))])
def test_there_is_no_further_attempt_unless_one_failed_and_may_be_repeated(outcome: Outcome) -> None:
    run, limit = held("r"), replace(STEP, retry=replace(POLICY, max_attempts=1))
    assert next_attempt(run, Place(0), limit, outcome, NOW, 0.0) is None


def undone(outcome: Outcome, failures: int = 0) -> dict[str, Any]:
    step = replace(STEP, compensation=CompensationDefinition(_nothing, threaded=False, retry=POLICY))
    run = held("r") | {"status": "compensating", "cursor": 2, "compensate_on": ["failed"]}
    for k in range(2):
        run["steps"][k] |= {"status": "done", "compensation": {"status": "pending", "failures": failures}}
    assert apply(run, conclude_undo(run, Place(0, undo=True), step, outcome, Ending(NOW), 0.0))
    return run


async def _nothing(ctx: Any, output: Any) -> None: ...


def test_a_compensation_ends_is_tried_again_by_its_own_policy_or_is_given_up() -> None:
    for outcome in (Completed(Encoded(None, 0)), Skipped()):
        assert undone(outcome)["steps"][0]["compensation"]["status"] == "done"
    run = undone(Failed(ValueError("no")))
    assert (run["status"], run["due_at"]) == ("compensating", NOW + timedelta(seconds=10))
    assert run["steps"][0]["compensation"]["failures"] == 1
    run = undone(Failed(ValueError("no")), failures=2)
    assert (run["status"], run["steps"][0]["compensation"]["status"]) == ("compensating", "failed")
    run = undone(Jumped("s2"))
    assert (run["status"], run["steps"][0]["compensation"]["error"]["type"]) == ("compensating", "NonRetriableError")
    run = undone(Interrupted())
    assert (run["status"], run["due_at"], "lease" in run) == ("compensating", NOW, False)
    run = undone(Parked({"sleep#1": {"kind": "sleep", "due_at": NOW + timedelta(hours=1)}}))
    assert (run["status"], run["due_at"]) == ("compensating", NOW + timedelta(hours=1))
    assert run["steps"][0]["compensation"]["status"] == "waiting"


def test_only_so_many_failures_are_allowed() -> None:
    assert [concluded(Failed(ValueError()), failures=n)["status"] for n in range(4)] == [
        "waiting",
        "waiting",
        "failed",
        "failed",
    ]


def test_a_run_that_lost_its_worker_too_often_is_given_up() -> None:
    run = held("r") | {"recovery_count": 4}
    assert apply(run, dead_letter(run, Ending(NOW)))
    assert (run["status"], run["error"]["code"], run["error"]["step"]) == ("failed", "dead_lettered", "s0")
    assert "3 recoveries" in run["error"]["message"]
    assert [event["type"] for event in run["events"]][-2:] == ["run.dead_lettered", "run.failed"]


def test_a_step_is_found_by_its_id_wherever_it_stands_in_the_run() -> None:
    assert [step_at(held("r"), k, FLOW).id for k in range(3)] == ["s0", "s1", "s2"]
    run = held("r")
    run["steps"].reverse()
    assert step_at(run, 0, FLOW).id == "s2"


def test_a_step_that_the_workflow_does_not_have_is_reported() -> None:
    run = held("r")
    run["steps"][0]["id"] = "elsewhere"
    with pytest.raises(CorruptRun) as caught:
        step_at(run, 0, FLOW)
    assert caught.value.field == "steps"


def test_a_sound_run_passes() -> None:
    check_run(held("r"))


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        *[("steps", bad) for bad in (None, [], {}, "x", [5], [{}], [{"id": "a"}], [{"id": 5, "status": "done"}])],
        ("steps", [{"id": "a", "status": "weird"}]),
        *[("cursor", bad) for bad in (None, -1, 3, "0", True, 0.0)],
        *[("status", bad) for bad in (None, "weird", 5, "Done")],
        *[
            (name, bad)
            for name in ("rev", "event_seq", "attempt", "recovery_count")
            for bad in (None, "1", -1, True, 0.5)
        ],
        *[("events", bad) for bad in (None, {}, "x")],
    ],
    ids=repr,
)
def test_a_damaged_run_is_reported_with_its_field(field: str, bad: Any) -> None:
    with pytest.raises(CorruptRun) as caught:
        check_run(held("r") | {field: bad})
    assert caught.value.field == field
    assert "run r" in str(caught.value)
    run = held("r")
    del run[field]
    with pytest.raises(CorruptRun):
        check_run(run)
