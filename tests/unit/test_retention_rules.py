"""Which ended runs are to be removed."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from streamline import Workflow
from streamline.errors import InvalidQuery
from streamline.features.retention import is_alone, purge_of
from tests.conformance.documents import NOW, ended

DAY = timedelta(days=1)


def rules(**options: Any) -> Any:
    wf: Workflow[Any, Any, Any] = Workflow("flow", retention={"done": "1d", "failed": "7d"})
    wf.step("only")(lambda ctx: None)
    other: Workflow[Any, Any, Any] = Workflow("kept")
    other.step("only")(lambda ctx: None)
    asked: Any = {"workflow": None, "ended_before": None, "status": None} | options
    return purge_of({"flow": wf.definition, "kept": other.definition}, NOW, **asked)


def run(status: str, days: float, workflow: str = "flow") -> dict[str, Any]:
    return ended("r", status) | {"workflow": workflow, "ended_at": NOW - days * DAY, "retention": {"done": 1.0}}


@pytest.mark.parametrize(
    ("status", "days", "expected"),
    [("done", 1, True), ("done", 0.9, False), ("failed", 7, True), ("failed", 6.9, False), ("cancelled", 99, False)],
)
def test_the_workflows_present_rules_decide(status: str, days: float, *, expected: bool) -> None:
    assert rules().concerns(run(status, days)) is expected
    assert not rules().concerns(run(status, days, "kept"))
    assert not rules().concerns(run(status, days, "unknown"))
    assert not rules(status="compensated").concerns(run(status, days))
    assert not rules(workflow="kept").concerns(run(status, days))


def test_nothing_can_be_over_that_was_created_within_the_shortest_time() -> None:
    assert rules().created_before == NOW - DAY
    assert rules(status="failed").created_before == NOW - 7 * DAY
    assert rules(status=["cancelled"]).created_before is None
    assert rules(workflow="kept").created_before is None
    assert rules(ended_before=NOW).created_before == NOW


def test_an_instant_takes_the_place_of_the_rules() -> None:
    wanted = rules(ended_before=NOW - DAY)
    assert wanted.concerns(run("cancelled", 2, "unknown"))
    assert not wanted.concerns(run("cancelled", 1))
    assert not rules(ended_before=NOW, status={"done", "failed"}).concerns(run("cancelled", 2))


def test_what_has_not_ended_or_does_not_say_when_is_never_over() -> None:
    wanted = rules(ended_before=NOW + DAY)
    for wrong in ({"status": "running"}, {"ended_at": None}):
        assert not wanted.concerns(run("done", 5) | wrong)


@pytest.mark.parametrize(
    "wrong", [{"status": "running"}, {"status": []}, {"status": 1}, {"ended_before": datetime(2024, 1, 1)},
              {"ended_before": "yesterday"}, {"status": {"done": 1}}],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidQuery) as refused:
        rules(**wrong)
    assert refused.value.field == next(iter(wrong))


def test_a_run_with_more_than_itself_is_not_alone() -> None:
    assert is_alone(ended("r") | {"children": True, "parent": {"run_id": "p", "wait": False}})
    for more in ({"spilled": True}, {"owes_at": NOW}, {"outbox_at": NOW}, {"removed_at": NOW}, {"parent": {"wait": 1}}):
        assert not is_alone(ended("r") | more)
