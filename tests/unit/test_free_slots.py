"""Slots: whoever reads what when, and however the limit changes, no more hold one than may."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamline.features.concurrency import free_slots


@dataclass
class Table:
    """The slots that are taken, and those who have read them and will take one, under the limit of their time.

    A slot is one number in a unique index: a taker that comes second to a number takes none.
    """

    limit: int
    taken: set[int] = field(default_factory=set)
    readers: list[tuple[bool, list[int]]] = field(default_factory=list)
    is_changing: bool = False

    def change(self, limit: int) -> None:
        self.limit = limit
        self.readers = [(True, free) for _, free in self.readers]
        self.settle()

    def settle(self) -> None:
        # Who reads while others still take by an older limit may have read too early as well.
        self.is_changing = any(is_old for is_old, _ in self.readers)

    def read(self) -> None:
        self.readers.append((self.is_changing, free_slots(self.taken, self.limit)))

    def take(self, which: int, chance: int) -> None:
        if self.readers:
            _, free = self.readers.pop(which % len(self.readers))
            if free and (number := free[chance % len(free)]) not in self.taken:
                self.taken.add(number)
            self.settle()

    def give_back(self, which: int) -> None:
        if self.taken:
            self.taken.remove(sorted(self.taken)[which % len(self.taken)])


moves = st.lists(
    st.one_of(
        st.tuples(st.just("read")),
        st.tuples(st.just("read")),
        st.tuples(st.just("take"), st.integers(0, 9), st.integers(0, 9)),
        st.tuples(st.just("take"), st.integers(0, 9), st.integers(0, 9)),
        st.tuples(st.just("give_back"), st.integers(0, 9)),
        st.tuples(st.just("change"), st.integers(1, 6)),
    ),
    max_size=120,
)


@given(moves=moves, limit=st.integers(1, 6))
@settings(max_examples=500, deadline=None)
def test_once_the_excess_has_drained_no_more_hold_a_slot_than_the_limit(moves: Any, limit: int) -> None:
    table, has_drained = Table(limit), True
    for name, *arguments in moves:
        before, was_changing = len(table.taken), table.is_changing
        getattr(table, name)(*arguments)
        if name == "change" or was_changing:
            has_drained = False
            continue
        # What is too much only becomes less, and from then on there is never too much again.
        assert len(table.taken) <= max(before, table.limit)
        assert not has_drained or len(table.taken) <= table.limit
        has_drained = has_drained or len(table.taken) <= table.limit


@given(st.sets(st.integers(0, 12)), st.integers(1, 10))
def test_what_is_free_is_below_the_limit_and_not_taken(taken: set[int], limit: int) -> None:
    free = free_slots(taken, limit)
    assert not set(free) & taken
    assert all(0 <= number < limit for number in free)
    assert len(free) + len(taken) <= max(limit, len(taken))


@given(st.integers(1, 10), st.data())
def test_without_excess_every_number_that_is_not_taken_is_free(limit: int, data: Any) -> None:
    taken = data.draw(st.sets(st.integers(0, limit - 1)))
    assert free_slots(taken, limit) == [number for number in range(limit) if number not in taken]


@pytest.mark.parametrize(
    ("taken", "limit", "expected"),
    [
        (set(), 2, [0, 1]),
        ({0}, 2, [1]),
        ({0, 1}, 2, []),
        ({5}, 2, [0]),
        ({4, 5}, 2, []),
        ({3, 5}, 4, [0, 1]),
        ({0, 7, 8, 9}, 3, []),
    ],
)
def test_numbers_past_the_limit_count(taken: set[int], limit: int, expected: list[int]) -> None:
    assert free_slots(taken, limit) == expected


@given(st.sets(st.integers(0, 12)), st.integers(1, 10))
def test_where_there_is_room_somebody_gets_in(taken: set[int], limit: int) -> None:
    """No slot is lost: with nobody else about, the limit is reached."""
    taken = set(taken)
    while free := free_slots(taken, limit):
        taken.add(free[0])
    assert len(taken) >= min(limit, len(taken))
    beyond = {number for number in taken if number >= limit}
    assert len(taken) >= limit or beyond
