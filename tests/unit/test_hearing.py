"""Events of the inbox: which a run takes, which it has taken, and what they make of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streamline.domain.heard import HEARD_MAX, SKEW, has_heard, is_for, noted, passed_until
from streamline.domain.payloads import Encoded
from streamline.domain.transitions import hearing, operating
from streamline.errors import AlreadyFinished
from streamline.features.triggers import is_to_be_announced, order_of, started_id
from tests.conformance.documents import NOW, ended, held
from tests.unit.played import after, opened, parked, types, undone

SECOND = timedelta(seconds=1)
EARLY = timedelta(minutes=5)


def event(n: int = 0, name: str = "e", payload: Any = None, **more: Any) -> dict[str, Any]:
    return {"id": f"id{n:04}", "name": name, "payload": payload, "size": 8, "at": NOW + n * SECOND, **more}


def waiting(*names: str, **more: Any) -> dict[str, Any]:
    waits = {f"k{i}": opened("event", f"k{i}", NOW + i * SECOND, name=name, **more) for i, name in enumerate(names)}
    return parked(held("r"), **waits)


def heard(run: dict[str, Any], said: dict[str, Any], *older: dict[str, Any]) -> dict[str, Any]:
    return after(run, hearing.hear(run, said, older, EARLY, NOW).change)


def test_an_event_answers_the_oldest_wait_that_it_fits_and_is_remembered() -> None:
    run = heard(waiting("other", "e", "e"), event(3, payload="p"))
    memo = run["steps"][0]["memo"]
    assert [memo[key].get("output") for key in ("k0", "k1", "k2")] == [None, "p", None]
    assert (run["heard"], run["listens"]) == ([{"id": "id0003", "name": "e", "at": NOW + 3 * SECOND}], ["e", "other"])
    assert (types(run)[-1], run["due_at"], run["size"]) == ("wait.answered", NOW, 8)


def test_an_event_that_was_taken_is_not_taken_again_and_counts_as_reached() -> None:
    run = heard(waiting("e", "e"), event())
    again = hearing.hear(run, event(), (), EARLY, NOW)
    assert (again.reached, again.change) == (True, None)


def test_an_older_event_comes_first() -> None:
    run = waiting("e")
    found = hearing.hear(run, event(5), [event(2), event(1)], EARLY, NOW)
    assert found.event is not None
    assert (found.event["id"], found.reached) == ("id0001", True)
    assert heard(heard(waiting("e", "e"), event(5), event(1)), event(5), event(1))["heard"][1]["id"] == "id0005"


def test_an_event_that_fits_no_wait_is_left_for_later() -> None:
    for run in (waiting("other"), waiting("e", match={"n": 2}), waiting("e", due_at=NOW), held("r")):
        assert hearing.hear(run, event(payload={"n": 1}), (), EARLY, NOW) == hearing.Hearing()
    assert hearing.hear(ended("r"), event(), (), EARLY, NOW) == hearing.Hearing()


@pytest.mark.parametrize(
    ("before", "reached", "taken", "kept"),
    [
        (timedelta(), 5, True, True),
        (SKEW, 5, True, False),
        (SKEW * 2, 5, False, False),
        (SKEW * 2, 0, True, True),
        (EARLY, 0, True, True),
        (EARLY + SECOND, 0, False, False),
    ],
)
def test_for_whom_an_event_is(before: timedelta, reached: int, taken: bool, kept: bool) -> None:
    run, said = waiting("e"), event(reached=reached) | {"at": NOW - before}
    assert hearing.hear(run, said, (), EARLY, NOW).reached is taken
    assert is_for(run, said, EARLY) is kept


def test_an_event_cancels_the_run_that_says_so_and_once() -> None:
    run = waiting("e") | {"cancel_on": [{"name": "c", "match": {"n": 1}}], "listens": ["c", "e"]}
    assert hearing.hear(run, event(name="c", payload={"n": 2}), (), EARLY, NOW) == hearing.Hearing()
    gone = heard(run, event(name="c", payload={"n": 1}))
    assert (gone["status"], gone["cancel"]["reason"], "listens" in gone) == ("cancelled", "event c", False)
    retried = after(gone, operating.retry(gone, NOW))
    assert retried["listens"] == ["c", "e"]
    assert hearing.hear(retried, event(name="c", payload={"n": 1}), (), EARLY, NOW).change is None


def test_an_event_does_not_cancel_what_is_being_undone_or_was_born_after_it() -> None:
    rule = {"cancel_on": [{"name": "c"}]}
    assert hearing.hear(undone() | rule, event(name="c"), (), EARLY, NOW).change is None
    late = event(name="c") | {"at": NOW - SECOND}
    assert hearing.hear(held("r") | rule, late, (), EARLY, NOW).change is None


def test_an_event_for_one_run_cancels_or_is_kept() -> None:
    rule = {"cancel_on": [{"name": "c"}]}
    assert (
        after(held("r") | rule, hearing.receive(held("r") | rule, "c", Encoded(1, 8), "i", NOW))["status"]
        == "cancelled"
    )
    kept = after(held("r") | rule, hearing.receive(held("r") | rule, "e", Encoded(1, 8), "i", NOW))
    assert [each["id"] for each in kept["inbox"]] == ["i"]
    with pytest.raises(AlreadyFinished):
        hearing.receive(ended("r") | rule, "c", Encoded(1, 8), "i", NOW)


def test_a_run_remembers_the_last_events_and_how_far_it_was_before() -> None:
    run: dict[str, Any] = {}
    for n in range(HEARD_MAX + 30):
        put, append = noted(run, [event(n, name="ab"[n % 2])])
        run |= put
        run["heard"] = [*run.get("heard", ()), *append["heard"].values][-HEARD_MAX:]
        assert append["heard"].keep == HEARD_MAX
    assert all(has_heard(run, event(n, name="ab"[n % 2])) for n in range(HEARD_MAX + 30))
    assert (passed_until(run, "a"), passed_until(run, "b")) == (
        (NOW + 28 * SECOND, "id0028"),
        (NOW + 29 * SECOND, "id0029"),
    )
    assert passed_until(run, "c") is None
    assert not has_heard(run, event(3, name="c"))
    assert not has_heard(run, event(HEARD_MAX + 30))


def test_versions_are_ordered_by_their_numbers() -> None:
    ordered = ["0.9", "1.0.0-rc1", "1.0.0-rc2", "1.2.0", "1.10.0", "2", "10.0"]
    assert sorted(ordered, key=order_of) == ordered
    nothing: dict[str, Any] = {"version": "1.0.0", "events": [], "completions": []}
    some = {**nothing, "events": [{"name": "e"}]}
    assert not is_to_be_announced(nothing, None)
    assert is_to_be_announced(some, None)
    assert not is_to_be_announced(some, some)
    assert is_to_be_announced(nothing, some)
    assert not is_to_be_announced(some, {**nothing, "version": "1.0.1"})


def test_the_run_of_an_event_has_an_id_of_its_own_that_is_ordered_by_time() -> None:
    one, two = ({"_id": n, "at": NOW + i * SECOND} for i, n in enumerate("xy"))
    assert started_id(one, "a") == started_id(dict(one), "a") < started_id(two, "a")
    assert started_id(one, "a") != started_id(one, "b")
    assert len(started_id(one, "a")) == 32
