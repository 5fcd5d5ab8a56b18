"""The table of statuses, and that everything else follows from it."""

from __future__ import annotations

from typing import get_args

from streamline.domain import statuses
from streamline.domain.statuses import ACTIVE, CLAIMABLE, NEXT, RETRIABLE, RUN_STATUSES, TERMINAL, RunStatus, StepStatus


def test_the_statuses_are_those_of_the_contract() -> None:
    assert get_args(RunStatus) == RUN_STATUSES
    assert set(RUN_STATUSES) == {
        "draft",
        "running",
        "waiting",
        "done",
        "failed",
        "cancelled",
        "compensating",
        "compensated",
        "compensation_failed",
    }
    assert set(get_args(StepStatus)) == {"pending", "running", "waiting", "done", "failed", "skipped"}


def test_the_table_names_every_status_and_no_other() -> None:
    assert set(NEXT) == set(RUN_STATUSES)
    assert {after for following in NEXT.values() for after in following} <= set(RUN_STATUSES)


def test_every_status_can_be_reached_and_every_active_one_can_be_left() -> None:
    reached, fresh = {"draft"}, ["draft"]
    while fresh:
        fresh = [after for before in fresh for after in NEXT[before] if after not in reached]  # type: ignore[index]
        reached |= set(fresh)
    assert reached == set(RUN_STATUSES)
    assert all(NEXT[status] - {status} for status in ACTIVE)


def test_an_end_is_final_except_for_a_retry() -> None:
    assert {"done", "failed", "cancelled", "compensated", "compensation_failed"} == TERMINAL
    for status in TERMINAL:
        assert NEXT[status] <= {"waiting"}
    assert {"failed", "cancelled"} <= RETRIABLE
    assert "done" not in RETRIABLE


def test_nobody_comes_back_to_being_a_draft() -> None:
    assert not any("draft" in following for following in NEXT.values())


def test_active_and_ended_are_all_there_is() -> None:
    assert set(RUN_STATUSES) == ACTIVE | TERMINAL
    assert not ACTIVE & TERMINAL
    assert set(CLAIMABLE) == {status for status in ACTIVE if "running" in NEXT[status] and status != "running"}


def test_the_sets_cannot_be_changed() -> None:
    for name in ("TERMINAL", "ACTIVE", "RETRIABLE", "CLAIMABLE", "RUN_STATUSES"):
        assert isinstance(getattr(statuses, name), (frozenset, tuple))
