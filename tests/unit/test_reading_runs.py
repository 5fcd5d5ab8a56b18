"""Runs as users see them."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from datetime import timedelta
from typing import Any

import pytest

from streamline import Context, Event, Failure, Run, Workflow
from streamline.domain.run import read_event, read_run
from tests.conformance.documents import FLOW, NOW, draft, held


def test_a_run_can_be_read_by_attribute_and_by_key() -> None:
    run = read_run(held("r"), FLOW)
    assert run.id == run["id"] == run.get("id") == "r"
    assert run.get("nothing", 5) == 5
    assert set(run.keys()) == {each.name for each in fields(Run)} == set(run)
    assert dict(run)["status"] == "running"
    with pytest.raises(KeyError):
        run["nothing"]
    with pytest.raises(FrozenInstanceError):
        run.status = "done"  # type: ignore[misc]


def test_a_step_can_be_had_by_its_id() -> None:
    run = read_run(held("r"), FLOW)
    assert run.step("s1").id == "s1"
    with pytest.raises(KeyError):
        run.step("s9")


def test_a_claimed_run_shows_its_step_as_running_before_anything_is_written_of_it() -> None:
    document = held("r")
    document["steps"][0] = {"id": "s0", "status": "waiting", "waits": [{"kind": "sleep", "key": "k", "due_at": NOW}]}
    run = read_run(document, FLOW)
    assert (run.step("s0").status, run.step("s0").attempt, run.step("s0").started_at) == ("running", 1, NOW)
    assert run.waits == ()
    assert run.worker == "worker"


def test_a_draft_has_neither_start_nor_end() -> None:
    run = read_run(draft("r", NOW + timedelta(hours=1), tags=("a",), metadata={"k": 1}), FLOW)
    assert (run.status, run.ended, run.attempt, run.paused) == ("draft", False, 0, False)
    assert (run.started_at, run.ended_at, run.error, run.output, run.worker) == (None, None, None, None, None)
    assert run.due_at == NOW + timedelta(hours=1)
    assert (run.tags, run.metadata) == (("a",), {"k": 1})
    assert [step.status for step in run.steps] == ["pending"] * 3


def test_an_unknown_workflow_shows_values_as_they_are_stored() -> None:
    wf: Workflow[Any, Any, Any] = Workflow("flow", input=set[int])

    @wf.step
    async def s0(ctx: Context[Any]) -> set[int]:
        return {1}

    document = draft("r") | {"input": [1, 2], "status": "done", "output": [3]}
    document["steps"] = [{"id": "s0", "status": "done", "output": [3], "attempt": 1}]
    known, unknown = read_run(document, wf.definition), read_run(document, None)
    assert (known.input, known.output, known.steps[0].output) == ({1, 2}, {3}, {3})
    assert (unknown.input, unknown.output, unknown.steps[0].output) == ([1, 2], [3], [3])


def test_an_event_keeps_its_details_apart() -> None:
    event = read_event(
        "r", {"seq": 3, "type": "step.failed", "at": NOW, "step": "s", "attempt": 2, "error": {"code": "c"}}
    )
    assert event == Event("r", 3, "step.failed", NOW, "s", 2, {"error": {"code": "c"}})
    assert event["data"] == {"error": {"code": "c"}}
    assert read_event("r", {"seq": 1, "type": "run.created", "at": NOW, "mark": "x"}).data == {}


def test_a_failure_reads_like_what_is_stored() -> None:
    failure = Failure("step.error", "ValueError", "no", "s", 2)
    assert dict(failure) == {"code": "step.error", "type": "ValueError", "message": "no", "step": "s", "attempt": 2}
