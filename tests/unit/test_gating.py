"""A run before its gates: how it is put in line, called up, put off, admitted, bumped; each guarded, each once."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streamline import Concurrency, Context, Debounce, Throttle, Workflow
from streamline.domain.change import Absent, Change, apply
from streamline.domain.gates import gate_of
from streamline.domain.heard import HEARD_MAX, has_heard
from streamline.domain.transitions import gating, operating
from streamline.domain.transitions.birth import Order, claimed, debounced, in_line, queued
from streamline.domain.transitions.claiming import take_admitted

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
LEASE = {"worker": "w", "token": "t", "at": NOW, "until": LATER}


def order(**options: Any) -> Order:
    wf: Workflow[Any, Any, Any] = Workflow(
        "gated", concurrency=Concurrency(1), throttle=Throttle(1, "1m"), debounce=Debounce("1m")
    )

    @wf.step
    async def only(ctx: Context[Any]) -> None: ...

    gate = gate_of(wf.definition, 1, None)
    return Order(**{"run_id": "r", "definition": wf.definition, "input": 1, "gate": gate, **options})


def applied(run: dict[str, Any], change: Change) -> dict[str, Any]:
    after = copy.deepcopy(run)
    assert apply(after, change)
    assert not apply(copy.deepcopy(after), change), "a second one has an effect"
    return after


def numbers(run: dict[str, Any]) -> list[int]:
    return [event["seq"] for event in run["events"]]


def test_a_new_run_in_line_is_not_due() -> None:
    run = in_line(order(), NOW)
    assert (run["status"], run["queued_at"]) == ("draft", NOW)
    assert not run.keys() & {"due_at", "slot", "debounce_key", "admitted_at"}
    assert gating.is_to_be_admitted(run)
    assert gating.is_up(run, NOW)
    assert not gating.is_in_the_way(run, NOW)


def test_it_comes_up_where_its_time_is_over() -> None:
    assert in_line(order(start_by=LATER), NOW)["due_at"] == LATER
    assert in_line(order(deadline_at=LATER), NOW)["due_at"] == LATER
    both = in_line(order(start_by=LATER, deadline_at=LATER - timedelta(minutes=1)), NOW)
    assert both["due_at"] == LATER - timedelta(minutes=1)
    assert not gating.is_in_the_way(both, NOW)
    assert gating.is_in_the_way(both, LATER)


def test_a_due_run_is_put_in_line() -> None:
    run = queued(order(), NOW, NOW)
    after = applied(run, gating.put_in_line(run, NOW))
    assert after["queued_at"] == NOW
    assert "due_at" not in after
    assert numbers(after) == [1, 2]
    assert after["rev"] == run["rev"] + 1


def test_who_is_put_in_line_again_keeps_its_place() -> None:
    run = in_line(order(), NOW) | {"due_at": NOW}
    after = applied(run, gating.put_in_line(run, LATER))
    assert after["queued_at"] == NOW
    assert "due_at" not in after


def test_one_that_has_its_slot_is_called_up() -> None:
    run = in_line(order(), NOW)
    after = applied(run, gating.call_up(run, LATER))
    assert after["due_at"] == LATER
    assert "queued_at" not in after


@pytest.mark.parametrize("held", [{"slot": 3}, {"queued_at": NOW}, {"debounce_key": "k"}, {}])
def test_one_that_is_put_off_holds_nothing(held: dict[str, Any]) -> None:
    run = queued(order(), NOW, NOW) | held
    after = applied(run, gating.put_off(run, LATER, NOW))
    assert after["due_at"] == LATER
    assert not after.keys() & {"slot", "queued_at", "debounce_key"}
    assert after["events"][-1] == {"seq": 2, "type": "run.throttled", "at": NOW, "due_at": LATER}


@pytest.mark.parametrize("slot", [0, 5, None])
def test_a_run_is_admitted_with_its_slot(slot: int | None) -> None:
    run = debounced(order(), NOW, NOW, None)
    after = applied(run, gating.admit(run, LATER, LEASE, slot=slot, begun_at=NOW))
    assert (after["status"], after.get("slot"), after["attempt"]) == ("running", slot, 1)
    assert (after["admitted_at"], after["started_at"], after["lease"]) == (NOW, NOW, LEASE)
    assert not after.keys() & {"due_at", "queued_at", "debounce_key"}
    assert not gating.is_to_be_admitted(after)


def test_a_run_that_is_undone_is_admitted_as_such() -> None:
    run = in_line(order(), NOW) | {"status": "compensating"}
    after = applied(run, gating.admit(run, LATER, LEASE, slot=0, begun_at=NOW))
    assert (after["status"], after["slot"]) == ("compensating", 0)
    assert "started_at" not in after


@pytest.mark.parametrize(
    "meanwhile",
    [
        {"slot": 1},
        {"status": "cancelled"},
        {"lease": {"token": "another"}},
        {"paused": {"at": NOW}},
        {"admitted_at": NOW},
        {"attempt": "many"},
    ],
)
def test_a_run_that_has_changed_meanwhile_is_not_admitted(meanwhile: dict[str, Any]) -> None:
    run = queued(order(), NOW, NOW)
    change = gating.admit(run, NOW, LEASE, slot=0, begun_at=NOW)
    assert not apply(copy.deepcopy(run) | meanwhile, change)


def test_a_draft_that_was_bumped_meanwhile_is_not_admitted() -> None:
    run = debounced(order(), NOW, NOW, None)
    change = gating.admit(run, NOW, LEASE, slot=0, begun_at=NOW)
    assert not apply(copy.deepcopy(run) | {"rev": 7}, change)


@pytest.mark.parametrize(
    "wait", [lambda run: gating.put_off(run, LATER, NOW), lambda run: gating.put_in_line(run, NOW)]
)
def test_who_has_a_slot_and_a_turn_is_admitted_although_others_saw_none_left(wait: Any) -> None:
    run = queued(order(), NOW, NOW)
    change = gating.admit(run, NOW, LEASE, slot=0, begun_at=NOW)
    waiting = applied(run, wait(run))
    assert apply(waiting, change)
    assert not waiting.keys() & {"due_at", "queued_at"}


@pytest.mark.parametrize("name", ["put_in_line", "call_up", "put_off", "bump"])
def test_what_lets_a_run_wait_is_guarded_by_what_was_read(name: str) -> None:
    run = in_line(order(), NOW)
    change = {
        "put_in_line": gating.put_in_line(run, NOW),
        "call_up": gating.call_up(run, NOW),
        "put_off": gating.put_off(run, LATER, NOW),
        "bump": gating.bump(run, order(), NOW, LATER),
    }[name]
    for meanwhile in ({"rev": 2}, {"status": "cancelled"}):
        assert not apply(copy.deepcopy(run) | meanwhile, change)


def test_who_may_not_be_admitted() -> None:
    run = queued(order(), NOW, NOW)
    assert gating.is_up(run, NOW)
    assert not gating.is_up(run | {"due_at": LATER}, NOW)
    assert not gating.is_up(run | {"lease": LEASE}, NOW)
    assert not gating.is_up(run | {"paused": {"at": NOW}}, NOW)
    assert not gating.is_up(run | {"admitted_at": NOW}, NOW)
    assert not gating.is_up({name: run[name] for name in run if name not in ("gated", "due_at")}, NOW)


def test_a_bump_gives_the_draft_all_of_the_last_start() -> None:
    first = order(tags=("a",), metadata={"by": "one"}, start_by=LATER, deadline_at=LATER, priority=1, weight=10)
    run = debounced(first, NOW, NOW + timedelta(minutes=1), None)
    second = replace(order(tags=("b",), priority=2, weight=3), input=2)
    after = applied(run, gating.bump(run, second, NOW, LATER))
    assert (after["input"], after["due_at"], after["priority"]) == (2, LATER, 2)
    assert (after["tags"], after["size"]) == (["b"], 3)
    assert not after.keys() & {"metadata", "start_by", "deadline_at"}
    assert after["debounce_key"] == run["debounce_key"]


def test_a_bump_leaves_an_event_that_a_start_brings_to_whoever_sends_it() -> None:
    event = {"id": "e", "name": "go", "payload": 1, "size": 1, "at": NOW}
    run = debounced(order(inbox=(event,)), NOW, NOW, None)
    assert applied(run, gating.bump(run, order(inbox=(event | {"id": "f"},)), NOW, LATER))["inbox"] == [event]


def test_a_draft_that_events_bump_without_end_remembers_only_the_last_of_them() -> None:
    def started_by(n: int) -> Order:
        return order(started_by={"id": f"e{n:03}", "name": "go", "at": NOW + timedelta(seconds=n)})

    run = debounced(started_by(0), NOW, NOW, None)
    for n in range(1, HEARD_MAX + 50):
        seen = {name: run[name] for name in gating.SEEN if name in run}
        assert apply(run, gating.bump(seen, started_by(n), NOW, LATER))
    assert len(run["heard"]) == HEARD_MAX
    assert has_heard(run, {"id": "e010", "name": "go", "at": NOW + timedelta(seconds=10)})


def test_a_bump_does_not_put_a_draft_off_for_ever() -> None:
    run = debounced(order(), NOW, NOW, NOW + timedelta(minutes=2))
    assert applied(run, gating.bump(run, order(), NOW, LATER))["due_at"] == NOW + timedelta(minutes=2)


def test_a_bump_of_a_paused_draft_does_not_wake_it() -> None:
    run = debounced(order(), NOW, NOW, None)
    paused = applied(run, operating.pause(run, NOW, reason=None, by=None) or Change({}))
    after = applied(paused, gating.bump(paused, order(), NOW, LATER))
    assert "due_at" not in after
    assert after["paused"]["due_at"] == LATER


def test_a_run_that_begins_at_birth_has_passed_its_gates() -> None:
    run = claimed(order(), NOW, LEASE, 2)
    assert (run["slot"], run["admitted_at"]) == (2, NOW)
    assert not gating.is_to_be_admitted(run)


def test_a_run_without_gates_has_nothing_to_pass() -> None:
    run = queued(order(gate={}), NOW, NOW)
    assert not gating.is_to_be_admitted(run)
    assert "admitted_at" not in claimed(order(gate={}), NOW, LEASE)


def test_a_later_claim_asks_whether_the_run_was_admitted() -> None:
    guard = take_admitted(("gated@1.0.0",), NOW, LEASE, by=NOW).guard
    assert guard["admitted_at"] != Absent()
    run = queued(order(), NOW, NOW)
    assert not apply(run, take_admitted((run["route"],), NOW, LEASE, by=NOW))


@pytest.mark.parametrize("end", ["cancel"])
def test_a_run_that_ends_in_line_leaves_it(end: str) -> None:
    run = in_line(order(start_by=LATER), NOW)
    after = applied(run, operating.cancel(run, NOW, reason=None, by=None) or Change({}))
    assert not after.keys() & {"queued_at", "due_at", "slot"}


@pytest.mark.parametrize("missing", ["rev", "event_seq", "workflow", "version", "route"])
def test_a_damaged_run_is_told(missing: str) -> None:
    run = in_line(order(), NOW)
    assert gating.is_sound(run)
    assert not gating.is_sound({name: run[name] for name in run if name != missing})
    assert not gating.is_sound(run | {"slot_key": 5})
