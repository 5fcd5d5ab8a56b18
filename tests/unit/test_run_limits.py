"""The time that a run has: until it must have begun, and until it must have ended."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streamline.domain.change import apply
from streamline.domain.decisions import Limit, is_overdue, time_out
from streamline.domain.payloads import NO_VALUE
from streamline.domain.place import here
from streamline.domain.transitions import jumping, operating, stepping
from streamline.domain.transitions.stepping import Ending
from tests.conformance.documents import NOW, draft, held
from tests.unit.played import ERROR, LATER, after, group, opened, parked, taken, types

MUCH_LATER = LATER + timedelta(days=1)
AT_ONCE = timedelta(milliseconds=1)


def limit_of(run: dict[str, Any], now: Any = LATER) -> str | None:
    limit = is_overdue(run, now)
    return None if limit is None else limit.code


def test_a_run_without_limits_is_never_overdue() -> None:
    assert limit_of(held("r"), MUCH_LATER) is None


def test_a_run_is_overdue_from_its_deadline_on_whatever_it_does() -> None:
    for run in (held("r"), taken(draft("r")), taken(parked(held("r"), k={"kind": "sleep", "due_at": LATER}))):
        run["deadline_at"] = LATER
        assert limit_of(run, LATER - AT_ONCE) is None
        assert limit_of(run, LATER) == "run.timeout"


def test_a_run_that_is_first_taken_too_late_has_not_begun_in_time() -> None:
    run = draft("r", start_by=LATER)
    assert limit_of(taken(run, LATER - AT_ONCE), LATER - AT_ONCE) is None
    assert limit_of(taken(run, MUCH_LATER), MUCH_LATER) == "run.expired"


def begun() -> dict[str, Any]:
    """A run that was taken in time, and must have begun long before it is taken again."""
    run = held("r") | {"start_by": NOW + AT_ONCE}
    assert limit_of(run, NOW) is None
    return run


def released() -> dict[str, Any]:
    return after(begun(), stepping.release(begun(), NOW))


def retrying() -> dict[str, Any]:
    return after(begun(), stepping.try_again(begun(), here(begun()), ERROR, LATER, NOW))


def asleep() -> dict[str, Any]:
    return parked(begun(), k={"kind": "sleep", "due_at": LATER})


def jumped() -> dict[str, Any]:
    return after(begun(), jumping.jump(begun(), here(begun()), "s0", Ending(NOW, go_on=False)))


def rewound() -> dict[str, Any]:
    run = after(begun(), stepping.complete(begun(), here(begun()), NO_VALUE, Ending(NOW)))
    return after(run, jumping.rewind(run, "s0", NOW))


def retried() -> dict[str, Any]:
    run = after(begun(), stepping.fail(begun(), here(begun()), ERROR, Ending(NOW)))
    return after(run, operating.retry(run, NOW))


def members_apart() -> dict[str, Any]:
    run = group() | {"start_by": NOW + AT_ONCE}
    return after(run, stepping.release(run, NOW))


@pytest.mark.parametrize("make", [released, retrying, asleep, jumped, rewound, retried, members_apart])
def test_a_run_that_has_begun_in_time_is_not_failed_for_it_when_it_is_taken_again(make: Any) -> None:
    assert limit_of(taken(make(), MUCH_LATER), MUCH_LATER) is None


def test_a_draft_that_was_cancelled_may_begin_whenever_it_is_retried() -> None:
    run = draft("r", start_by=LATER)
    run = after(run, operating.cancel(run, NOW, reason=None, by=None))
    run = after(run, operating.retry(run, MUCH_LATER))
    assert limit_of(taken(run, MUCH_LATER), MUCH_LATER) is None


@pytest.mark.parametrize("again", [operating.retry, lambda run, now: jumping.rewind(run, "s0", now)])
def test_a_run_that_is_taken_up_again_after_its_end_has_no_deadline(again: Any) -> None:
    run = held("r") | {"deadline_at": LATER}
    run = after(run, stepping.fail(run, here(run), ERROR, Ending(NOW)))
    assert limit_of(taken(after(run, again(run, NOW)), MUCH_LATER), MUCH_LATER) is None


def test_a_run_that_is_rewound_before_its_end_keeps_its_deadline() -> None:
    run = held("r") | {"deadline_at": LATER}
    assert after(run, jumping.rewind(run, "s0", NOW))["deadline_at"] == LATER


@pytest.mark.parametrize("code", ["run.timeout", "run.expired"])
def test_a_run_whose_time_is_over_fails_with_all_that_is_at_work(code: str) -> None:
    run = group() | {"idempotency_key": "k", "active_key": "k"}
    run["steps"][0] |= {"status": "waiting", "memo": {"k": opened("approval", hash="h")}}
    run |= {"hooks": ["h"], "waiting_since": NOW}
    run = after(run, time_out(run, Limit("deadline_at", code, "said"), Ending(LATER)))
    assert (run["status"], run["ended_at"]) == ("failed", LATER)
    assert (run["error"]["code"], run["error"]["type"], run["error"]["message"]) == (code, "RunTimeout", "said")
    assert [step["status"] for step in run["steps"]] == ["failed", "failed", "pending"]
    assert not run.keys() & {"lease", "due_at", "active_key", "hooks", "waiting_since"}
    assert types(run)[-3:] == ["step.failed", "step.failed", "run.timed_out"]


def test_a_member_that_is_done_stays_done_when_time_is_over() -> None:
    run = group()
    run["steps"][0] |= {"status": "done", "output": 1}
    run = after(run, time_out(run, Limit("deadline_at", "run.timeout", "said"), Ending(LATER)))
    assert [step["status"] for step in run["steps"]] == ["done", "failed", "pending"]


def test_whoever_lost_the_lease_fails_nothing() -> None:
    change = time_out(held("r"), Limit("deadline_at", "run.timeout", "said"), Ending(LATER))
    assert not apply(held("r") | {"lease": {"token": "other"}}, change)
