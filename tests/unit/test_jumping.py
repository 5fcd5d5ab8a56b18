"""Going on elsewhere: a handler's jump, an operator's rewind, a fork, and a step's earlier outputs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streamline.domain.change import apply
from streamline.domain.payloads import ANY, NO_VALUE, Encoded
from streamline.domain.place import Place, here
from streamline.domain.statuses import TERMINAL
from streamline.domain.transitions import jumping, operating, stepping
from streamline.domain.transitions.birth import Order, queued
from streamline.domain.transitions.stepping import Ending
from streamline.errors import IllegalTransition, StepNotFound, StepOutputMissing
from tests.conformance.documents import FLOW, NOW, draft, held
from tests.unit.played import ERROR, LATER, after, group, opened, parked, stated, taken, types

LARGE = ANY.encode("x" * 1000, "output")


def completed(run: dict[str, Any], value: Encoded = NO_VALUE, **ending: Any) -> dict[str, Any]:
    return after(run, stepping.complete(run, here(run), value, Ending(NOW, **ending)))


def jumped(run: dict[str, Any], to: str, **ending: Any) -> dict[str, Any]:
    return after(run, jumping.jump(run, here(run), to, Ending(LATER, **ending)))


def rewound(run: dict[str, Any], to: str = "s0") -> dict[str, Any]:
    return after(run, jumping.rewind(run, to, LATER, by="ann"))


def finished(value: Encoded = NO_VALUE, **order: Any) -> dict[str, Any]:
    run = held("r", **order)
    for _ in range(3):
        run = completed(run, value)
    return run


# Jumps


def test_a_jump_forward_ends_the_step_and_passes_over_those_between() -> None:
    run = held("r")
    run["steps"][0] |= {"memo": {"k": {"kind": "call", "size": 7}}, "waits": ["k"], "error": ERROR, "failures": 1}
    run = jumped(run | {"size": 50}, "s2")
    assert (run["status"], run["cursor"], run["attempt"], run["jumps"]) == ("running", 2, 1, 1)
    assert [step["status"] for step in run["steps"]] == ["done", "skipped", "running"]
    assert not run["steps"][0].keys() & {"memo", "waits", "error"}
    assert run["steps"][2]["started_at"] == LATER
    assert run["size"] == 43
    assert types(run)[-2:] == ["step.jumped", "step.started"]
    assert run["events"][-2]["to"] == "s2"


@pytest.mark.parametrize("to", ["s0", "s1"])
def test_a_jump_back_or_to_itself_begins_the_steps_anew(to: str) -> None:
    run = completed(held("r"), Encoded(1, 1))
    run["steps"][1] |= {"memo": {"k": {"kind": "call"}}, "failures": 2, "attempt": 3, "progress": {"fraction": 1}}
    k = int(to[1])
    run = jumped(run, to)
    assert (run["cursor"], run["attempt"], run["jumps"]) == (k, 1, 1)
    assert run["steps"][k] == {"id": to, "status": "running", "generation": 1, "started_at": LATER}
    assert run["steps"][1].keys() <= {"id", "status", "generation", "started_at"}
    assert run["steps"][2] == {"id": "s2", "status": "pending"}


def test_no_number_of_turns_makes_a_run_larger_than_what_it_holds() -> None:
    run = held("r")
    for turn in range(20):
        run = completed(run, LARGE)
        assert run["size"] <= 1100
        run["steps"][1]["memo"] = {"k": {"kind": "call", "size": 50}}
        run = jumped(run | {"size": run["size"] + 50}, "s0")
        assert (run["size"], run["jumps"]) == (0, turn + 1)


def test_a_jump_into_a_group_begins_all_of_it() -> None:
    run = held("r") | {"cursor": 2}
    for k in range(2):
        run["steps"][k] |= {"group": "g", "status": "done", "output": k}
    run = jumped(run, "s1")
    assert (run["cursor"], [step["status"] for step in run["steps"]]) == (0, ["running", "running", "pending"])
    assert [event["step"] for event in run["events"][-2:]] == ["s0", "s1"]


@pytest.mark.parametrize("to", ["s0", "s2"])
@pytest.mark.parametrize("is_paused", [True, False])
def test_a_worker_that_stops_or_a_pause_parks_the_run_at_the_other_step(to: str, is_paused: bool) -> None:
    run = held("r")
    if is_paused:
        run = after(run, operating.pause(run, NOW, reason=None, by=None))
    run = jumped(run, to, go_on=is_paused, state=stated({"n": 1}))
    assert (run["status"], run["cursor"], run["attempt"], "lease" in run) == ("waiting", int(to[1]), 0, False)
    assert (run["paused"] if is_paused else run)["due_at"] == LATER
    assert ("due_at" in run) != is_paused
    assert (run["state"], run["size"]) == ({"n": 1}, 9)
    assert run["steps"][int(to[1])]["status"] == "pending"


def test_a_jump_to_nowhere_is_refused_and_a_fenced_one_does_nothing() -> None:
    with pytest.raises(StepNotFound):
        jumping.jump(held("r"), Place(0), "nowhere", Ending(NOW))
    assert not apply(held("r") | {"rev": 2}, jumping.jump(held("r"), Place(0), "s0", Ending(NOW)))


def test_a_jump_counts_recoveries_of_the_next_step_from_there() -> None:
    assert jumped(held("r") | {"recovery_count": 3}, "s0")["recovered_before"] == 3


# Rewinds


@pytest.mark.parametrize("make", [finished, lambda: completed(held("r")), lambda: held("r")])
def test_a_rewind_does_the_run_again_in_place(make: Any) -> None:
    run = rewound(make())
    assert (run["status"], run["cursor"], run["attempt"], run["due_at"]) == ("waiting", 0, 0, LATER)
    assert [(step["status"], step["generation"]) for step in run["steps"]] == [("pending", 1)] * 3
    assert not run.keys() & {"lease", "output", "ended_at", "expire_at", "error"}
    assert (run["events"][-1]["type"], run["events"][-1]["by"]) == ("run.rewound", "ann")
    assert not apply(run, stepping.complete(held("r"), Place(0), NO_VALUE, Ending(NOW)))


def test_a_rewound_run_keeps_what_came_before_and_holds_its_key_again() -> None:
    run = rewound(finished(LARGE, idempotency_key="k"), "s1")
    assert (run["steps"][0]["output"], run["active_key"], run["live"]) == (LARGE.value, "k", True)
    assert [step["status"] for step in run["steps"]] == ["done", "pending", "pending"]
    assert run["size"] == LARGE.size


def test_a_rewound_run_can_no_longer_be_answered() -> None:
    run = rewound(parked(completed(held("r")), k=opened("hook", hash="h")), "s1")
    assert not run.keys() & {"hooks", "waiting_since", "waiting_for", "nudged"}
    assert "memo" not in run["steps"][1]


def test_a_paused_run_stays_paused_when_it_is_rewound() -> None:
    run = after(held("r"), operating.pause(held("r"), NOW, reason=None, by=None))
    run = rewound(run)
    assert "due_at" not in run
    assert run["paused"]["due_at"] == LATER


@pytest.mark.parametrize(
    ("run", "to", "error"),
    [
        (draft("r"), "s0", IllegalTransition),
        (held("r") | {"status": "compensating"}, "s0", IllegalTransition),
        (held("r"), "s1", IllegalTransition),
        (held("r"), "nowhere", StepNotFound),
    ],
)
def test_a_rewind_to_where_the_run_has_not_been_is_refused(run: dict[str, Any], to: str, error: Any) -> None:
    with pytest.raises(error):
        jumping.rewind(run, to, NOW)


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_a_run_can_be_rewound_from_every_end(status: str) -> None:
    run = finished() | {"status": status, "error": ERROR, "cancel": {"at": NOW}, "deadline_at": NOW}
    run["expire_at"] = LATER + timedelta(days=1)
    run["steps"][0]["compensation"] = {"status": "done"}
    run = rewound(run, "s1")
    assert run["status"] == "waiting"
    assert not run.keys() & {"error", "cancel", "expire_at", "deadline_at", "ended_at"}
    assert "compensation" not in run["steps"][0]


# Forks


def newborn() -> dict[str, Any]:
    return queued(Order("fork", FLOW, {"n": 2}), LATER, LATER)


def test_a_fork_stands_at_the_step_with_the_outputs_before_it() -> None:
    run = finished(LARGE)
    run["steps"][0] |= {"compensable": True, "compensation": {"status": "done"}, "memo": {"k": 1}}
    fork = jumping.forked(run, newborn(), "s1")
    assert (fork["_id"], fork["forked_from"], fork["cursor"], fork["status"]) == ("fork", "r", 1, "draft")
    assert fork["steps"][0]["output"] == LARGE.value
    assert not fork["steps"][0].keys() & {"compensation", "compensable", "memo"}
    assert fork["steps"][1:] == newborn()["steps"][1:]
    assert run["cursor"] == 2


def test_a_fork_from_within_a_group_begins_with_all_of_it() -> None:
    run = group()
    run["steps"][0]["status"] = "done"
    assert jumping.forked(run, newborn(), "s1")["cursor"] == 0


@pytest.mark.parametrize(("to", "error"), [("s1", IllegalTransition), ("nowhere", StepNotFound)])
def test_a_fork_from_where_the_run_has_not_been_is_refused(to: str, error: Any) -> None:
    with pytest.raises(error):
        jumping.forked(held("r"), newborn(), to)


# History


def again(run: dict[str, Any], value: Any) -> dict[str, Any]:
    """The run, rewound to its first step and through it with this output."""
    return completed(taken(rewound(run)), Encoded(value, 1))


def keeping(keep: int = 3) -> dict[str, Any]:
    run = held("r")
    run["steps"][0]["keep"] = keep
    return completed(run, Encoded("v1", 1))


def versions(step: dict[str, Any]) -> list[tuple[int, Any]]:
    return [(each["version"], each["output"]) for each in step.get("history", ())]


def test_a_step_that_is_done_again_keeps_as_many_outputs_as_it_says() -> None:
    run = keeping(2)
    for n in range(2, 6):
        run = again(run, f"v{n}")
    step = run["steps"][0]
    assert (step["output"], step["version"]) == ("v5", 5)
    assert versions(step) == [(3, "v3"), (4, "v4")]
    assert "history" not in again(held("r") | {"steps": held("r")["steps"]}, "v")["steps"][0]


def test_an_earlier_output_can_be_pinned_and_the_later_one_pinned_back() -> None:
    run = again(keeping(), "v2")
    run = after(run, jumping.pin(run, "s0", 1, LATER))
    assert (run["steps"][0]["output"], run["steps"][0]["version"]) == ("v1", 1)
    assert versions(run["steps"][0]) == [(1, "v1"), (2, "v2")]
    assert jumping.pin(run, "s0", 1, LATER) is None
    run = after(run, jumping.pin(run, "s0", 2, LATER))
    assert run["steps"][0]["output"] == "v2"
    assert versions(again(run, "v3")["steps"][0]) == [(1, "v1"), (2, "v2")]
    assert again(run, "v3")["steps"][0]["version"] == 3


@pytest.mark.parametrize("version", [0, 2, 9, -1])
def test_a_version_that_is_not_kept_cannot_be_pinned(version: int) -> None:
    with pytest.raises(StepOutputMissing):
        jumping.pin(keeping(), "s0", version, NOW)


def test_the_output_of_a_done_run_is_that_of_its_last_step_even_when_pinned() -> None:
    run = finished(Encoded("new", 1))
    run["steps"][2] |= {"keep": 2, "version": 2, "history": [{"version": 1, "output": "old", "ended_at": NOW}]}
    run = after(run, jumping.pin(run, "s2", 1, LATER))
    assert (run["steps"][2]["output"], run["output"]) == ("old", "old")


def test_an_output_is_not_pinned_to_a_step_that_is_to_be_done_again() -> None:
    run = rewound(again(keeping(), "v2"))
    with pytest.raises(IllegalTransition):
        jumping.pin(run, "s0", 1, NOW)
    for bad in ("nowhere", ""):
        with pytest.raises(StepNotFound):
            jumping.pin(run, bad, 1, NOW)
    with pytest.raises(IllegalTransition):
        jumping.pin(keeping() | {"status": "cancelled"}, "s0", 1, NOW)


def test_an_output_pinned_to_a_failed_step_does_not_make_its_next_one_vanish() -> None:
    run = taken(rewound(keeping()))
    run = after(run, stepping.fail(run, Place(0), ERROR, Ending(NOW)))
    try:
        run = after(run, jumping.pin(run, "s0", 1, LATER))
    except IllegalTransition:
        return
    run = taken(after(run, operating.retry(run, LATER)), LATER + timedelta(days=1))
    run = rewound(completed(run, Encoded("v2", 1)))
    assert "v2" in [output for _, output in versions(run["steps"][0])]
