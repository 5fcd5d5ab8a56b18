"""Carrying a run over to another version: what it keeps, where it stands, when it is looked at, and what stops it."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

import pytest

from streamline import Workflow
from streamline.domain.change import apply
from streamline.domain.payloads import Encoded
from streamline.domain.place import Place, here
from streamline.domain.transitions import gating, operating, stepping
from streamline.domain.transitions.claiming import lease_of
from streamline.domain.transitions.migrating import Carried, migrate
from streamline.domain.transitions.stepping import Ending
from streamline.errors import IllegalTransition, StepNotFound
from tests.conformance.documents import NOW, definition_of, draft, held
from tests.unit.played import LATER, after, group, opened, parked, types, undone


def version_of(*steps: str, groups: dict[str, str] | None = None) -> Any:
    wf: Workflow[Any, Any, Any] = Workflow("flow", version="2.0.0")
    for name in steps:
        wf.step(name, group=(groups or {}).get(name))(_nothing)
    return wf.definition


async def _nothing(ctx: Any) -> None: ...


LONGER = version_of("s0", "s1", "between", "s2")
SAME = definition_of(version="2.0.0")


def carried(run: dict[str, Any], definition: Any = SAME, now: Any = LATER, **how: Any) -> dict[str, Any]:
    return after(run, migrate(run, Carried(definition, how.pop("renamed", {}), **how), now))


def second() -> dict[str, Any]:
    """A run whose first step is done, and that waits in its second."""
    run = held("r")
    run = after(run, stepping.complete(run, here(run), Encoded("one", 3), Ending(NOW)))
    return parked(run, k=opened("wait", "k"))


def statuses(run: dict[str, Any]) -> list[tuple[str, str]]:
    return [(step["id"], step["status"]) for step in run["steps"]]


def test_a_run_goes_on_where_it_stands_with_what_it_has_settled() -> None:
    before = second()
    run = carried(before, LONGER)
    assert (run["version"], run["route"], run["cursor"]) == ("2.0.0", "flow@2.0.0", 1)
    assert statuses(run) == [("s0", "done"), ("s1", "waiting"), ("between", "pending"), ("s2", "pending")]
    assert run["steps"][0]["output"] == "one"
    assert run["steps"][1]["memo"] == before["steps"][1]["memo"]
    for kept in ("waiting_since", "waiting_for", "input", "created_at", "tenant_id", "priority"):
        assert run.get(kept) == before.get(kept)
    assert run["rev"] == before["rev"] + 1
    assert (types(run)[-1], run["events"][-1]["from"], run["events"][-1]["to"]) == ("run.migrated", "1.0.0", "2.0.0")
    assert run["events"][-1]["step"] == "s1"


def test_a_step_that_is_new_before_where_it_stands_is_skipped() -> None:
    run = carried(second(), version_of("s0", "early", "s1", "s2"))
    assert statuses(run) == [("s0", "done"), ("early", "skipped"), ("s1", "waiting"), ("s2", "pending")]
    assert (run["cursor"], run["steps"][1]["ended_at"]) == (2, LATER)


def test_a_step_may_have_another_id() -> None:
    run = carried(second(), version_of("s0", "asked", "s2"), renamed={"asked": "s1"})
    assert statuses(run) == [("s0", "done"), ("asked", "waiting"), ("s2", "pending")]
    assert run["steps"][1]["memo"]["k"]["open"]


def test_where_its_step_is_gone_somebody_has_to_say_where_it_goes_on() -> None:
    run, shorter = second(), version_of("s0", "s2")
    with pytest.raises(IllegalTransition) as refused:
        migrate(run, Carried(shorter, {}), LATER)
    assert refused.value.field == "step"
    with pytest.raises(StepNotFound):
        migrate(run, Carried(shorter, {}, "s1"), LATER)
    run = carried(run, shorter, step="s2")
    assert statuses(run) == [("s0", "done"), ("s2", "pending")]
    assert (run["cursor"], run["due_at"]) == (1, LATER)
    assert not run.keys() & {"waiting_since", "waiting_for"}


def test_a_step_to_go_on_at_begins_anew_and_so_do_those_behind_it() -> None:
    run = carried(second(), LONGER, step="s0")
    assert statuses(run) == [("s0", "pending"), ("s1", "pending"), ("between", "pending"), ("s2", "pending")]
    assert (run["cursor"], run["due_at"]) == (0, LATER)
    assert not any("memo" in step or "output" in step for step in run["steps"])
    assert run["steps"][0]["generation"] > 0


def test_its_state_and_input_may_change() -> None:
    run = carried(second(), state=Encoded({"n": 1}, 7), input=Encoded({"m": 2}, 8))
    assert (run["state"], run["state_size"], run["input"]) == ({"n": 1}, 7, {"m": 2})


def test_when_it_is_due_stays() -> None:
    run = parked(held("r"), k={"kind": "sleep", "key": "k", "due_at": NOW + timedelta(hours=1)})
    assert carried(run)["due_at"] == run["due_at"] == NOW + timedelta(hours=1)
    assert carried(draft("d"))["due_at"] == draft("d")["due_at"]


def test_a_paused_run_stays_paused() -> None:
    run = second()
    run = after(run, operating.pause(run, NOW, reason=None, by=None))
    over = carried(run, step="s1")
    assert over["paused"]["due_at"] == LATER
    assert "due_at" not in over


def test_a_run_in_line_is_not_let_in_by_it() -> None:
    run = draft("r") | {"slot_key": "flow/-/", "queued_at": NOW, "gated": True, "status": "draft"}
    del run["due_at"]
    over = carried(run, step="s0")
    assert (over["status"], over["queued_at"]) == ("draft", NOW)
    assert "due_at" not in over


def test_a_run_that_somebody_drives_is_left_and_one_that_was_left_behind_is_taken() -> None:
    run = held("r")
    change = migrate(run, Carried(SAME, {}), NOW)
    assert not apply(copy.deepcopy(run), change)
    over = carried(run, now=run["lease"]["until"])
    assert (over["status"], over["due_at"]) == ("waiting", run["lease"]["until"])
    assert "lease" not in over


def test_of_a_claim_and_a_migration_one_wins() -> None:
    run = draft("r")
    change = migrate(run, Carried(SAME, {}), LATER)
    taken = {**copy.deepcopy(run), "status": "running", "lease": held("r")["lease"]}
    assert not apply(taken, change)


def test_a_worker_of_the_old_version_does_not_let_a_run_in_that_was_carried_over() -> None:
    seen = draft("r") | {"slot_key": "flow/-/", "queued_at": NOW, "gated": True}
    del seen["due_at"]
    lease = lease_of("old", "token", LATER, LATER + timedelta(seconds=30), "claimed")
    change = gating.admit(seen, LATER, lease, slot=0, begun_at=LATER)
    assert apply(copy.deepcopy(seen), change)
    assert not apply(carried(seen), change)


def test_a_group_goes_over_with_what_its_members_have_done() -> None:
    run = group()
    run["steps"][0] |= {"status": "done", "output": 1, "ended_at": NOW}
    run = run | {"lease": {**run["lease"], "until": NOW}}
    over = carried(run, version_of("s0", "s1", "s2", groups={"s0": "g", "s1": "g"}))
    assert over["cursor"] == 0
    assert over["steps"][0]["output"] == 1
    assert over["steps"][1]["status"] != "done"


def test_children_keep_a_step_under_its_id() -> None:
    run = second()
    run["steps"][1]["memo"]["c"] = {"kind": "child", "fan": "s1.0", "key": "c"}
    with pytest.raises(IllegalTransition) as refused:
        migrate(run, Carried(version_of("s0", "asked", "s2"), {"asked": "s1"}), LATER)
    assert refused.value.field == "steps"
    assert carried(run, LONGER)["steps"][1]["memo"]["c"]["fan"] == "s1.0"


def test_a_run_that_is_being_undone_goes_on_undoing() -> None:
    run = undone() | {"lease": {**held("r")["lease"], "until": NOW}}
    over = carried(run)
    assert (over["status"], over["due_at"]) == ("compensating", LATER)
    assert [step.get("compensation") for step in over["steps"]] == [step.get("compensation") for step in run["steps"]]


def test_what_it_waits_for_is_found_by_events_and_hooks_as_before() -> None:
    run = parked(held("r"), k=opened("event", "k", name="paid"), h=opened("hook", "h", hash="abc"))
    over = carried(run)
    assert (over["listens"], over["hooks"]) == (["paid"], ["abc"])
    assert Place(0).memo(over).keys() == {"k", "h"}
    assert not carried(run, step="s1").keys() & {"listens", "hooks", "waiting_since"}
