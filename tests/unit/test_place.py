"""Places: which steps a run stands at, which compensation comes next, how attempts are counted."""

from __future__ import annotations

from typing import Any

import pytest

from streamline.domain.place import Place, attempt_of, here, members, next_undo, recoveries_of_step, unfinished
from tests.conformance.documents import held
from tests.unit.played import group, undone


def steps(*groups: str | None) -> dict[str, Any]:
    made: list[dict[str, Any]] = []
    for k, name in enumerate(groups):
        made.append({"id": f"s{k}", "status": "pending"} | ({"group": name} if name else {}))
    return {"steps": made, "cursor": 0, "attempt": 1, "recovery_count": 0, "status": "running"}


@pytest.mark.parametrize(
    ("k", "expected"), [(0, [0]), (1, [1, 2, 3]), (2, [1, 2, 3]), (3, [1, 2, 3]), (4, [4, 5]), (5, [4, 5]), (6, [6])]
)
def test_members_are_the_neighbours_of_the_same_group(k: int, expected: list[int]) -> None:
    assert list(members(steps(None, "a", "a", "a", "b", "b", None), k)) == expected


def test_groups_of_one_name_that_do_not_touch_are_two() -> None:
    run = steps("a", None, "a", "a")
    assert [list(members(run, k)) for k in range(4)] == [[0], [1], [2, 3], [2, 3]]


def test_the_unfinished_are_those_the_run_stands_at_and_that_have_not_ended() -> None:
    run = group(size=3)
    assert unfinished(run) == [Place(0), Place(1), Place(2)]
    for k, status in enumerate(("done", "failed", "waiting")):
        run["steps"][k]["status"] = status
    assert unfinished(run) == [Place(2)]
    assert unfinished(held("r") | {"cursor": 1}) == [Place(1)]


def test_a_place_names_its_fields_and_reads_what_is_there() -> None:
    run = undone()
    run["steps"][1]["compensation"]["memo"] = {"k": 1}
    assert (Place(1).at, Place(1, undo=True).at) == ("steps.1", "steps.1.compensation")
    assert Place(1, undo=True).memo(run) == {"k": 1}
    assert Place(1).memo(run) == {}
    assert Place(2, undo=True).activity(run) == {}
    assert here(run) == Place(2)


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (("pending", "pending"), 1),
        (("pending", "waiting"), 1),
        (("pending", "done"), 0),
        (("waiting", "failed"), 0),
        (("done", "failed"), None),
    ],
)
def test_the_next_to_be_undone_is_the_last_that_has_not_ended(statuses: tuple[str, str], expected: int | None) -> None:
    run = undone()
    for k, status in enumerate(statuses):
        run["steps"][k]["compensation"]["status"] = status
    assert next_undo(run) == (None if expected is None else Place(expected, undo=True))


def test_there_is_nothing_to_undo_in_a_run_that_is_not_undone() -> None:
    assert next_undo(held("r")) is None


def test_an_attempt_is_counted_by_the_claims_of_the_run_or_by_the_steps_own_failures() -> None:
    run = held("r") | {"attempt": 4, "recovery_count": 2, "recovered_before": 1}
    run["steps"][0]["failures"] = 1
    assert attempt_of(run, Place(0)) == 4
    run = group() | {"attempt": 9, "recovery_count": 2, "recovered_before": 1}
    run["steps"][1]["failures"] = 3
    assert (attempt_of(run, Place(0)), attempt_of(run, Place(1))) == (2, 5)
    run = undone() | {"attempt": 9}
    run["steps"][1]["compensation"]["failures"] = 2
    assert (attempt_of(run, Place(1, undo=True)), attempt_of(run, Place(0, undo=True))) == (3, 1)
    assert attempt_of(run | {"recovery_count": 1}, Place(0, undo=True)) == 2


def test_recoveries_are_counted_from_the_last_step_that_ended() -> None:
    assert recoveries_of_step({"recovery_count": 3}) == 3
    assert recoveries_of_step({"recovery_count": 3, "recovered_before": 2}) == 1
