"""The executable model of a change: guards, and what a write does to a document."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

from streamline.domain.change import EVENTS_KEPT, Absent, Append, AtMost, Change, Counted, OneOf, apply, holds, read
from tests.conformance.documents import NOW, held


def test_guards() -> None:
    document = {"a": {"b": [{"c": 1}]}, "n": 0, "at": NOW, "none": None, "yes": True, "low": -1}
    assert read(document, "a.b.0.c") == 1
    assert read(document, "a.b.9.c") is None
    assert read(document, "n.x") is None
    assert holds(document, "a.b.0.c", 1)
    assert not holds(document, "a.b.0.c", 2)
    assert holds(document, "at", AtMost(NOW))
    assert not holds(document, "at", AtMost(NOW - timedelta(milliseconds=1)))
    assert not holds(document, "gone", AtMost(NOW))
    assert holds(document, "n", OneOf((0, 1)))
    assert not holds(document, "n", OneOf(()))
    assert holds(document, "none", Absent())
    assert holds(document, "gone.deeper", Absent())
    assert not holds(document, "n", Absent())
    assert holds(document, "n", Counted())
    assert not any(holds(document, name, Counted()) for name in ("yes", "low", "none", "at", "gone"))


def test_a_change_whose_guard_does_not_hold_changes_nothing() -> None:
    document = held("r")
    before = copy.deepcopy(document)
    change = Change(
        {"rev": 9},
        {"status": "done"},
        ("lease",),
        {"attempt": 1},
        {"hooks": Append(("h",))},
        {"started_at": NOW},
        ({"seq": 9},),
    )
    assert not apply(document, change)
    assert document == before


def test_the_ring_of_events_keeps_the_latest() -> None:
    document = {"rev": 1, "events": [{"seq": i} for i in range(EVENTS_KEPT)]}
    apply(document, Change({"rev": 1}, events=({"seq": "a"}, {"seq": "b"})))
    assert len(document["events"]) == EVENTS_KEPT  # type: ignore[arg-type]
    assert document["events"][-3:] == [{"seq": EVENTS_KEPT - 1}, {"seq": "a"}, {"seq": "b"}]  # type: ignore[index]


def test_a_change_does_not_share_what_it_puts() -> None:
    value = {"list": [1]}
    one, two = {"rev": 1}, {"rev": 1}
    change = Change({"rev": 1}, {"output": value, "rev": 2})
    apply(one, change)
    apply(two, change)
    one["output"]["more"] = 1  # type: ignore[index]
    assert two["output"] == value == {"list": [1]}


def written(document: dict[str, Any], **parts: Any) -> dict[str, Any]:
    assert apply(document, Change({"rev": 1}, **parts))
    return document


def test_appending_makes_the_list_and_keeps_only_the_newest() -> None:
    document = written({"rev": 1}, append={"logs": Append((1, 2)), "steps.tags": Append(("a",))})
    assert document == {"rev": 1, "logs": [1, 2], "steps": {"tags": ["a"]}}
    assert written(document, append={"logs": Append((3,), 2)})["logs"] == [2, 3]
    assert written(document, append={"logs": Append((7, 8, 9), 2)})["logs"] == [8, 9]
    assert written(document, append={"logs": Append((), 1)})["logs"] == [9]


def test_appending_does_not_touch_a_list_that_somebody_else_holds() -> None:
    shared = [1]
    document = written({"rev": 1, "logs": shared}, append={"logs": Append((2,))})
    assert (shared, document["logs"]) == ([1], [1, 2])


def test_a_number_may_be_added_to_that_is_not_whole_or_not_there() -> None:
    document = written({"rev": 1, "n": 1}, add={"n": 0.5, "metrics.cost": 0.25, "m": -2})
    assert (document["n"], document["metrics"], document["m"]) == (1.5, {"cost": 0.25}, -2)


def test_an_element_of_a_list_is_put_as_a_whole_or_in_part() -> None:
    document: dict[str, Any] = {"rev": 1, "steps": [{"id": "a", "memo": {"k": 1}}, {"id": "b"}]}
    written(document, put={"steps.0": {"id": "a", "status": "pending"}, "steps.1.memo.k": 2})
    assert document["steps"] == [{"id": "a", "status": "pending"}, {"id": "b", "memo": {"k": 2}}]
    written(document, drop=("steps.1.memo.k", "steps.0.memo.gone", "gone.deeper"))
    assert document["steps"] == [{"id": "a", "status": "pending"}, {"id": "b", "memo": {}}]
