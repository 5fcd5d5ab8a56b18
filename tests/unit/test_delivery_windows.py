"""How far a subscriber is: the position never passes an entry that is not settled."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from streamline.features.delivery_windows import Held, Window
from tests.conformance.documents import NOW

ERROR = {"code": "subscriber.error", "type": "ValueError", "message": "no"}


def held(run_id: str, seq: int, position: int, attempts: int = 1) -> Held:
    return Held(run_id, seq, position, attempts, NOW, ERROR)


def window(position: int = 0, *held_back: dict[str, Any]) -> Window:
    return Window(position, held_back)


def test_the_position_is_the_last_before_which_all_are_settled() -> None:
    w = window(10)
    assert (w.position, w.read, w.at_work) == (10, 10, 0)
    for position in (11, 12, 14):
        assert w.begin("a" if position < 14 else "b", position)
    assert (w.position, w.read, w.at_work) == (10, 14, 3)
    w.settle(12)
    assert w.position == 10
    w.settle(11)
    assert w.position == 13
    w.settle(14)
    w.settle(14)
    assert w.position == 14


def test_what_is_not_wanted_holds_nothing_up() -> None:
    w = window()
    w.skip(1)
    assert w.position == 1
    assert w.begin("a", 2)
    w.skip(3)
    assert (w.position, w.read) == (1, 3)
    w.settle(2)
    assert w.position == 3


def test_a_run_that_is_held_back_holds_no_other_up() -> None:
    w = window()
    for run_id, position in (("a", 1), ("b", 2), ("a", 3)):
        assert w.begin(run_id, position)
    w.hold(held("a", 1, 1), behind=[3])
    assert w.position == 1
    assert not w.begin("a", 4)
    assert w.behind("a") == 4
    w.settle(2)
    assert (w.position, w.at_work) == (4, 0)
    assert w.record() == {
        "position": 4,
        "held": [{"run_id": "a", "seq": 1, "position": 1, "attempts": 1, "due_at": NOW, "error": ERROR}],
    }
    later = w.again(w.held[0], attempts=2, due_at=NOW + timedelta(seconds=1))
    assert w.held == (later,)
    w.release("a")
    assert w.held == ()
    assert w.begin("a", 5)
    assert w.position == 4


def test_of_a_run_that_was_held_back_before_anything_up_to_the_position_may_be_behind() -> None:
    stored = window()
    assert stored.begin("a", 1)
    stored.hold(held("a", 1, 1), behind=[])
    w = Window(9, stored.record()["held"])
    assert w.held == stored.held
    assert w.behind("a") == 9
    assert not w.begin("a", 12)
    assert (w.behind("a"), w.position) == (12, 12)
