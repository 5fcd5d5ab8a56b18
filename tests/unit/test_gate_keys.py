"""The keys of gates: one text for each workflow, tenant and key, and no two the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamline import Concurrency, Debounce, Throttle, Workflow
from streamline.domain.definition import Definition
from streamline.domain.gates import full_key, gate_of, short_key
from streamline.errors import InvalidKey

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,5}", fullmatch=True)
texts = st.text(alphabet="ab1:/-", max_size=6)
places = st.tuples(names, st.none() | texts, texts)


@given(places, places)
@example(("w", None, "k"), ("w", "", "k"))
@example(("w", "1:a", "b"), ("w", "1", "a/b"))
@example(("w", "a", "b/c"), ("w", "a/b", "c"))
def test_no_two_places_share_a_key(one: Any, other: Any) -> None:
    assert (full_key(*one) == full_key(*other)) == (one == other)


@given(places)
def test_the_users_part_is_read_back(place: Any) -> None:
    assert short_key(full_key(*place)) == place[2]


@given(places)
def test_the_workflow_is_what_stands_before_the_first_slash(place: Any) -> None:
    assert full_key(*place).partition("/")[0] == place[0]


def declared(**gates: Any) -> Definition:
    wf: Workflow[Any, Any, Any] = Workflow("orders", **gates)

    @wf.step
    async def only(ctx: Any) -> None: ...

    return wf.definition


def test_a_workflow_without_gates_has_none() -> None:
    assert gate_of(declared(), {"a": 1}, None) == {}


def test_each_gate_has_a_key_of_its_own() -> None:
    definition = declared(
        concurrency=Concurrency(1, key=lambda given: given["a"]),
        throttle=Throttle(1, "1s"),
        debounce=Debounce("1s", key=lambda given: f"b{given['a']}"),
    )
    assert gate_of(definition, {"a": 7}, None) == {
        "slot_key": full_key("orders", None, "7"),
        "throttle_key": full_key("orders", None, ""),
        "debounce_key": full_key("orders", None, "b7"),
    }
    assert gate_of(definition, {"a": 7}, "t")["slot_key"] == full_key("orders", "t", "7")


def test_a_key_is_a_function_of_the_validated_input() -> None:
    seen: list[Any] = []
    definition = declared(input=dict[str, int], concurrency=Concurrency(1, key=lambda given: seen.append(given) or "k"))
    gate_of(definition, {"a": 1}, None)
    assert seen == [{"a": 1}]


@pytest.mark.parametrize("key", [None, "", True, 1.5, b"k", ["k"], "a\0b", "\ud800", "k" * 5000])
@pytest.mark.parametrize("gate", ["concurrency", "throttle", "debounce"])
def test_what_cannot_be_a_key_is_refused(gate: str, key: Any) -> None:
    policy = {"concurrency": Concurrency(1, key=lambda _: key), "throttle": Throttle(1, "1s", key=lambda _: key)}
    policy |= {"debounce": Debounce("1s", key=lambda _: key)}  # type: ignore[dict-item]
    with pytest.raises(InvalidKey) as raised:
        gate_of(declared(**{gate: policy[gate]}), 1, None)
    field = {"concurrency": "slot_key", "throttle": "throttle_key", "debounce": "debounce_key"}[gate]
    assert raised.value.field == field


@pytest.mark.parametrize("key", [0, -1, 10**30])
def test_a_whole_number_is_a_key(key: int) -> None:
    assert gate_of(declared(throttle=Throttle(1, "1s", key=lambda _: key)), 1, None)["throttle_key"].endswith(f"/{key}")


def test_a_key_function_that_fails_is_named_and_tells_no_values() -> None:
    def fail(value: Any) -> str:
        raise ValueError(f"secret {value}")

    with pytest.raises(InvalidKey) as raised:
        gate_of(declared(concurrency=Concurrency(1, key=fail)), "hunter2", None)
    assert "ValueError" in str(raised.value)
    assert "hunter2" not in str(raised.value)
