"""What may be removed, how it is marked, and how long a run is kept for its parent."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streamline.domain.statuses import ACTIVE, TERMINAL
from streamline.domain.transitions.closing import closed, is_awaited, is_told
from streamline.domain.transitions.discarding import check_ended, discarded, has_ended
from streamline.errors import IllegalTransition
from tests.conformance.documents import NOW, draft, ended
from tests.unit.played import LATER, after

FAMILY = {"run_id": "p", "wait": True, "fan": "s0.0.child#1"}
HOUR = timedelta(hours=1)


def test_only_what_has_ended_may_be_removed() -> None:
    for status in TERMINAL:
        assert has_ended(ended("r", status))
        check_ended(ended("r", status))
    for status in ACTIVE:
        with pytest.raises(IllegalTransition):
            check_ended(draft("r") | {"status": status})
    assert has_ended(ended("r") | {"status": "damaged"})


@pytest.mark.parametrize("children", [True, False])
def test_a_marked_run_is_found_by_the_sweep_and_not_by_the_server(*, children: bool) -> None:
    run = after(ended("r") | {"expire_at": LATER}, discarded(ended("r"), LATER, children=children))
    assert run["removed_at"] == run["owes_at"] == LATER
    assert "expire_at" not in run
    assert run.get("takes_children", False) is children
    assert run["status"] == "done"


def test_a_damaged_run_can_be_marked() -> None:
    run = {"_id": "r", "status": "weird"}
    assert after(run, discarded(run, LATER, children=False))["rev"] == 1


def child(**more: Any) -> dict[str, Any]:
    return ended("c") | {"parent": FAMILY, "retention": {"done": 3600.0}, "owes_at": NOW, **more}


def test_a_child_gets_its_last_day_when_its_parent_has_read_it() -> None:
    run = after(child(), closed(child(), LATER, awaited=False))
    assert run["expire_at"] == NOW + HOUR
    assert "owes_at" not in run


def test_until_then_it_is_looked_at_again_and_ever_more_rarely() -> None:
    run, now, pauses = child(), NOW, []
    for _ in range(9):
        run = after(run, closed(run, now, awaited=True))
        assert is_told(run)
        assert "expire_at" not in run
        pauses.append(run["owes_at"] - now)
        now = run["owes_at"]
    assert pauses[0] == HOUR
    assert pauses[1:] == sorted(pauses[1:])
    assert now - NOW > 20 * HOUR
    again = after(run | {"ended_at": now}, closed(run | {"ended_at": now}, now, awaited=False))
    assert again["expire_at"] == now + HOUR


def test_an_end_is_told_once_and_another_end_again() -> None:
    run = after(child(), closed(child(), LATER, awaited=True))
    assert is_told(run)
    assert not is_told(run | {"ended_at": LATER})


def test_without_retention_nothing_is_put_off() -> None:
    run = child(retention={})
    assert "owes_at" not in after(run, closed(run, LATER, awaited=True))


@pytest.mark.parametrize(
    ("parent", "expected"),
    [
        ({}, True),
        ({"status": "done"}, False),
        ({"steps": [{"id": "s0", "memo": {"child#1": {"fan": FAMILY["fan"], "output": 1}}}]}, False),
        ({"steps": [{"id": "s0"}]}, False),
        ({"steps": [{"id": "s0", "compensation": {"memo": {"child#1": {"fan": FAMILY["fan"]}}}}]}, True),
    ],
)
def test_a_parent_awaits_what_its_memo_has_not_settled(parent: dict[str, Any], *, expected: bool) -> None:
    waiting = {"status": "waiting", "steps": [{"id": "s0", "memo": {"child#1": {"fan": FAMILY["fan"]}}}]}
    assert is_awaited({**waiting, **parent}, child()) is expected
    assert not is_awaited(waiting, child(parent={**FAMILY, "wait": False}))
