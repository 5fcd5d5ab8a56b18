"""Joins: how one stands, for every policy and whatever has become of the children."""

from __future__ import annotations

from datetime import timedelta
from itertools import permutations, product
from typing import Any

import pytest

from streamline.domain.statuses import TERMINAL
from streamline.errors import InvalidPolicy
from streamline.features.joining import Standing, check_policy, child_id, is_news, standing
from tests.conformance.documents import NOW

POLICIES: list[Any] = ["all", "any", "race", "settled", 1, 2, 3]
FATES = ("running", "done", "failed")


def children(*statuses: str, order: tuple[int, ...] | None = None) -> list[dict[str, Any]]:
    """Children that ended one after another, by default in the order of the join."""
    order = order or tuple(range(len(statuses)))
    made: list[dict[str, Any]] = []
    for i, status in enumerate(statuses):
        ended = {"ended_at": NOW + timedelta(seconds=order.index(i))} if status in TERMINAL else {}
        made.append({"_id": f"c{i}", "status": status, **ended})
    return made


@pytest.mark.parametrize("fates", list(product(FATES, repeat=3)))
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_a_join_is_met_when_nothing_can_change_it_and_not_before(policy: Any, fates: tuple[str, ...]) -> None:
    done, bad = fates.count("done"), fates.count("failed")
    expected = {
        "all": bad > 0 or done == 3,
        "any": done > 0 or bad == 3,
        "race": done + bad > 0,
        "settled": done + bad == 3,
    }
    met = expected[policy] if isinstance(policy, str) else done >= policy or 3 - bad < policy
    found = standing(children(*fates), policy)
    assert found.met == met
    if policy in ("all", "any") or isinstance(policy, int):
        wanted = 3 if policy == "all" else 1 if policy == "any" else policy
        assert found.failed == (met and done < wanted)
    if not met and policy != "settled":
        assert not found.failed


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("status", sorted(TERMINAL - {"done"}))
def test_every_end_but_done_counts_as_a_failure(policy: Any, status: str) -> None:
    assert standing(children(status, status, status), policy).failed == (policy != "settled")
    assert standing(children(status, status, status), policy).met


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_first_to_end_decides_and_comes_first(order: tuple[int, ...]) -> None:
    ended = children("done", "done", "done", order=order)
    assert standing(ended, "race").decisive == order[:1]
    assert standing(ended, "any").decisive == order[:1]
    assert standing(ended, 2).decisive == order[:2]
    mixed = children("failed", "done", "failed", order=order)
    assert standing(mixed, "race").failed == (order[0] != 1)
    assert standing(mixed, "all").decisive == tuple(i for i in order if i != 1)
    assert standing(mixed, "settled") == Standing(True, False, (0, 1, 2))


def test_of_two_that_ended_at_the_same_instant_the_first_of_the_join_is_first() -> None:
    same = [each | {"ended_at": NOW} for each in children("done", "failed")]
    assert standing(same, "race") == Standing(True, False, (0,))
    assert standing(same[::-1], "race") == Standing(True, True, (0,))


def test_a_join_of_none_is_met_at_once_unless_it_wants_one() -> None:
    assert standing([], "all") == Standing(True)
    assert standing([], "settled") == Standing(True)
    assert standing([], "any").failed


@pytest.mark.parametrize("policy", ["all", "any", "race", "settled"])
@pytest.mark.parametrize("before", list(product(FATES, repeat=2)))
@pytest.mark.parametrize("end", ["done", "failed"])
def test_an_end_that_decides_a_join_while_others_are_at_work_is_news(
    policy: Any, before: tuple[str, ...], end: str
) -> None:
    was, now = standing(children("running", *before), policy), standing(children(end, *before), policy)
    if now.met and not was.met and "running" in before:
        assert is_news(policy, done=end == "done")


def test_ends_that_decide_nothing_by_themselves_are_no_news() -> None:
    assert not is_news("all", done=True)
    assert not is_news("any", done=False)
    assert not any(is_news("settled", done=done) for done in (True, False))


@pytest.mark.parametrize("policy", [0, -1, 4, 2.0, True, None, "first", ["all"]])
def test_a_policy_that_cannot_be_met_is_refused(policy: Any) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        check_policy(policy, 3)
    assert caught.value.field == "policy"


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_a_policy_that_can_be_met_is_taken(policy: Any) -> None:
    assert check_policy(policy, 3) == policy


def id_of(parent_id: str, fan: str, name: str, born: str = "b") -> str:
    return child_id({"_id": parent_id, "born": born}, fan, name)


def test_a_childs_id_follows_from_its_parents_birth_and_its_place_and_from_nothing_else() -> None:
    ids = [id_of("p", "f", "n"), id_of("p", "f", "m"), id_of("p", "g", "n"), id_of("q", "f", "n")]
    assert len({*ids, id_of("p", "f", "n", born="c")}) == 5
    assert id_of("p", "f", "n") == ids[0]
    assert id_of("p", "a", "bc") != id_of("p", "ab", "c")
    assert len(id_of("p" * 1000, "f", "n")) <= 225
    assert id_of("p" * 300 + "a", "f", "n") != id_of("p" * 300 + "b", "f", "n")
