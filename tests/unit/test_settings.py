"""Every knob has a range, and says which one was turned too far."""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta
from typing import Any

import pytest

from streamline import Settings, Worker
from streamline.errors import InvalidPolicy

BAD_WORKER: list[tuple[str, Any]] = [
    *[("concurrency", bad) for bad in (0, -1, 10_001, "5", True, 1.5, None)],
    *[("claim_batch", bad) for bad in (0, 1_001, "5", None)],
    *[("on_lost", bad) for bad in ("retry", "", None, True)],
    *[("max_recoveries", bad) for bad in (-1, 1.5, None, True, 10**6 + 1)],
    *[("threads", bad) for bad in (0, 1_001, "2")],
    *[("lease", bad) for bad in (0, -1, "199ms", "soon", None, float("nan"), True)],
    *[("poll_interval", bad) for bad in (0, -1, "x", None)],
    *[("drain", bad) for bad in (-1, "x", None)],
    *[("cancel_grace", bad) for bad in (-1, "x", None)],
]
BAD_SETTINGS: list[tuple[str, Any]] = [
    *[(name, bad) for name in ("payload_warn", "payload_max", "document_max") for bad in (0, -1, "1", True, None, 1.5)],
    *[("lanes", bad) for bad in (0, 17, "2")],
    *[("batch", bad) for bad in (0, 1_001)],
    *[("operations", bad) for bad in (0, 1_001)],
    *[("call_timeout", bad) for bad in (0, -1, "x", None)],
    *[("patience", bad) for bad in (0, -1, "x", None)],
    *[("wakes_size", bad) for bad in (4_095, 0, "x")],
    *[("webhook_networks", bad) for bad in ("127.0.0.0/8", ["127.0.0.1/8"], ["x"], [None], None, 5, [""])],
    *[("webhook_timeout", bad) for bad in (0, -1, "x", None)],
    *[("webhook_retry", bad) for bad in (None, 5, {"max_attempts": 3})],
    *[("webhook_failures", bad) for bad in (0, 1_000_001, "5", None)],
    *[("webhook_failing", bad) for bad in (-1, "x", None)],
]


@pytest.mark.parametrize(
    ("kind", "name", "bad"),
    [(Worker, *each) for each in BAD_WORKER] + [(Settings, *each) for each in BAD_SETTINGS],
    ids=repr,
)
def test_a_value_out_of_range_is_refused_with_its_field(kind: Any, name: str, bad: Any) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        kind(**{name: bad})
    assert caught.value.field == name


def test_the_defaults_are_those_of_the_docs() -> None:
    worker, settings = Worker(), Settings()
    assert (worker.concurrency, worker.lease_time, worker.max_recoveries) == (100, timedelta(seconds=30), 10)
    assert worker.beat_seconds == 7.5
    assert worker.poll_seconds == 5
    assert (worker.drain_seconds, worker.grace_seconds) == (10, 5)
    assert (settings.payload_warn, settings.payload_max, settings.document_max) == (2**20, 4 * 2**20, 12 * 2**20)
    assert (settings.call_seconds, settings.patience_seconds) == (10, 30)


def test_durations_may_be_written_in_every_form() -> None:
    for minute in ("1m", 60, 60.0, timedelta(minutes=1)):
        assert Worker(lease=minute).lease_time == timedelta(minutes=1)
        assert Settings(patience=minute).patience_seconds == 60


def test_the_lease_outlives_three_missed_beats() -> None:
    for lease in ("200ms", "1s", "30s", "1h"):
        worker = Worker(lease=lease)
        assert 4 * worker.beat_seconds <= worker.lease_time.total_seconds()


@pytest.mark.parametrize("kind", [Worker, Settings])
def test_every_knob_is_described(kind: Any) -> None:
    for knob in fields(kind):
        if knob.init:
            assert f"        {knob.name}: " in kind.__doc__, knob.name
