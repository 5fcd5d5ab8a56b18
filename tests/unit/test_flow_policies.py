"""What users may declare of flow control; what cannot work is refused at once, and named."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streamline import Concurrency, Debounce, Throttle, Workflow
from streamline.errors import InvalidPolicy

LIMITS = [0, -1, 1.0, 1.5, True, False, "1", None, 10_001, [1]]
DURATIONS = [0, -1, "0s", "-1s", "soon", "", None, True, timedelta(), timedelta(seconds=-1), [1]]
KEYS = ["user_id", 1, object(), ["a"]]


def refused(build: Any, field: str) -> None:
    with pytest.raises(InvalidPolicy) as raised:
        build()
    assert raised.value.field == field
    assert field in str(raised.value)


@pytest.mark.parametrize("limit", LIMITS)
def test_limits(limit: Any) -> None:
    refused(lambda: Concurrency(limit), "limit")
    refused(lambda: Throttle(limit, "1s"), "limit")


@pytest.mark.parametrize("limit", [1, 10_000])
def test_the_least_and_the_largest_limit(limit: int) -> None:
    assert Concurrency(limit).limit == Throttle(limit, "1s").limit == limit


@pytest.mark.parametrize("window", DURATIONS)
def test_windows(window: Any) -> None:
    refused(lambda: Throttle(1, window), "window")
    refused(lambda: Debounce(window), "window")


@pytest.mark.parametrize("max_wait", [wait for wait in DURATIONS if wait is not None])
def test_longest_waits(max_wait: Any) -> None:
    refused(lambda: Debounce("1s", max_wait=max_wait), "max_wait")


def test_the_longest_wait_is_not_shorter_than_the_window() -> None:
    refused(lambda: Debounce("10s", max_wait="9s"), "max_wait")
    assert Debounce("10s", max_wait="10s").longest == timedelta(seconds=10)


@pytest.mark.parametrize("key", KEYS)
def test_keys(key: Any) -> None:
    refused(lambda: Concurrency(1, key=key), "key")
    refused(lambda: Throttle(1, "1s", key=key), "key")
    refused(lambda: Debounce("1s", key=key), "key")


@pytest.mark.parametrize("on_limit", ["wait", "", None, True, 1, "Queue"])
def test_what_happens_at_the_limit(on_limit: Any) -> None:
    refused(lambda: Concurrency(1, on_limit=on_limit), "on_limit")


@pytest.mark.parametrize("window", ["1m", 60, 60.0, timedelta(minutes=1)])
def test_durations_in_every_form(window: Any) -> None:
    assert Throttle(1, window).window_time == Debounce(window).window_time == timedelta(minutes=1)


@pytest.mark.parametrize("gate", ["concurrency", "throttle", "debounce"])
@pytest.mark.parametrize("value", [1, "1", {"limit": 1}, (1, "1s")])
def test_a_workflow_takes_policies_only(gate: str, value: Any) -> None:
    refused(lambda: Workflow("orders", **{gate: value}), gate)


def test_a_workflow_does_not_take_one_policy_for_another() -> None:
    refused(lambda: Workflow("orders", concurrency=Throttle(1, "1s")), "concurrency")  # type: ignore[arg-type]
    refused(lambda: Workflow("orders", throttle=Concurrency(1)), "throttle")  # type: ignore[arg-type]


def test_the_defaults_are_those_of_the_contract() -> None:
    assert (Concurrency(1).key, Concurrency(1).on_limit) == (None, "queue")
    assert Throttle(1, "1s").key is None
    assert (Debounce("1s").key, Debounce("1s").max_wait) == (None, None)
