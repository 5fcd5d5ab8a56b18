"""The ledger of a throttle: however runs join, begin and leave, no window holds more starts than the limit."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamline.features.throttle import Ledger, begin, join, leave, room

T0 = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def most_in_a_window(instants: Sequence[datetime], window: timedelta) -> int:
    """The most instants that any half-open window of this length holds, counted in the plainest way."""
    return max((sum(first <= other < first + window for other in instants) for first in instants), default=0)


class Played:
    """A ledger, and beside it every start that it ever allowed."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.begun: dict[str, datetime] = {}
        self.waiting: dict[str, datetime] = {}

    def join(self, run_id: str, limit: int, window: timedelta, now: datetime) -> datetime:
        self.ledger, instant = join(self.ledger, limit, window, now)
        assert instant >= now
        assert instant.microsecond % 1000 == 0
        self.waiting[run_id] = instant
        return instant

    def begin(self, run_ids: Sequence[str], limit: int, window: timedelta, now: datetime) -> None:
        self.ledger, turns = begin(self.ledger, run_ids, limit, window, now)
        assert turns.begun.keys() | turns.later.keys() == set(run_ids), "somebody was dropped"
        assert not turns.begun.keys() & turns.later.keys()
        for run_id, instant in turns.begun.items():
            assert instant <= now
            self.begun[run_id] = instant
            self.waiting.pop(run_id, None)
        for run_id, instant in turns.later.items():
            assert instant > now
            assert instant.microsecond % 1000 == 0
            self.waiting[run_id] = instant


moves = st.lists(
    st.tuples(
        st.sampled_from(["join", "begin_due", "begin_all", "again", "leave"]),
        st.integers(0, 40_000).map(lambda milliseconds: timedelta(milliseconds=milliseconds)),
    ),
    max_size=60,
)


@given(moves=moves, limit=st.integers(1, 5), seconds=st.sampled_from([0.007, 1, 10, 60]))
@settings(max_examples=300, deadline=None)
def test_no_window_ever_holds_more_starts_than_the_limit(moves: Any, limit: int, seconds: float) -> None:
    played, now, window = Played(), T0, timedelta(seconds=seconds)
    for number, (move, later) in enumerate(moves):
        now += later
        due = [run_id for run_id, instant in played.waiting.items() if instant <= now]
        if move == "join":
            played.join(f"r{number}", limit, window, now)
        elif move == "begin_due" and due:
            played.begin(due, limit, window, now)
        elif move == "begin_all" and played.waiting:
            played.begin(list(played.waiting), limit, window, now)
        elif move == "again" and played.waiting:
            # The answer to the first was lost, or its slot was: the run did not begin, and is tried again.
            run_id = next(iter(played.waiting))
            played.begin([run_id], limit, window, now)
            if run_id in played.begun:
                del played.begun[run_id]
                played.waiting[run_id] = now
        elif move == "leave" and played.waiting:
            _, instant = played.waiting.popitem()
            played.ledger = leave(played.ledger, instant, has_begun=False)
        assert most_in_a_window(list(played.begun.values()), window) <= limit
    while played.waiting:  # nothing is dropped: whoever came too early by the plan is told, and then somebody begins
        before = len(played.begun)
        for _ in range(len(played.waiting) + 1):
            if played.waiting:
                now = max(now, min(played.waiting.values()))
                due = [run_id for run_id, instant in played.waiting.items() if instant <= now]
                played.begin(due, limit, window, now)
        assert len(played.begun) > before
    assert most_in_a_window(list(played.begun.values()), window) <= limit


@given(
    moves=st.lists(st.tuples(st.sampled_from([1, 2, 3, 5]), st.integers(1, 15), st.integers(1, 4)), max_size=40),
)
@settings(max_examples=300, deadline=None)
def test_while_a_deploy_replaces_the_limit_no_window_holds_more_than_the_larger_one(moves: Any) -> None:
    played, now, window = Played(), T0, timedelta(seconds=10)
    for number, (limit, later, several) in enumerate(moves):
        now += timedelta(seconds=later)
        played.begin([f"r{number}.{i}" for i in range(several)], limit, window, now)
        # What begins under a limit finds no more than that limit in the window that ends with it.
        recent = [instant for instant in played.begun.values() if instant > now - window]
        began_now = any(instant == now for instant in recent)
        assert not began_now or len(recent) <= limit
    largest = max((limit for limit, _, _ in moves), default=0)
    assert most_in_a_window(list(played.begun.values()), window) <= largest


def test_the_first_starts_are_at_once_and_the_next_when_the_oldest_leaves_the_window() -> None:
    played = Played()
    assert [played.join(f"r{i}", 2, MINUTE, at(i)) for i in range(3)] == [at(0), at(1), at(60)]


def test_a_burst_is_spread_evenly() -> None:
    played = Played()
    assert [played.join(f"r{i}", 2, MINUTE, at(0)) for i in range(5)] == [at(0), at(0), at(60), at(90), at(120)]


