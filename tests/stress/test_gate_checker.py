"""The checks of the gates find what they are there to find."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.stress import gate_checker as checker
from tests.stress.evidence import Evidence

NOW = datetime(2024, 2, 29, tzinfo=UTC)


def document(run: str, n: int, began: float = 0.0, **more: Any) -> dict[str, Any]:
    start = NOW + timedelta(seconds=began)
    told = {"input": {"n": n, "key": "one"}, "status": "done", "recovery_count": 0}
    return {"_id": run, **told, "started_at": start, "created_at": start, "ended_at": start, **more}


def call(run: str, n: int, asked: float, told: float) -> Iterator[dict[str, Any]]:
    yield {"what": "asking", "at": int(asked * checker.SECOND), "n": n}
    times = {"asked": int(asked * checker.SECOND), "at": int(told * checker.SECOND)}
    yield {"what": "started", "run": run, "n": n, "created": True, **times}


def work(run: str, enter: float, leave: float, key: str = "one") -> Iterator[dict[str, Any]]:
    """A run of two handlers, at work from one instant to another."""
    for what, at in (("enter", enter), ("leave", enter), ("enter", leave), ("leave", leave)):
        now = NOW.timestamp() + at
        yield {"what": what, "run": run, "key": key, "at": int(at * checker.SECOND), "now": now, "step": "begin"}


def evidence(*entries: Iterator[dict[str, Any]], documents: tuple[dict[str, Any], ...] = ()) -> Evidence:
    written = sorted((entry for several in entries for entry in several), key=lambda entry: entry["at"])
    return Evidence({each["_id"]: each for each in documents}, written)


def test_a_fourth_at_work_is_seen_between_the_handlers_of_the_others() -> None:
    three = [work(f"r{i}", i, 10 + i) for i in range(3)]
    assert not list(checker.too_many_at_work(evidence(*three), 3))
    three = [work(f"r{i}", i, 10 + i) for i in range(3)]
    said = list(checker.too_many_at_work(evidence(*three, work("r3", 9, 9.5)), 3))
    assert said == ["key one: with r3 there were 4 at work, of 3"]


def test_other_keys_and_what_has_ended_are_not_counted() -> None:
    found = evidence(work("a", 0, 1), work("b", 1.1, 2), work("c", 0.5, 3, key="other"))
    assert not list(checker.too_many_at_work(found, 1))
    assert checker.crowds(found) == {"one": 1, "other": 1}


def test_what_began_before_a_limit_held_is_not_held_against_it() -> None:
    found = evidence(work("a", 0, 9), work("b", 1, 3), work("c", 5, 6))
    assert len(list(checker.too_many_at_work(found, 1))) == 2
    assert len(list(checker.too_many_at_work(found, 1, since=4 * checker.SECOND))) == 1
    admitted = document("c", 3, began=3.0)
    found = evidence(work("a", 0, 9), work("b", 1, 3), work("c", 5, 6), documents=(admitted,))
    assert not list(checker.too_many_at_work(found, 1, since=4 * checker.SECOND))


@pytest.mark.parametrize(("third", "wrong"), [(0.999, 1), (1.0, 0)])
def test_a_window_that_holds_too_many_starts_is_seen_to_the_millisecond(third: float, wrong: int) -> None:
    begun = (document("a", 1, 0.0), document("b", 2, 0.5), document("c", 3, third))
    assert len(list(checker.too_many_begun(evidence(documents=begun), 2, 1.0))) == wrong


def test_handlers_that_begin_long_after_their_start_are_seen() -> None:
    runs = (document("a", 1), document("b", 2), document("c", 3, recovery_count=1))
    found = evidence(work("a", 0.2, 0.3), work("b", 2.0, 2.1), work("c", 2.0, 2.1), documents=runs)
    assert list(checker.begun_late(found, 1.0)) == ["run b: its handler began 2.000 s after its start"]


@pytest.mark.parametrize("name", checker.LEFT)
def test_what_an_ended_run_still_holds_is_seen(name: str) -> None:
    assert not list(checker.lost_or_left(evidence(documents=(document("a", 1),))))
    assert len(list(checker.lost_or_left(evidence(documents=(document("a", 1, **{name: 0}),))))) == 1


def test_a_start_that_is_gone_and_a_run_that_failed_are_seen() -> None:
    found = evidence(call("b", 2, 0, 1), documents=(document("a", 1, status="failed"),))
    assert len(list(checker.lost_or_left(found))) == 2
    assert len(list(checker.more_than_asked_for(found))) == 1


@pytest.mark.parametrize(
    ("kept", "wrong"),
    [pytest.param(1, 1, id="replaced"), pytest.param(2, 0, id="at the same time"), pytest.param(3, 0, id="last")],
)
def test_a_draft_that_did_not_get_its_last_input_is_seen(kept: int, wrong: int) -> None:
    calls = (call("a", 1, 0.0, 1.0), call("a", 2, 0.5, 3.0), call("a", 3, 2.0, 2.5))
    assert len(list(checker.outdated_inputs(evidence(*calls, documents=(document("a", kept),))))) == wrong


def test_two_active_runs_of_one_key_are_seen() -> None:
    first = document("a", 1, idempotency_key="k", ended_at=NOW + timedelta(seconds=5))
    for began, wrong in ((4.0, 1), (6.0, 0)):
        later = document("b", 2, began, idempotency_key="k")
        assert len(list(checker.at_once_under_one_key(evidence(documents=(first, later))))) == wrong
