"""Durations as users write them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.domain.durations import parse_duration
from streamline.errors import InvalidPolicy


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("30s", 30),
        ("5m", 300),
        ("1h", 3600),
        ("2d", 172_800),
        ("1.5h", 5400),
        ("0.5s", 0.5),
        (" 7s ", 7),
        ("0s", 0),
        (0, 0),
        (90, 90),
        (0.25, 0.25),
        (timedelta(minutes=3), 180),
        (timedelta(days=36_500), 36_500 * 86_400),
    ],
)
def test_a_duration_is_read(text: Any, seconds: float) -> None:
    assert parse_duration(text, "timeout") == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "5",
        "s",
        "5 s",
        "5S",
        "-5s",
        "+5s",
        "1h30m",
        "5w",
        "five",
        "1e3s",
        "5s\n5s",
        "٥s5",
        None,
        True,
        False,
        [],
        {},
        b"5s",
        object(),
        -1,
        -0.001,
        timedelta(microseconds=-1),
        float("nan"),
        float("inf"),
        float("-inf"),
        1e20,
        10**30,
        "99999999999999999999d",
        timedelta(days=36_501),
        timedelta.max,
    ],
    ids=repr,
)
def test_what_is_no_duration_is_refused_with_its_field(bad: Any) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        parse_duration(bad, "retry.delay")
    assert caught.value.field == "retry.delay"
    assert str(caught.value).startswith("retry.delay: ")


@pytest.mark.parametrize("zero", [0, 0.0, "0s", "0ms", timedelta()], ids=repr)
def test_zero_is_refused_where_it_makes_no_sense(zero: Any) -> None:
    with pytest.raises(InvalidPolicy, match="more than zero"):
        parse_duration(zero, "timeout", positive=True)


@given(st.timedeltas(min_value=timedelta(), max_value=timedelta(days=36_500)))
def test_a_timedelta_is_itself(duration: timedelta) -> None:
    assert parse_duration(duration, "x") is duration


@given(st.integers(0, 100_000), st.sampled_from(["ms", "s", "m", "h"]))
def test_whole_numbers_of_a_unit_are_exact(count: int, unit: str) -> None:
    of_unit = {
        "ms": timedelta(milliseconds=1),
        "s": timedelta(seconds=1),
        "m": timedelta(minutes=1),
        "h": timedelta(hours=1),
    }
    assert parse_duration(f"{count}{unit}", "x") == count * of_unit[unit]
