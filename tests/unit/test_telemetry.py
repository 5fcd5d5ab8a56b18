"""When anything is told at all, and how a trace is kept."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import NoOpTracerProvider

from streamline.telemetry import SPEAKING_OF, RunFields, about, carried, starting
from streamline.telemetry.measuring import Instrument
from streamline.telemetry.providers import Telemetry
from streamline.telemetry.run_fields import FIELDS
from streamline.telemetry.sections import NOTHING
from streamline.telemetry.trace_context import context_of, written
from tests.integration.exported import TRACERS, measuring, tracing

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("see", ["look", "glance"])
def test_what_is_configured_is_seen_when_it_comes_and_when_it_goes(monkeypatch: pytest.MonkeyPatch, see: str) -> None:
    telemetry = Telemetry()
    getattr(telemetry, see)()
    assert telemetry.tracer is telemetry.meters is None
    with tracing(monkeypatch), measuring(monkeypatch):
        getattr(telemetry, see)()
        tracer, meters = telemetry.tracer, telemetry.meters
        assert tracer is not None
        assert meters is not None
        getattr(telemetry, see)()
        assert (telemetry.tracer, telemetry.meters) == (tracer, meters), "made once"
    getattr(telemetry, see)()
    assert telemetry.tracer is telemetry.meters is None


def test_a_provider_that_does_nothing_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TRACERS, NoOpTracerProvider())
    telemetry = Telemetry()
    telemetry.look()
    assert telemetry.tracer is None


def test_nothing_is_made_where_nobody_wants_it() -> None:
    section = starting("flow", "1.0.0", None)
    assert section is NOTHING
    assert section.step({}, 0, 1, undo=False) is section.call({}, "step", "key") is NOTHING
    assert carried() is None


def test_a_trace_is_kept_and_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = {"traceparent": PARENT, "tracestate": "vendor=5", "last": PARENT.replace("b7ad6b", "aaaaaa")}
    span = trace.get_current_span(context_of(stored))
    assert written(span) == {"traceparent": PARENT, "tracestate": "vendor=5"}
    last = trace.get_current_span(context_of(stored, "last")).get_span_context()
    assert f"{last.span_id:016x}" == "aaaaaa7169203331"
    assert not last.trace_state
    long = {"traceparent": PARENT, "tracestate": ",".join(f"v{n}={'x' * 100}" for n in range(9))}
    assert written(trace.get_current_span(context_of(long))) == {"traceparent": PARENT}


@pytest.mark.parametrize("stored", [None, "text", 7, [], {}, {"traceparent": 5}, {"traceparent": "00-0-0-01"}])
def test_a_trace_that_cannot_be_read_is_none(stored: Any) -> None:
    assert not trace.get_current_span(context_of(stored)).get_span_context().is_valid


@pytest.mark.parametrize(
    ("run", "step", "attempt"),
    [
        ({"steps": [{"id": "a"}, {"id": "b"}], "cursor": 1, "attempt": 2, "status": "running"}, "b", 2),
        ({"steps": [{"id": "a", "group": "g"}], "cursor": 0, "attempt": 2, "status": "running"}, None, None),
        ({"steps": [{"id": "a"}], "cursor": 0, "attempt": 2, "status": "compensating"}, None, None),
        ({"steps": [{"id": "a"}], "cursor": 5}, None, None),
        ({"steps": "damaged", "cursor": "damaged", "lease": "damaged"}, None, None),
        ({"steps": ["damaged"], "cursor": 0}, None, None),
        ({}, None, None),
    ],
)
def test_fields_of_any_run_can_be_told(run: dict[str, Any], step: str | None, attempt: int | None) -> None:
    told = about(run)
    assert tuple(told) == FIELDS
    assert (told["step"], told["attempt"], told["worker"]) == (step, attempt, None)


def test_the_filter_adds_all_fields_or_none() -> None:
    def record(**fields: Any) -> logging.LogRecord:
        made = logging.makeLogRecord({"msg": "m", **fields})
        assert RunFields().filter(made)
        return made

    assert [getattr(record(), name) for name in FIELDS] == [None] * len(FIELDS)
    token = SPEAKING_OF.set(("r1", "flow", "1.0.0", "work", 3, None, "w"))
    assert (record().run_id, record().step, record().attempt) == ("r1", "work", 3)  # type: ignore[attr-defined]
    other = record(run_id="r2")  # a record about another run is not mixed with this one
    assert (other.run_id, other.step) == ("r2", None)  # type: ignore[attr-defined]
    SPEAKING_OF.reset(token)


def test_who_measures_cannot_harm_the_work(caplog: pytest.LogCaptureFixture) -> None:
    taken: list[float] = []

    def take(value: float, told: Any) -> None:
        taken.append(value)
        raise RuntimeError("the exporter is full")

    instrument = Instrument(take)
    with caplog.at_level(logging.WARNING, "streamline.engine"):
        for value in (1, 2, 3):
            instrument(value, {})
    assert taken == [1, 2, 3]
    assert len(caplog.records) == 1
