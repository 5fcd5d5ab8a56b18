"""The trace that a run belongs to, as the run keeps it: W3C's ``traceparent`` and ``tracestate``, and nothing else."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from streamline.telemetry.providers import TELEMETRY

# Baggage stays behind: it may hold whatever users put there, and a run is kept for long.
_W3C: Final = TraceContextTextMapPropagator()
_STATE_MAX: Final = 512


def carried() -> dict[str, str] | None:
    """Return the present trace as a run or an event keeps it; None where there is none."""
    return None if TELEMETRY.tracer is None else written(trace.get_current_span())


def written(span: trace.Span) -> dict[str, str] | None:
    """Return a span's trace as it is stored; None where the span is of none."""
    if not span.get_span_context().is_valid:
        return None
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, trace.set_span_in_context(span, Context()))
    # What is too long would be cut by whoever reads it, too.
    return {name: text for name, text in carrier.items() if len(text) <= _STATE_MAX}


def context_of(stored: object, name: str = "traceparent") -> Context:
    """Return a stored trace as a context for spans; an empty one where nothing usable is stored."""
    if not isinstance(stored, Mapping) or not isinstance(stored.get(name), str):
        return Context()
    found: dict[str, Any] = {"traceparent": stored[name]}
    if name == "traceparent" and isinstance(stored.get("tracestate"), str):
        found["tracestate"] = stored["tracestate"]
    return _W3C.extract(found, Context())


@contextmanager
def detached() -> Generator[None, None, None]:
    """Begin what goes on in the background outside of the caller's trace."""
    token = context.attach(Context())
    try:
        yield
    finally:
        context.detach(token)
