"""How often and how fast a failing step is tried again."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline import RetryPolicy
from streamline.errors import InvalidPolicy


def pauses(policy: RetryPolicy, count: int = 6, chance: float = 0.0) -> list[float]:
    return [policy.pause_after(failures, chance).total_seconds() for failures in range(1, count + 1)]


def test_the_defaults_are_those_of_the_contract() -> None:
    policy = RetryPolicy()
    assert (policy.max_attempts, policy.delay, policy.backoff) == (3, "1s", "exponential")
    assert (policy.max_delay, policy.jitter, policy.retry_on) == ("60s", 0.3, (Exception,))


@pytest.mark.parametrize(
    ("backoff", "expected"),
    [
        ("fixed", [2, 2, 2, 2, 2, 2]),
        ("linear", [2, 4, 6, 8, 10, 10]),
        ("exponential", [2, 4, 8, 10, 10, 10]),
        (1, [2, 2, 2, 2, 2, 2]),
        (1.0, [2, 2, 2, 2, 2, 2]),
        (3, [2, 6, 10, 10, 10, 10]),
        (1.5, [2, 3, 4.5, 6.75, 10, 10]),
    ],
)
def test_pauses_grow_as_the_backoff_says_and_no_longer_than_allowed(backoff: Any, expected: list[float]) -> None:
    policy = RetryPolicy(delay=2, backoff=backoff, max_delay=10, jitter=0)
    assert pauses(policy) == pytest.approx(expected)


def test_the_default_pauses() -> None:
    assert pauses(RetryPolicy(), 8) == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60])


@pytest.mark.parametrize("backoff", ["fixed", "linear", "exponential", 1.5, 1000])
@pytest.mark.parametrize("failures", [1, 10, 1_000, 10**6, 10**12])
def test_no_number_of_failures_overflows(backoff: Any, failures: int) -> None:
    policy = RetryPolicy(max_attempts=10**6, delay="100d", max_delay="36500d", backoff=backoff, jitter=1)
    assert timedelta() <= policy.pause_after(failures, 1.0) <= 2 * timedelta(days=36_500)


def test_no_delay_is_no_pause() -> None:
    assert pauses(RetryPolicy(delay=0), chance=1.0) == [0] * 6


@given(
    st.integers(1, 10**6),
    st.floats(-1, 1),
    st.floats(0, 1),
    st.one_of(st.sampled_from(["fixed", "linear", "exponential"]), st.floats(1, 1000)),
)
def test_jitter_keeps_within_its_share(failures: int, chance: float, jitter: float, backoff: Any) -> None:
    still = RetryPolicy(delay=3, backoff=backoff, max_delay=600, jitter=0).pause_after(failures, chance).total_seconds()
    moved = RetryPolicy(delay=3, backoff=backoff, max_delay=600, jitter=jitter).pause_after(failures, chance)
    assert still * (1 - jitter) - 1e-5 <= moved.total_seconds() <= still * (1 + jitter) + 1e-5
    assert math.isclose(moved.total_seconds(), still * (1 + jitter * chance), abs_tol=1e-5)


BAD: list[tuple[str, Any]] = [
    *[("max_attempts", bad) for bad in (0, -1, 1.5, 1.0, "3", True, None, 10**6 + 1, 10**9, float("nan"))],
    *[("delay", bad) for bad in (-1, "soon", None, float("nan"), float("inf"), True)],
    *[("max_delay", bad) for bad in (-1, "x", None, float("inf"))],
    *[("backoff", bad) for bad in (0, 0.5, -2, "quadratic", None, True, float("nan"), float("inf"), 1001, [])],
    *[("jitter", bad) for bad in (-0.1, 1.1, "0.3", None, True, float("nan"))],
    *[("retry_on", bad) for bad in (Exception, [Exception], "Exception", (int,), (ValueError(),), None, 5)],
]


@pytest.mark.parametrize(("field", "bad"), BAD, ids=repr)
def test_a_value_out_of_range_is_refused_with_its_field(field: str, bad: Any) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        RetryPolicy(**{field: bad})
    assert caught.value.field == field


def test_a_policy_can_be_compared_and_hashed() -> None:
    assert RetryPolicy(delay="1s") == RetryPolicy()
    assert len({RetryPolicy(), RetryPolicy(), RetryPolicy(max_attempts=4)}) == 2
    with pytest.raises(AttributeError):
        RetryPolicy().delay = "2s"  # type: ignore[misc]


def test_nothing_to_retry_on_is_allowed() -> None:
    assert RetryPolicy(retry_on=()).retry_on == ()
