"""Whatever drivers, operators and people do to a run, in whatever order: what it is left with makes sense.

Random walks through the transitions are played on mongod and on the model. A failure names the seed that repeats it.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import pytest

from streamline.domain.change import Change, apply
from streamline.domain.place import ENDED, members, next_undo
from streamline.domain.statuses import ERRED, NEXT, RUN_STATUSES, TERMINAL
from streamline.store.driver import Driver
from tests.property.twins import Twins
from tests.property.walks import Walk

TOGETHER, ROUNDS = 60, 40
LET_GO = {
    "live",
    "lease",
    "due_at",
    "active_key",
    "paused",
    "hooks",
    "waiting_since",
    "waiting_for",
    "listens",
    "nudged",
}


@pytest.mark.parametrize("seed", range(4))
async def test_random_walks_do_the_same_to_the_database_and_to_the_model(wire: Driver, seed: int) -> None:
    twins = Twins(wire, seed)
    walks = {f"r{i}": Walk(random.Random(f"{seed}/{i}"), f"r{i}") for i in range(TOGETHER)}
    await twins.begin([walk.run for walk in walks.values()])
    matched, reached = 0, set()
    for _ in range(ROUNDS):
        changes = {run_id: walk.next_change(copy.deepcopy(twins.model[run_id])) for run_id, walk in walks.items()}
        before = copy.deepcopy(twins.model)
        for run_id, took_effect in (await twins.play(changes)).items():
            after = twins.model[run_id]
            matched += took_effect
            reached.add(after["status"])
            if took_effect:
                try:
                    check(before[run_id], after, changes[run_id])
                except AssertionError as error:
                    raise AssertionError(f"{error}\n{twins.told('', {run_id: changes[run_id]}, before)}") from error
    assert reached == set(RUN_STATUSES)
    assert matched > TOGETHER * ROUNDS / 3


def check(before: dict[str, Any], after: dict[str, Any], change: Change) -> None:
    status = after["status"]
    assert status == before["status"] or status in NEXT[before["status"]], f"{before['status']} -> {status}"
    assert after["attempt"] >= 0
    assert 0 <= after["cursor"] < len(after["steps"])
    assert after["size"] >= 0
    # Failed runs are found by it.
    assert bool((after.get("error") or {}).get("code")) == (status in ERRED)
    numbers = [event["seq"] for event in after["events"]]
    assert numbers == list(range(after["event_seq"] - len(numbers) + 1, after["event_seq"] + 1))
    assert after["events"][-1]["type"] != "run.done" or status == "done"
    assert not apply(copy.deepcopy(after), change), f"the change can be repeated: {change}"
    if status in TERMINAL:
        check_ended(after)
    else:
        check_active(after)


def check_ended(run: dict[str, Any]) -> None:
    status = run["status"]
    assert not run.keys() & LET_GO
    assert run["ended_at"] is not None
    assert ("error" in run) == (status != "done")
    told = "owes_at" not in run
    assert ("expire_at" in run) == (told and status in ("done", "cancelled"))
    undone = {(step.get("compensation") or {}).get("status") for step in run["steps"]} - {None}
    if status == "done":
        assert all(step["status"] in ("done", "skipped") for step in run["steps"])
    if status in ("compensated", "compensation_failed"):
        # A run that could not be driven any more was ended in the middle of it.
        in_order = undone <= {"done", "failed"} and ("failed" in undone) == (status == "compensation_failed")
        assert in_order or run["error"]["code"] == "run.corrupt"


def check_active(run: dict[str, Any]) -> None:
    status = run["status"]
    assert not run.keys() & {"ended_at", "expire_at"}
    assert (run["live"], run.get("active_key")) == (True, run.get("idempotency_key"))
    assert status == "compensating" or not run.keys() & {"error", "cancel"}
    if status == "compensating":
        assert "error" in run
        assert next_undo(run) is not None
    else:
        assert ("lease" in run) == (status == "running")
        assert not any("compensation" in step for step in run["steps"])
        assert all(step["status"] not in ENDED for step in run["steps"][members(run, run["cursor"])[-1] + 1 :])
        assert any(run["steps"][k]["status"] not in ENDED for k in members(run, run["cursor"]))
        assert all(step["status"] in ENDED for step in run["steps"][: members(run, run["cursor"])[0]])
    check_waking(run)
    check_answerable(run)


def check_waking(run: dict[str, Any]) -> None:
    """Somebody drives the run, or it comes up by itself, or it waits for what somebody else is to bring."""
    if "lease" in run:
        assert "due_at" not in run
        return
    assert not ("due_at" in run and run.get("paused")), "a paused run must not come up"
    if "due_at" in run or "due_at" in run.get("paused", {}):
        return
    assert run["status"] in ("waiting", "compensating")
    assert any(True for _ in open_waits(run)), "nothing will ever wake the run"


def check_answerable(run: dict[str, Any]) -> None:
    """A run is found by the waits that somebody can answer now, and by no other."""
    waits = list(open_waits(run))
    assert sorted(run.get("hooks", ())) == sorted(entry["hash"] for entry in waits if "hash" in entry)
    assert run.get("waiting_since") == min((entry["opened_at"] for entry in waits), default=None)
    assert "hooks" not in run or run["hooks"]
    names = {entry["name"] for entry in waits if entry["kind"] == "event"}
    names |= {rule["name"] for rule in run.get("cancel_on", ()) if run["status"] != "compensating"}
    assert run.get("listens", []) == sorted(names)


def open_waits(run: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The open waits of what is being done: of the steps that the run stands at, or of what is being undone."""
    if run["status"] == "compensating":
        undone = (step.get("compensation") or {} for step in run["steps"])
        at_work = [each for each in undone if each.get("status") in ("pending", "waiting")]
    else:
        here = (run["steps"][k] for k in members(run, run["cursor"]))
        at_work = [step for step in here if step["status"] not in ENDED]
    for activity in at_work:
        yield from (entry for entry in activity.get("memo", {}).values() if entry.get("open"))
