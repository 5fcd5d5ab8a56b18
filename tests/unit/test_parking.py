"""Parking: what a run is left with when its handlers wait."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streamline.domain.change import apply
from streamline.domain.place import Place, here
from streamline.domain.run import read_waits
from streamline.domain.transitions import answering, operating, parking
from streamline.domain.transitions.answering import Reply, Target
from tests.conformance.documents import NOW, held
from tests.unit.played import LATER, after, group, opened, parked, taken, types, undone

SLEEP = {"kind": "sleep", "due_at": LATER}


def test_a_parked_run_is_nobodys_and_due_when_the_first_wait_is_over() -> None:
    soon = LATER - timedelta(minutes=1)
    run = parked(held("r"), a=SLEEP, b=opened("wait", due_at=soon))
    assert (run["status"], run["due_at"]) == ("waiting", soon)
    assert "lease" not in run
    assert run["steps"][0]["status"] == "waiting"
    assert run["steps"][0]["waits"] == ["a", "b"]
    assert types(run)[-1] == "run.waiting"
    assert run["events"][-1]["due_at"] == soon


def test_a_wait_without_an_end_leaves_no_due_time() -> None:
    run = parked(held("r"), k=opened("approval"))
    assert "due_at" not in run
    assert (run["waiting_since"], run["waiting_for"]) == (NOW, ["approval"])
    assert "hooks" not in run


def test_waking_is_not_another_attempt() -> None:
    run = parked(held("r"), k=SLEEP)
    assert run["attempt"] == 0
    assert run["steps"][0]["attempt"] == 1
    run = taken(run)
    assert run["attempt"] == 1
    run = parked(run, k=SLEEP)
    assert (run["attempt"], run["steps"][0]["attempt"]) == (0, 1)


def test_the_runs_own_end_comes_before_a_longer_wait() -> None:
    run = held("r") | {"deadline_at": LATER}
    assert parked(run, k=opened("wait"))["due_at"] == LATER
    assert parked(run, k=opened("wait", due_at=LATER + timedelta(days=1)))["due_at"] == LATER
    assert parked(run, k=opened("wait", due_at=NOW))["due_at"] == NOW


def test_a_run_that_is_undone_has_no_deadline_any_more() -> None:
    run = parked(undone() | {"deadline_at": LATER}, Place(1, undo=True), k=opened("wait"))
    assert "due_at" not in run
    assert run["status"] == "compensating"
    assert run["steps"][1]["compensation"]["status"] == "waiting"
    assert run["steps"][1]["compensation"]["memo"]["k"]["open"]
    assert run["steps"][1]["status"] == "done"


def test_hooks_can_be_found_by_what_is_stored_of_their_tokens() -> None:
    run = parked(held("r"), a=opened("hook", "a", hash="ha"), b=opened("hook", "b", hash="hb"))
    assert sorted(run["hooks"]) == ["ha", "hb"]
    run = parked(taken(run | {"due_at": LATER}), a=opened("hook", "a", hash="ha"), b=opened("hook", "b", hash="hb"))
    assert sorted(run["hooks"]) == ["ha", "hb"]


def test_what_was_stored_of_a_wait_stands() -> None:
    """A handler that is entered again asks at a later instant, and nothing of the first wait moves."""
    run = parked(held("r"), k=opened("wait", due_at=LATER))
    again = parked(taken(run), now=LATER, k=opened("wait", since=LATER, due_at=LATER + timedelta(days=9)))
    assert again["steps"][0]["memo"] == run["steps"][0]["memo"]
    assert again["waiting_since"] == NOW


def test_what_was_answered_while_the_handler_was_at_work_makes_the_run_due_at_once() -> None:
    run = taken(parked(held("r"), k=opened("wait"), s=SLEEP))
    run = after(run, answering.answer(run, Target(("wait",)), Reply("answered"), LATER))
    assert run["nudged"] is True
    run = parked(run, now=LATER, k=opened("wait"), s=SLEEP)
    assert run["due_at"] == LATER
    assert run["steps"][0]["memo"]["k"]["outcome"] == "answered"
    assert not run.keys() & {"nudged", "waiting_since", "waiting_for"}


def test_a_nudge_while_the_handler_was_at_work_makes_the_run_due_at_once() -> None:
    run = after(held("r"), operating.nudge(held("r"), NOW, {"child": "c"}))
    run = parked(run, join={"kind": "join", "fan": "f"})
    assert run["due_at"] == NOW
    assert "nudged" not in run
    assert "due_at" not in parked(taken(run), join={"kind": "join", "fan": "f"})


@pytest.mark.parametrize(
    ("event", "is_due"),
    [
        ({"name": "paid", "payload": {"id": 1}}, True),
        ({"name": "paid", "payload": {"id": 2}}, False),
        ({"name": "lost", "payload": {"id": 1}}, False),
        ({"name": "paid", "payload": None}, False),
    ],
)
def test_an_event_that_came_before_the_wait_makes_the_run_due_at_once(event: dict[str, Any], is_due: bool) -> None:
    run = held("r") | {"inbox": [{"id": "e1", "size": 1, "at": NOW, **event}]}
    run = parked(run, k=opened("event", name="paid", match={"id": 1}))
    assert run.get("due_at") == (NOW if is_due else None)
    assert len(run["inbox"]) == 1


def test_an_event_that_came_too_late_does_not_end_a_wait() -> None:
    event = {"id": "e", "name": "paid", "payload": 1, "size": 1, "at": NOW + timedelta(seconds=1)}
    entry = opened("event", name="paid", due_at=NOW)
    assert parking.waiting_event({"inbox": [event]}, entry) is None
    assert parking.waiting_event({"inbox": [event | {"at": NOW}]}, entry) is not None


def test_a_paused_run_keeps_its_due_time_with_the_pause() -> None:
    paused = after(held("r"), operating.pause(held("r"), NOW, reason=None, by=None))
    run = parked(paused, k=SLEEP)
    assert "due_at" not in run
    assert run["paused"]["due_at"] == LATER
    run = parked(paused, k=opened("wait"))
    assert "due_at" not in run["paused"]
    assert "due_at" not in after(run, operating.unpause(run, NOW))


def test_a_group_is_parked_as_one_and_due_with_the_first_of_its_waits_or_retries() -> None:
    run = group()
    waits = {Place(0): {"a": opened("wait", "a")}, Place(1): {"b": SLEEP}}
    alone = after(run, parking.park(run, waits, NOW))
    assert alone["due_at"] == LATER
    assert [step["status"] for step in alone["steps"]] == ["waiting", "waiting", "pending"]
    assert [event["step"] for event in alone["events"][-2:]] == ["s0", "s1"]
    run["steps"][1] |= {"status": "pending", "failures": 1, "due_at": NOW + timedelta(seconds=9)}
    others = (run["steps"][1]["due_at"],)
    mixed = after(run, parking.park(run, {Place(0): waits[Place(0)]}, NOW, others=others))
    assert mixed["due_at"] == others[0]
    assert [step["status"] for step in mixed["steps"]] == ["waiting", "pending", "pending"]


def test_a_parked_run_shows_what_it_waits_for_and_a_claimed_one_only_what_can_be_answered() -> None:
    run = parked(held("r"), a=SLEEP, b=opened("approval", "b", reason="why", data={"n": 1}, approvers=["ann"]))
    shown = {wait.key: wait for wait in read_waits(run)}
    assert shown.keys() == {"a", "b"}
    assert (shown["b"].reason, shown["b"].data, shown["b"].approvers) == ("why", {"n": 1}, ("ann",))
    assert not shown["a"].is_open
    assert [wait.key for wait in read_waits(taken(run))] == ["b"]


def test_no_token_and_no_hash_is_shown() -> None:
    run = parked(held("r"), a=opened("hook", hash="secret-hash", model="m"))
    assert "secret-hash" not in repr(read_waits(run))


def test_whoever_lost_the_lease_parks_nothing() -> None:
    run = held("r")
    change = parking.park(run, {here(run): {"k": SLEEP}}, NOW)
    for meanwhile in ({"lease": {"token": "other"}}, {"rev": 2}, {"cursor": 1}):
        assert not apply(run | meanwhile, change)
