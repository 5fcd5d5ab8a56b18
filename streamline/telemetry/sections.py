"""Spans: of a start, of a stretch in which a worker drives a run, of an attempt of a step, of a durable call.

Each is the current one for the code inside it, and ends however that code ends.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from streamline.domain.change import Change
from streamline.telemetry.discretion import discreet_message, where
from streamline.telemetry.providers import TELEMETRY
from streamline.telemetry.trace_context import context_of, written

logger = logging.getLogger("streamline.engine")

_STACK_MAX: Final = 8192
_KEY_MAX: Final = 256
_FAILED: Final = ("failed", "compensation_failed")


class Section:
    """A part of the work that may be told of; this one tells nobody."""

    __slots__ = ()

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""

    def tell(self, name: str, value: str | bool | int | None) -> None:
        """Add an attribute, named without ``streamline.``, where there is a value."""

    def failed(self, error: BaseException) -> None:
        """Record what went wrong."""

    def left(self, run: Mapping[str, Any], why: str | None) -> None:
        """Record how a run is left: its status, or why it is no longer this worker's."""

    def step(self, run: Mapping[str, Any], k: int, attempt: int, *, undo: bool) -> Section:
        """Return the section of an attempt of the run's step `k`, or of its compensation."""
        return self

    def call(self, run: Mapping[str, Any], step: str, address: str) -> Section:
        """Return the section of a durable call."""
        return self

    def leaving(self, run: Mapping[str, Any], change: Change) -> Change:
        """Return a change that, where it lets go of the run, leaves word of this stretch for the next one."""
        return change


NOTHING: Final = Section()


class Span(Section):
    """A part of the work that is told to the tracer."""

    __slots__ = ("_around", "_span", "_token", "_tracer")

    def __init__(self, tracer: trace.Tracer, span: trace.Span, around: Context | None = None) -> None:
        self._tracer = tracer
        self._span = span
        self._around = around

    def __enter__(self) -> Self:
        """Make the span the current one."""
        self._token = context.attach(trace.set_span_in_context(self._span, self._around))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the span; what only leaves a handler, or ends a task, is no error."""
        context.detach(self._token)
        if isinstance(error, Exception):
            self.failed(error)
        try:
            self._span.end()
        except Exception as raised:  # noqa: BLE001 - what spans are handed to must not harm a run
            _report(raised)

    def tell(self, name: str, value: str | bool | int | None) -> None:
        """Add an attribute, named without ``streamline.``, where there is a value."""
        if value is not None:
            self._span.set_attribute(f"streamline.{name}", value)

    def failed(self, error: BaseException) -> None:
        """Record what went wrong: its type, what the run keeps of its message, and where, but no values."""
        kind, said = type(error).__qualname__, discreet_message(error)
        told = {"exception.type": kind, "exception.message": said, "exception.stacktrace": where(error)[-_STACK_MAX:]}
        self._span.add_event("exception", told)
        self._span.set_attribute("error.type", kind)
        self._span.set_status(Status(StatusCode.ERROR, said))

    def left(self, run: Mapping[str, Any], why: str | None) -> None:
        """Record how a run is left: its status, or why it is no longer this worker's."""
        status = why or str(run.get("status"))
        self.tell("status", status)
        if status in _FAILED:
            error = run.get("error")
            kind = str(error.get("type")) if isinstance(error, Mapping) else "unknown"
            self._span.set_attribute("error.type", kind)
            self._span.set_status(Status(StatusCode.ERROR, f"the run is {status}: {kind}"))

    def step(self, run: Mapping[str, Any], k: int, attempt: int, *, undo: bool) -> Section:
        """Return the section of an attempt of the run's step `k`, or of its compensation."""
        step, what = run["steps"][k]["id"], "compensation" if undo else "step"
        told = {**_of(run), "streamline.step": step, "streamline.attempt": attempt}
        return self._within(f"streamline.{what} {run['workflow']}/{step}", told)

    def call(self, run: Mapping[str, Any], step: str, address: str) -> Section:
        """Return the section of a durable call."""
        told = {**_of(run), "streamline.step": step, "streamline.call": address[:_KEY_MAX]}
        return self._within(f"streamline.call {run['workflow']}/{step}", told)

    def leaving(self, run: Mapping[str, Any], change: Change) -> Change:
        """Return a change that, where it lets go of the run, leaves word of this stretch for the next one."""
        own = written(self._span)
        if own is None or "lease" not in change.drop or not isinstance(run.get("trace", {}), Mapping):
            return change
        left: dict[str, Any] = {"trace": {**own, "last": own["traceparent"]}}
        if "traceparent" in run.get("trace", {}):
            left = {"trace.last": own["traceparent"]}
        return replace(change, put={**change.put, **left})

    def _within(self, name: str, told: Mapping[str, Any]) -> Section:
        return _begun(self._tracer, name, told)


def starting(workflow: str, version: str, tenant_id: str | None, *, count: int = 1, origin: object = None) -> Section:
    """Return the section in which runs are stored.

    Args:
        workflow: Their workflow.
        version: Its version.
        tenant_id: Whose runs they are.
        count: How many there are.
        origin: The stored trace of what starts them; default the present one.
    """
    TELEMETRY.glance()
    tracer = TELEMETRY.tracer
    if tracer is None:
        return NOTHING
    told: dict[str, Any] = {"streamline.workflow": workflow, "streamline.version": version}
    told |= {} if tenant_id is None else {"streamline.tenant_id": tenant_id}
    told |= {} if count == 1 else {"streamline.runs": count}
    parent = None if origin is None else context_of(origin)
    return _begun(tracer, f"streamline.start {workflow}", told, parent, kind=SpanKind.PRODUCER)


def driving(run: Mapping[str, Any]) -> Section:
    """Return the section in which this worker drives a run: in the trace of its start, linked to the stretch before."""
    tracer = TELEMETRY.tracer
    if tracer is None:
        return NOTHING
    before = trace.get_current_span(context_of(run.get("trace"), "last")).get_span_context()
    lease = run.get("lease") or {}
    told = {**_of(run), "streamline.worker": str(lease.get("worker"))}
    links, name = [Link(before)] if before.is_valid else None, f"streamline.drive {run.get('workflow')}"
    # Whatever else is about where the run was started would be missing in its next stretch.
    parent = context_of(run.get("trace"))
    return _begun(tracer, name, told, parent, kind=SpanKind.CONSUMER, links=links, around=Context())


def _begun(
    tracer: trace.Tracer,
    name: str,
    told: Mapping[str, Any],
    parent: Context | None = None,
    *,
    around: Context | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    links: Sequence[Link] | None = None,
) -> Section:
    try:
        return Span(tracer, tracer.start_span(name, parent, kind, dict(told), links), around)
    except Exception as raised:  # noqa: BLE001 - what spans are handed to must not harm a run
        _report(raised)
        return NOTHING


def _report(raised: Exception) -> None:
    logger.warning("a span could not be told of: %s", type(raised).__name__, exc_info=raised)


def _of(run: Mapping[str, Any]) -> dict[str, Any]:
    names = {"workflow": "workflow", "version": "version", "run_id": "_id", "tenant_id": "tenant_id"}
    return {f"streamline.{name}": value for name, at in names.items() if isinstance(value := run.get(at), str)}