def test_a_quiet_window_lets_a_whole_burst_through_again() -> None:
    played = Played()
    for i in range(3):
        played.join(f"r{i}", 3, MINUTE, at(0))
    assert [played.join(f"s{i}", 3, MINUTE, at(60)) for i in range(3)] == [at(60)] * 3


def test_a_start_that_did_not_come_to_pass_is_lost() -> None:
    """Who has it on record and begins later is counted when it does."""
    ledger, _ = begin(Ledger(), ["a"], 1, MINUTE, at(0))
    _, turns = begin(ledger, ["a"], 1, MINUTE, at(50))
    assert turns.later == {"a": at(60)}


def test_a_place_that_is_given_back_is_there_for_others() -> None:
    ledger = Ledger()
    for _ in range(3):
        ledger, instant = join(ledger, 1, MINUTE, at(0))
    assert instant == at(120)
    ledger, _ = begin(ledger, ["a"], 1, MINUTE, at(0))
    ledger = leave(leave(ledger, at(60), has_begun=False), at(120), has_begun=False)
    _, instant = join(ledger, 1, MINUTE, at(1))
    assert instant == at(60)


def test_a_start_that_is_given_back_makes_room_at_once() -> None:
    ledger, _ = join(Ledger(), 1, MINUTE, at(0))
    ledger, _ = begin(ledger, ["a"], 1, MINUTE, at(0))
    assert leave(ledger, at(0), has_begun=True) == Ledger()
    assert leave(ledger, at(5), has_begun=True) == ledger


def test_a_promise_that_is_given_back_leaves_the_start_of_another_at_the_same_instant() -> None:
    ledger, _ = begin(Ledger(), ["a"], 2, MINUTE, at(0))
    ledger, instant = join(ledger, 2, MINUTE, at(0))
    assert instant == at(0)
    assert room(leave(ledger, instant, has_begun=False), 2, MINUTE, at(0)) == (1, at(0))


def test_how_many_may_begin_and_when_the_next() -> None:
    assert room(Ledger(), 2, MINUTE, at(0)) == (2, at(0))
    ledger, _ = begin(Ledger(), ["a"], 2, MINUTE, at(0))
    assert room(ledger, 2, MINUTE, at(10)) == (1, at(10))
    ledger, _ = begin(ledger, ["b"], 2, MINUTE, at(10))
    assert room(ledger, 2, MINUTE, at(20)) == (0, at(60))
    assert room(ledger, 2, MINUTE, at(60)) == (1, at(60))
    assert room(ledger, 3, MINUTE, at(20)) == (1, at(20))


@given(
    st.lists(st.integers(0, 90_000), max_size=8),
    st.integers(1, 4),
    st.integers(0, 90_000),
)
def test_as_many_as_there_is_room_for_begin(offsets: list[int], limit: int, later: int) -> None:
    ledger = Ledger(tuple(sorted(at(offset / 1000) for offset in offsets)))
    now = max((*ledger.started, at(later / 1000)))
    count, instant = room(ledger, limit, MINUTE, now)
    _, turns = begin(ledger, [f"r{i}" for i in range(limit + 1)], limit, MINUTE, now)
    assert len(turns.begun) == count
    assert (count > 0) == (instant == now)
    assert instant == now or begin(ledger, ["r"], limit, MINUTE, instant)[1].begun


def test_what_several_are_told_is_spread() -> None:
    ledger, turns = begin(Ledger(), list("abcdef"), 2, MINUTE, at(0))
    assert turns.begun == {"a": at(0), "b": at(0)}
    assert list(turns.later.values()) == [at(60), at(60), at(120), at(120)]
    assert len(ledger.started) == 2


def test_a_process_whose_clock_is_behind_gets_no_start_before_one_that_was() -> None:
    ledger, _ = begin(Ledger(), ["a"], 2, MINUTE, at(5))
    _, turns = begin(ledger, ["b"], 2, MINUTE, at(0))
    assert turns.later == {"b": at(5)}


@pytest.mark.parametrize("window", [timedelta(microseconds=1500), timedelta(seconds=1) / 3])
def test_instants_are_whole_milliseconds_and_never_too_early(window: timedelta) -> None:
    played = Played()
    told = [played.join(f"r{i}", 1, window, at(0)) for i in range(10)]
    assert all(instant.microsecond % 1000 == 0 for instant in told)
    assert all(later - earlier >= window for earlier, later in itertools.pairwise(told))


def test_the_ledger_holds_no_more_than_it_must() -> None:
    ledger, now = Ledger(), T0
    for i in range(200):
        now += timedelta(seconds=20)
        ledger, _ = join(ledger, 3, MINUTE, now)
        ledger, _ = begin(ledger, [f"r{i}"], 3, MINUTE, now)
    assert len(ledger.started) <= 3
    assert len(ledger.plan) <= 3
