"""Undoing a run: entered by the write that ends it, in reverse order, each compensation with its own end."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from streamline.domain.change import Change, apply
from streamline.domain.payloads import Encoded
from streamline.domain.place import Place, next_undo
from streamline.domain.transitions import answering, compensating, jumping, operating, parking, stepping
from streamline.domain.transitions.answering import Reply, Target
from streamline.domain.transitions.claiming import lease_of, take_due, take_expired
from streamline.domain.transitions.stepping import Ending
from streamline.errors import IllegalTransition
from tests.conformance.documents import FLOW, NOW, held
from tests.unit.played import ERROR, LATER, after, group, opened, parked, taken, types, undone

BOTH = ["cancelled", "failed"]


def begun(on: list[str] = BOTH, *, done: int = 2) -> dict[str, Any]:
    """A held run of which so many steps that can be undone are done."""
    run = held("r", idempotency_key="k") | {"cursor": done, "compensate_on": on}
    for k in range(done):
        run["steps"][k] |= {"status": "done", "compensable": True, "output": k}
    run["steps"][done]["status"] = "running"
    return run


def failed(run: dict[str, Any], **ending: Any) -> Change:
    return stepping.fail(run, Place(run["cursor"]), ERROR, Ending(NOW, **ending))


def cancelled(run: dict[str, Any]) -> Change:
    change = operating.cancel(run, NOW, reason="why", by="ann")
    assert change is not None
    return change


def given_up(run: dict[str, Any]) -> Change:
    return stepping.give_up(run, ERROR, Ending(NOW), "run.timed_out")


@pytest.mark.parametrize("end", [failed, given_up])
def test_failing_enters_it_in_the_same_write_and_the_worker_goes_on(end: Callable[[dict[str, Any]], Change]) -> None:
    run = after(begun(), end(begun()))
    assert (run["status"], run["error"]) == ("compensating", ERROR)
    assert [step.get("compensation") for step in run["steps"]] == [{"status": "pending"}, {"status": "pending"}, None]
    assert run["steps"][2]["status"] == "failed"
    assert "lease" in run
    assert run["active_key"] == "k"
    assert not run.keys() & {"ended_at", "expire_at", "due_at"}
    assert "run.compensating" in types(run)
    assert "run.failed" not in types(run)


@pytest.mark.parametrize("hold", [{"go_on": False}, {}])
def test_a_worker_that_stops_or_a_pause_leaves_it_to_whoever_comes_next(hold: dict[str, Any]) -> None:
    run = begun() if hold else after(begun(), operating.pause(begun(), NOW, reason=None, by=None))
    run = after(run, failed(run, **hold))
    assert run["status"] == "compensating"
    assert "lease" not in run
    assert (run.get("due_at") or run["paused"]["due_at"]) == NOW
    assert ("due_at" in run) == bool(hold)


def test_cancelling_enters_it_where_the_workflow_says_so_and_fences_the_driver_off() -> None:
    start = parked(begun(), k=opened("approval", hash="h"))
    run = after(start, cancelled(start))
    assert (run["status"], run["due_at"], run["cancel"]["by"]) == ("compensating", NOW, "ann")
    assert run["error"]["code"] == "run.cancelled"
    assert not run.keys() & {"lease", "paused", "hooks", "waiting_since", "waiting_for", "nudged"}
    assert not apply(after(begun(), cancelled(begun())), failed(begun()))
    assert after(begun(["failed"]), cancelled(begun(["failed"])))["status"] == "cancelled"
    assert after(begun(["cancelled"]), failed(begun(["cancelled"])))["status"] == "failed"


def test_there_is_nothing_to_undo_where_no_step_that_can_be_is_done() -> None:
    run = begun()
    run["steps"][0]["status"], run["steps"][1]["status"] = "skipped", "failed"
    assert after(run, failed(run))["status"] == "failed"
    run = begun()
    del run["compensate_on"]
    assert after(run, failed(run))["status"] == "failed"


def test_a_member_of_a_group_that_is_done_by_the_same_write_is_undone_too() -> None:
    run = group() | {"compensate_on": BOTH}
    run["steps"][0] |= {"status": "failed", "error": ERROR}
    run["steps"][1]["compensable"] = True
    run = after(run, stepping.complete(run, Place(1), Encoded(5, 1), Ending(NOW)))
    assert (run["status"], run["error"]) == ("compensating", ERROR)
    assert run["steps"][1]["compensation"] == {"status": "pending"}


def test_the_last_is_undone_first_and_the_run_ends_with_the_first() -> None:
    run, order = undone(), []
    while run["status"] == "compensating":
        place = next_undo(run)
        assert place is not None
        order.append(place.k)
        run = after(run, compensating.compensated(run, place, LATER, go_on=True))
    assert order == [1, 0]
    assert (run["status"], run["ended_at"], run["error"]) == ("compensated", LATER, ERROR)
    assert not run.keys() & {"lease", "due_at", "active_key"}
    assert types(run)[-3:] == ["step.compensated", "step.compensated", "run.compensated"]
    assert [step["status"] for step in run["steps"]] == ["done", "done", "failed"]


def test_one_that_is_given_up_does_not_keep_the_others_from_being_undone() -> None:
    run = undone()
    run = after(run, compensating.not_compensated(run, Place(1, undo=True), ERROR, LATER, go_on=True))
    assert (run["status"], next_undo(run)) == ("compensating", Place(0, undo=True))
    run = after(run, compensating.compensated(run, Place(0, undo=True), LATER, go_on=True))
    assert run["status"] == "compensation_failed"
    assert [run["steps"][k]["compensation"]["status"] for k in range(2)] == ["done", "failed"]
    assert "step.compensation_failed" in types(run)


@pytest.mark.parametrize("go_on", [True, False])
def test_between_two_the_worker_goes_on_unless_it_stops_or_the_run_is_paused(go_on: bool) -> None:
    run = after(undone(), compensating.compensated(undone(), Place(1, undo=True), NOW, go_on=go_on))
    assert ("lease" in run) == go_on
    assert run.get("due_at") == (None if go_on else NOW)
    run = after(undone(), operating.pause(undone(), NOW, reason=None, by=None))
    run = after(run, compensating.compensated(run, Place(1, undo=True), NOW, go_on=go_on))
    assert (run["status"], run["paused"]["due_at"], "lease" in run) == ("compensating", NOW, False)
    assert after(run, operating.unpause(run, NOW))["due_at"] == NOW


def test_an_attempt_that_fails_is_repeated_and_each_counts_its_own() -> None:
    run, place = undone(), Place(1, undo=True)
    run["steps"][1]["failures"] = 7
    for n in (1, 2):
        run = after(run, stepping.try_again(run, place, ERROR | {"attempt": n}, LATER, NOW))
        compensation = run["steps"][1]["compensation"]
        assert (compensation["status"], compensation["failures"], compensation["attempt"]) == ("pending", n, n)
        assert (run["status"], run["due_at"]) == ("compensating", LATER)
        run = taken(run)
    assert run["steps"][1]["failures"] == 7
    run = after(run, compensating.compensated(run, place, LATER, go_on=True))
    assert run["steps"][1]["compensation"].keys() == {"status", "attempt", "failures", "ended_at", "started_at"}
    assert run["steps"][1]["compensation"]["attempt"] == 3


def test_a_compensation_that_lost_its_worker_is_another_attempt_of_it_alone() -> None:
    run = undone() | {"recovery_count": 2, "recovered_before": 2}
    lease = lease_of("w2", "t2", LATER, LATER + timedelta(seconds=30), "recovered")
    run = after(run, take_expired([FLOW.route], LATER, lease))
    assert (run["status"], run["recovery_count"]) == ("compensating", 3)
    run = after(run, compensating.compensated(run, Place(1, undo=True), LATER, go_on=True))
    assert run["steps"][1]["compensation"]["attempt"] == 2
    run = after(run, compensating.compensated(run, Place(0, undo=True), LATER, go_on=True))
    assert run["steps"][0]["compensation"]["attempt"] == 1


def test_waits_of_one_that_has_ended_are_not_answered_in_place_of_the_nexts() -> None:
    run = parked(undone(), Place(1, undo=True), k=opened("approval", hash="dead"))
    run = taken(run | {"due_at": NOW})
    run = after(run, compensating.not_compensated(run, Place(1, undo=True), ERROR, LATER, go_on=True))
    assert not run.keys() & {"hooks", "waiting_since", "waiting_for"}
    run = parked(run, Place(0, undo=True), k=opened("approval", since=LATER, hash="live"))
    assert (run["hooks"], run["waiting_since"]) == (["live"], LATER)
    run = after(run, answering.answer(run, Target(("approval",)), Reply("approved"), LATER))
    assert run["steps"][0]["compensation"]["memo"]["k"]["outcome"] == "approved"


def test_it_is_claimed_by_its_own_claim_and_stays_what_it_is() -> None:
    run = after(undone(), stepping.release(undone(), NOW))
    assert (run["status"], run["due_at"], run["attempt"]) == ("compensating", NOW, 1)
    assert not apply(dict(run), take_due([FLOW.route], LATER, lease_of("w", "t", LATER, LATER), by=LATER))
    run = taken(run)
    assert (run["status"], run["lease"]["token"], "due_at" in run) == ("compensating", "token2", False)


def test_whoever_saw_a_run_before_its_compensation_was_claimed_is_too_late() -> None:
    entry = {"kind": "join", "fan": "f", "due_at": NOW}
    run = after(undone(), parking.park(undone(), {Place(1, undo=True): {"k": entry}}, NOW))
    late = [operating.nudge(run | {"due_at": LATER}, NOW, {"child": "c"}), operating.pause(run, NOW, reason="", by="")]
    held_again = taken(run)
    for change in late:
        assert change is not None
        assert not apply(dict(held_again), change)


def test_operators_do_not_interfere_with_it() -> None:
    assert operating.cancel(undone(), NOW, reason=None, by=None) is None
    for verb in (lambda: operating.retry(undone(), NOW), lambda: jumping.rewind(undone(), "s0", NOW)):
        with pytest.raises(IllegalTransition):
            verb()
    for status in ("compensated", "compensation_failed"):
        with pytest.raises(IllegalTransition):
            operating.retry(undone() | {"status": status}, NOW)


def test_one_that_cannot_be_driven_does_not_end_as_a_run_that_could_be_retried() -> None:
    run = after(undone(), stepping.quarantine(undone(), ERROR, NOW))
    assert run["status"] == "compensation_failed"
    with pytest.raises(IllegalTransition):
        operating.retry(run, NOW)


def test_a_rewound_run_can_be_undone_again() -> None:
    run = undone() | {"compensate_on": BOTH}
    for k in (1, 0):
        run = after(run, compensating.compensated(run, Place(k, undo=True), NOW, go_on=True))
    run = after(run, jumping.rewind(run, "s1", LATER))
    assert [step.get("compensation") for step in run["steps"]] == [None, None, None]
    assert [step["status"] for step in run["steps"]] == ["done", "pending", "pending"]
    run = taken(run)
    run = after(run, stepping.complete(run, Place(1), Encoded(2, 1), Ending(LATER)))
    run = after(run, failed(run))
    assert [step.get("compensation") for step in run["steps"]] == [{"status": "pending"}, {"status": "pending"}, None]
