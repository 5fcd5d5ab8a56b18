"""An SDK of OpenTelemetry in memory: what a backend would get."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

TRACERS, METERS = "opentelemetry.trace._TRACER_PROVIDER", "opentelemetry.metrics._internal._METER_PROVIDER"


class Spans(SpanProcessor):
    """Keeps the spans that have ended, and knows which have not."""

    def __init__(self) -> None:
        self.ended: list[ReadableSpan] = []
        self.open: dict[int, str] = {}
        self.started = 0

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        self.started += 1
        self.open[span.get_span_context().span_id] = span.name

    def on_end(self, span: ReadableSpan) -> None:
        self.ended.append(span)
        self.open.pop(id_of(span), None)

    def named(self, name: str) -> list[ReadableSpan]:
        """The spans of this name that have ended, in the order of their beginning."""
        return sorted((span for span in self.ended if span.name == name), key=lambda span: span.start_time or 0)

    def one(self, name: str) -> ReadableSpan:
        found = self.named(name)
        assert len(found) == 1, [span.name for span in self.ended]
        return found[0]

    def text(self) -> str:
        """Everything that is told of the spans."""
        return "\n".join(span.to_json() for span in self.ended)


class Measured:
    """What the meters have told."""

    def __init__(self, reader: InMemoryMetricReader) -> None:
        self._reader = reader

    def points(self, name: str) -> list[Any]:
        """The data points of an instrument."""
        data = self._reader.get_metrics_data()
        found = [] if data is None else data.resource_metrics
        metrics = [metric for each in found for scope in each.scope_metrics for metric in scope.metrics]
        return [point for metric in metrics if metric.name == name for point in metric.data.data_points]

    def value(self, name: str, **told: str) -> Any:
        """The sum, last value or count of measurements of the points that have these attributes."""
        wanted = {f"streamline.{key}": value for key, value in told.items()}
        fitting = [p for p in self.points(name) if wanted.items() <= dict(p.attributes).items()]
        return sum(getattr(p, "count", None) or getattr(p, "value", 0) for p in fitting)

    def units(self) -> dict[str, str]:
        data = self._reader.get_metrics_data()
        found = [] if data is None else data.resource_metrics
        return {m.name: m.unit for each in found for scope in each.scope_metrics for m in scope.metrics}


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


def trace_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.trace_id


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


@contextmanager
def tracing(
    patch: pytest.MonkeyPatch, sampler: Sampler = ALWAYS_ON, processor: SpanProcessor | None = None
) -> Iterator[Spans]:
    """Configure traces for a while; a process can have them configured but once, so the tests go around that."""
    spans, provider = Spans(), TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(processor or spans)
    with patch.context() as inner:
        inner.setattr(TRACERS, provider)
        yield spans


@contextmanager
def measuring(patch: pytest.MonkeyPatch) -> Iterator[Measured]:
    """Configure metrics for a while."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    with patch.context() as inner:
        inner.setattr(METERS, provider)
        yield Measured(reader)
    provider.shutdown()
