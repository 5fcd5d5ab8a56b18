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
    Outcome,
    Skipped,
    Slept,
    check_run,
    conclude,
    dead_letter,
    next_step,
)
from streamline.domain.payloads import Encoded
from streamline.domain.transitions.stepping import Ending
from streamline.errors import CorruptRun, SerializationError
from tests.conformance.documents import FLOW, NOW, held

POLICY = RetryPolicy(max_attempts=3, delay="10s", backoff="fixed", jitter=0.5, max_delay="1h")
STEP = replace(FLOW.steps[0], retry=POLICY)


def concluded(outcome: Outcome, *, failures: int = 0, chance: float = 0.0, **rules: Any) -> dict[str, Any]:
    run = held("r")
    run["steps"][0]["failures"] = failures
    change = conclude(run, replace(STEP, **rules), outcome, Ending(NOW), chance)
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
    run = concluded(Slept("sleep#1", NOW + timedelta(hours=1)))
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
    assert run["events"][-1]["type"] == "run.dead_lettered"


def test_the_next_step_is_that_at_the_cursor() -> None:
    assert next_step(held("r"), FLOW).id == "s0"
    assert next_step(held("r") | {"cursor": 2}, FLOW).id == "s2"


def test_a_step_that_the_workflow_does_not_have_is_reported() -> None:
    run = held("r")
    run["steps"][0]["id"] = "elsewhere"
    with pytest.raises(CorruptRun) as caught:
        next_step(run, FLOW)
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
