"""What each transition does to a run, told by the executable model."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from streamline.domain.change import Change, apply
from streamline.domain.payloads import NO_VALUE, Encoded
from streamline.domain.place import here
from streamline.domain.run import read_run
from streamline.domain.statuses import TERMINAL
from streamline.domain.transitions import jumping, operating, parking, stepping
from streamline.domain.transitions.birth import Order, claimed, queued
from streamline.domain.transitions.claiming import lease_of, take_due, take_expired
from streamline.domain.transitions.patching import Patch, patched
from streamline.domain.transitions.stepping import Ending
from streamline.errors import AlreadyFinished, IllegalTransition
from tests.conformance.documents import FLOW, NOW, draft, held
from tests.unit.played import ERROR, LATER, after, stated, types

VALUE = Encoded({"$secret": "$$ROOT"}, 20)
DAY = {"done": 86_400.0, "failed": 86_400.0, "cancelled": 86_400.0}


def woken(run: dict[str, Any]) -> dict[str, Any]:
    lease = lease_of("w2", "token2", LATER, LATER + timedelta(seconds=30), "claimed")
    return after(run, take_due([FLOW.route], LATER, lease, by=LATER))


def asleep() -> dict[str, Any]:
    return after(held("r"), sleep(held("r"), "sleep#1"))


def sleep(run: dict[str, Any], address: str) -> Change:
    return parking.park(run, {here(run): {address: {"kind": "sleep", "due_at": LATER}}}, NOW)


def settle(run: dict[str, Any], address: str, *, size: int = 0) -> Change:
    entry = {"kind": "call", "output": 1, "size": size}
    put = {f"{here(run).at}.memo.{address}": entry}
    return patched(run, [Patch(here(run), put, weight=size, growth=size)], LATER)


def save(run: dict[str, Any], state: Encoded) -> Change:
    growth = state.size - run.get("state_size", 0)
    put = {"state": state.value, "state_size": state.size}
    return patched(run, [Patch(here(run), put, weight=state.size, growth=growth)], NOW)


def failed() -> dict[str, Any]:
    return after(held("r"), stepping.fail(held("r"), here(held("r")), ERROR, Ending(NOW)))


# Birth


def test_a_queued_run_is_a_draft_that_nobody_holds() -> None:
    order = Order("r", FLOW, {"n": 1}, 9, 3, "t", "k", ("a",), {"m": 1})
    run = queued(order, NOW, LATER)
    assert (run["status"], run["attempt"], run["due_at"]) == ("draft", 0, LATER)
    assert "lease" not in run
    assert (run["idempotency_key"], run["active_key"], run["tenant_id"]) == ("k", "k", "t")
    assert (run["route"], run["workflow"], run["version"]) == ("flow@1.0.0", "flow", "1.0.0")
    assert [(step["id"], step["status"]) for step in run["steps"]] == [
        ("s0", "pending"),
        ("s1", "pending"),
        ("s2", "pending"),
    ]
    assert types(run) == ["run.created"]
    assert (run["size"], run["priority"], run["tags"], run["metadata"]) == (9, 3, ["a"], {"m": 1})


def test_a_claimed_run_has_begun_its_first_step() -> None:
    lease = lease_of("w", "t", NOW, LATER)
    run = claimed(Order("r", FLOW, None), NOW, lease)
    assert (run["status"], run["attempt"], run["lease"]) == ("running", 1, lease)
    assert "due_at" not in run
    assert run["steps"][0] == {"id": "s0", "status": "running", "started_at": NOW}
    assert types(run) == ["run.created", "step.started"]
    assert run["event_seq"] == 2
    assert not run.keys() & {"idempotency_key", "active_key", "tags", "metadata", "retention"}


# Claims


def test_a_claim_counts_the_attempt_and_leaves_its_news_in_the_lease() -> None:
    run = woken(draft("r"))
    assert (run["status"], run["attempt"], run["started_at"]) == ("running", 1, LATER)
    assert "due_at" not in run
    assert run["lease"]["news"] == "claimed"
    run = after(run, stepping.complete(run, here(run), NO_VALUE, Ending(LATER)))
    assert types(run) == ["run.created", "step.started", "step.done", "step.started"]
    assert "news" not in run["lease"]
    assert run["steps"][0]["started_at"] == LATER


def test_a_second_claim_keeps_the_first_start() -> None:
    run = asleep()
    assert run["started_at"] == NOW
    assert woken(run)["started_at"] == NOW


@pytest.mark.parametrize(
    "obstacle",
    [
        {"route": "other@1.0.0"},
        {"status": "running"},
        {"status": "done"},
        {"due_at": LATER + timedelta(milliseconds=1)},
        {"due_at": None},
        {"lease": {"token": "x"}},
        {"paused": {"at": NOW}},
    ],
    ids=repr,
)
def test_a_run_that_is_not_up_for_taking_is_not_taken(obstacle: dict[str, Any]) -> None:
    change = take_due([FLOW.route], LATER, lease_of("w", "t", LATER, LATER), by=LATER)
    assert not apply(draft("r") | obstacle, change)


def test_a_recovery_is_counted_and_told_of() -> None:
    lease = lease_of("w2", "t2", LATER, LATER + timedelta(seconds=30), "recovered")
    run = after(held("r", until=LATER), take_expired([FLOW.route], LATER, lease))
    assert (run["attempt"], run["recovery_count"]) == (2, 1)
    run = after(run, stepping.complete(run, here(run), NO_VALUE, Ending(LATER)))
    assert types(run)[1:4] == ["run.recovered", "step.started", "step.done"]
    assert run["events"][1]["recovery_count"] == 1
    assert run["events"][2]["attempt"] == 2


# Steps


def test_completing_a_step_begins_the_next_in_the_same_change() -> None:
    run = after(held("r"), stepping.complete(held("r"), here(held("r")), VALUE, Ending(LATER)))
    assert (run["status"], run["cursor"], run["attempt"]) == ("running", 1, 1)
    assert run["steps"][0]["output"] == VALUE.value
    assert (run["steps"][0]["status"], run["steps"][0]["ended_at"], run["steps"][0]["attempt"]) == ("done", LATER, 1)
    assert (run["steps"][1]["status"], run["steps"][1]["started_at"]) == ("running", LATER)
    assert "lease" in run
    assert "output" not in run
    assert types(run)[-2:] == ["step.done", "step.started"]


def test_completing_the_last_step_ends_the_run_in_the_same_change() -> None:
    run = held("r", idempotency_key="k") | {"retention": DAY}
    for _ in range(2):
        run = after(run, stepping.complete(run, here(run), NO_VALUE, Ending(NOW)))
    run = after(run, stepping.complete(run, here(run), VALUE, Ending(LATER, state=stated({"s": 1}))))
    assert (run["status"], run["output"], run["ended_at"], run["state"]) == ("done", VALUE.value, LATER, {"s": 1})
    assert run["expire_at"] == LATER + timedelta(days=1)
    assert not run.keys() & {"lease", "due_at", "active_key", "paused", "error"}
    assert types(run)[-2:] == ["step.done", "run.done"]


def test_a_worker_that_stops_lets_go_with_the_same_change() -> None:
    run = after(held("r"), stepping.complete(held("r"), here(held("r")), NO_VALUE, Ending(LATER, go_on=False)))
    assert (run["status"], run["due_at"], run["cursor"], run["attempt"]) == ("waiting", LATER, 1, 0)
    assert run["steps"][1]["status"] == "pending"
    assert "lease" not in run


def test_completing_clears_what_the_step_had_to_remember() -> None:
    run = asleep()
    run = woken(run)
    run = after(run, settle(run, "k", size=100))
    assert run["size"] == 100
    run["steps"][0]["error"] = ERROR
    run = after(run, stepping.complete(run, here(run), NO_VALUE, Ending(LATER)))
    assert run["steps"][0].keys() == {"id", "status", "attempt", "output", "started_at", "ended_at"}
    assert run["size"] == 0


def test_skipping_goes_on_without_an_output() -> None:
    run = after(held("r"), stepping.skip(held("r"), here(held("r")), Ending(LATER)))
    assert (run["cursor"], run["steps"][0]["status"]) == (1, "skipped")
    assert not run["steps"][0].keys() & {"output", "error"}
    run = after(held("r"), stepping.skip(held("r"), here(held("r")), Ending(LATER), ERROR))
    assert run["steps"][0]["error"] == ERROR
    assert run["events"][-2]["error"] == ERROR


def test_failing_ends_the_step_and_the_run_with_the_same_error() -> None:
    start = held("r", idempotency_key="k") | {"retention": DAY}
    run = after(start, stepping.fail(start, here(start), ERROR, Ending(LATER)))
    assert (run["status"], run["ended_at"], run["error"]) == ("failed", LATER, ERROR)
    assert run["expire_at"] == LATER + timedelta(days=1)
    assert (run["steps"][0]["status"], run["steps"][0]["error"]) == ("failed", ERROR)
    assert [step["status"] for step in run["steps"][1:]] == ["pending", "pending"]
    assert not run.keys() & {"lease", "due_at", "active_key", "paused", "output"}
    assert types(run)[-2:] == ["step.failed", "run.failed"]


def test_trying_again_parks_the_run_and_counts_the_failure() -> None:
    run = after(held("r"), stepping.try_again(held("r"), here(held("r")), ERROR, LATER, NOW))
    assert (run["status"], run["due_at"], run["attempt"]) == ("waiting", LATER, 1)
    assert (run["steps"][0]["status"], run["steps"][0]["failures"], run["steps"][0]["error"]) == ("pending", 1, ERROR)
    assert "lease" not in run
    run = woken(run)
    assert run["attempt"] == 2
    run = after(run, stepping.try_again(run, here(run), ERROR, LATER, LATER))
    assert run["steps"][0]["failures"] == 2


def test_sleeping_parks_the_run_and_waking_is_not_another_attempt() -> None:
    run = asleep()
    assert (run["status"], run["due_at"], run["attempt"]) == ("waiting", LATER, 0)
    assert run["steps"][0]["waits"] == ["sleep#1"]
    assert [(wait.kind, wait.key, wait.due_at) for wait in read_run(run, None).waits] == [("sleep", "sleep#1", LATER)]
    assert run["steps"][0]["memo"]["sleep#1"] == {"kind": "sleep", "due_at": LATER}
    run = woken(run)
    assert run["attempt"] == 1
    run = after(run, stepping.complete(run, here(run), NO_VALUE, Ending(LATER)))
    assert "step.resumed" in types(run)
    assert run["steps"][0]["started_at"] == NOW


def test_saving_replaces_the_state() -> None:
    run = after(held("r"), save(held("r"), Encoded({"a": 1}, 1000)))
    assert (run["state"], run["size"], run["status"]) == ({"a": 1}, 1000, "running")
    run = after(run, save(run, Encoded({"b": 1}, 400)))
    assert (run["state"], run["size"]) == ({"b": 1}, 400)


def test_releasing_hands_the_run_on_without_counting_the_attempt() -> None:
    run = after(held("r"), stepping.release(held("r"), LATER))
    assert (run["status"], run["due_at"], run["attempt"]) == ("waiting", LATER, 0)
    assert run["steps"][0]["status"] == "pending"
    assert "lease" not in run
    assert types(run)[-1] == "run.released"


def test_a_damaged_run_is_failed_by_its_lease_alone() -> None:
    damaged = {"_id": "r", "status": "running", "lease": {"token": "t"}, "rev": "one", "steps": None}
    run = after(damaged, stepping.quarantine(damaged, ERROR, LATER))
    assert (run["status"], run["error"], run["ended_at"]) == ("failed", ERROR, LATER)
    assert "lease" not in run


DRIVEN: list[Callable[[dict[str, Any]], Change]] = [
    lambda run: stepping.complete(run, here(run), VALUE, Ending(NOW)),
    lambda run: stepping.skip(run, here(run), Ending(NOW)),
    lambda run: stepping.fail(run, here(run), ERROR, Ending(NOW)),
    lambda run: stepping.try_again(run, here(run), ERROR, LATER, NOW),
    lambda run: sleep(run, "k"),
    lambda run: patched(run, [Patch(here(run), {"steps.0.memo.k": {"kind": "call", "output": 1}})], NOW),
    lambda run: save(run, VALUE),
    lambda run: stepping.release(run, NOW),
    lambda run: stepping.give_up(run, ERROR, Ending(NOW), "run.timed_out"),
    lambda run: stepping.record_failure(run, here(run), ERROR, LATER, NOW),
    lambda run: jumping.jump(run, here(run), "s0", Ending(NOW)),
    lambda run: jumping.jump(run, here(run), "s2", Ending(NOW)),
]


@pytest.mark.parametrize("make", DRIVEN)
@pytest.mark.parametrize(
    "meanwhile",
    [
        {"lease": {"token": "other", "worker": "w"}},
        {"rev": 2},
        {"cursor": 1},
        {"steps": [{"id": "other", "status": "running"}]},
    ],
    ids=repr,
)
def test_whoever_drives_a_run_is_fenced_off_by_whatever_happened_meanwhile(
    make: Callable[[dict[str, Any]], Change], meanwhile: dict[str, Any]
) -> None:
    run = held("r")
    assert not apply(run | meanwhile, make(run))


@pytest.mark.parametrize("make", DRIVEN)
def test_every_change_moves_the_revision_by_one_and_stamps_the_time(make: Callable[[dict[str, Any]], Change]) -> None:
    run = after(held("r"), make(held("r")))
    assert (run["rev"], run["updated_at"]) == (2, NOW)
    assert [event["seq"] for event in run["events"]] == list(range(1, run["event_seq"] + 1))


@pytest.mark.parametrize("make", DRIVEN)
def test_a_run_shows_a_wait_only_while_it_waits(make: Callable[[dict[str, Any]], Change]) -> None:
    run = woken(asleep())
    run = after(run, make(run))
    shown = read_run(run, None).waits
    assert [wait.key for wait in shown] == (
        ["k"] if run["status"] == "waiting" and run["steps"][0]["status"] == "waiting" else []
    )


# Operators


def test_cancelling_ends_the_run_and_fences_its_driver_off() -> None:
    start = held("r", idempotency_key="k") | {"retention": DAY}
    run = after(start, operating.cancel(start, LATER, reason="why", by="ann"))
    assert (run["status"], run["ended_at"]) == ("cancelled", LATER)
    assert run["cancel"] == {"at": LATER, "reason": "why", "by": "ann"}
    assert run["error"] == {
        "code": "run.cancelled",
        "type": "RunCancelled",
        "message": "why",
        "step": "s0",
        "attempt": 1,
    }
    assert run["expire_at"] == LATER + timedelta(days=1)
    assert run["steps"][0]["status"] == "pending"
    assert not run.keys() & {"lease", "due_at", "active_key", "paused"}
    for make in DRIVEN:
        assert not apply(run, make(start))


@pytest.mark.parametrize("make", [lambda: draft("r"), asleep], ids=["draft", "asleep"])
def test_a_cancelled_run_waits_for_nothing(make: Callable[[], dict[str, Any]]) -> None:
    run = after(make(), operating.cancel(make(), LATER, reason=None, by=None))
    assert run["cancel"] == {"at": LATER}
    assert read_run(run, FLOW).waits == ()
    assert "due_at" not in run


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_a_run_that_has_ended_is_left_alone(status: str) -> None:
    run = draft("r") | {"status": status}
    assert operating.cancel(run, NOW, reason=None, by=None) is None
    for verb in (lambda: operating.pause(run, NOW, reason=None, by=None), lambda: operating.unpause(run, NOW)):
        with pytest.raises(AlreadyFinished):
            verb()


@pytest.mark.parametrize("status", ["draft", "running", "waiting", "done", "compensating", "compensated"])
def test_only_a_failed_or_cancelled_run_can_be_retried(status: str) -> None:
    with pytest.raises(IllegalTransition) as caught:
        operating.retry(draft("r") | {"status": status}, NOW)
    assert caught.value.field == "status"
    assert status in str(caught.value)


def test_retrying_begins_the_failed_step_afresh() -> None:
    run = failed() | {"idempotency_key": "k", "recovery_count": 3, "expire_at": LATER + timedelta(days=1)}
    run["steps"][0] |= {"failures": 3, "memo": {"k": {"kind": "call", "output": 1}}}
    run = after(run, operating.retry(run, LATER))
    assert (run["status"], run["due_at"], run["attempt"], run["recovery_count"]) == ("waiting", LATER, 0, 0)
    assert (run["active_key"], run["live"]) == ("k", True)
    assert not run.keys() & {"error", "ended_at", "expire_at", "cancel"}
    assert (run["steps"][0]["status"], run["steps"][0]["failures"]) == ("pending", 0)
    assert not run["steps"][0].keys() & {"error", "ended_at", "waits"}
    assert run["steps"][0]["memo"] == {"k": {"kind": "call", "output": 1}}
    assert "active_key" not in after(failed(), operating.retry(failed(), LATER))


def test_pausing_keeps_the_due_time_for_later() -> None:
    run = after(asleep(), operating.pause(asleep(), NOW, reason="why", by="ann"))
    assert run["paused"] == {"at": NOW, "reason": "why", "by": "ann", "due_at": LATER}
    assert "due_at" not in run
    assert operating.pause(run, NOW, reason="again", by=None) is None
    run = after(run, operating.unpause(run, NOW))
    assert (run["due_at"], run["status"]) == (LATER, "waiting")
    assert "paused" not in run
    assert operating.unpause(run, NOW) is None


def test_pausing_a_run_at_work_leaves_its_driver_in_place() -> None:
    run = after(held("r"), operating.pause(held("r"), NOW, reason=None, by=None))
    assert (run["status"], run["paused"]) == ("running", {"at": NOW})
    assert run["lease"] == held("r")["lease"]
    for make, due_at in ((DRIVEN[0], NOW), (DRIVEN[3], LATER), (DRIVEN[4], LATER), (DRIVEN[7], NOW)):
        parked = after(run, make(run))
        assert (parked["status"], parked["paused"]["due_at"]) == ("waiting", due_at)
        assert not parked.keys() & {"due_at", "lease"}
        assert after(parked, operating.unpause(parked, NOW))["due_at"] == due_at
