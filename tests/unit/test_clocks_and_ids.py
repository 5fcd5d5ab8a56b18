"""Time and identity: the two seams."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from streamline.clock import SystemClock
from streamline.ids import new_run_id, new_token, new_worker_id


def test_the_clock_tells_aware_utc_in_whole_milliseconds() -> None:
    now = SystemClock().now()
    assert now.tzinfo is UTC
    assert now.microsecond % 1000 == 0
    assert abs(now - datetime.now(UTC)) < timedelta(seconds=1)


def test_the_clock_never_goes_back() -> None:
    clock = SystemClock()
    readings = [(clock.now(), clock.monotonic()) for _ in range(1000)]
    assert readings == sorted(readings)


@pytest.mark.parametrize("behind", [timedelta(hours=1), timedelta(hours=-1), timedelta(milliseconds=50)])
def test_the_clock_can_be_set_to_the_servers_time(behind: timedelta) -> None:
    clock = SystemClock()
    before = clock.monotonic()
    told = clock.calibrate(clock.now() + behind, round_trip=0.0)
    assert abs(told - behind) < timedelta(milliseconds=20)
    assert abs(clock.now() - datetime.now(UTC) - behind) < timedelta(milliseconds=500)
    assert clock.monotonic() >= before
    assert abs(clock.calibrate(clock.now(), round_trip=0.0)) < timedelta(milliseconds=20)


def test_differences_within_the_reading_change_nothing() -> None:
    clock, untouched = SystemClock(), SystemClock()
    clock.calibrate(clock.now() - timedelta(milliseconds=500 - 300), round_trip=1.0)
    assert abs(clock.now() - untouched.now()) < timedelta(milliseconds=50)


async def test_sleeping_takes_as_long_as_it_says() -> None:
    clock, began = SystemClock(), time.monotonic()
    await clock.sleep(0.03)
    assert time.monotonic() - began >= 0.029
    await clock.sleep(-5)
    assert time.monotonic() - began < 5


def test_run_ids_are_unique_and_sort_by_time() -> None:
    ids = []
    for _ in range(5):
        ids += [new_run_id() for _ in range(200)]
        time.sleep(0.002)
    assert len(set(ids)) == 1000
    assert [run_id[:12] for run_id in ids] == sorted(run_id[:12] for run_id in ids)
    assert {len(run_id) for run_id in ids} == {32}
    made_at = int(ids[0][:12], 16) / 1000
    assert abs(made_at - time.time()) < 5


def test_tokens_and_worker_ids_are_unique() -> None:
    assert len({new_token() for _ in range(1000)}) == 1000
    assert len({new_worker_id() for _ in range(100)}) == 100
    assert len(new_token()) >= 16
