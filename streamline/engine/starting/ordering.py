"""What a caller asks for when starting a run: checked and encoded before anything is stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict

from streamline.domain.definition import Definition
from streamline.domain.durations import Duration, check_instant, parse_duration
from streamline.domain.gates import gate_of
from streamline.domain.names import check_key, check_metadata, check_new_run_id, check_tags
from streamline.domain.payloads import ANY, NO_VALUE, Encoded, check_input
from streamline.domain.transitions.birth import Order
from streamline.engine.held.limits import check_payload
from streamline.engine.runtime import Runtime
from streamline.errors import InvalidKey, InvalidPolicy
from streamline.ids import new_run_id
from streamline.store import Scope
from streamline.telemetry import carried

PRIORITY_MAX = 2**31 - 1


class StartRules(TypedDict, total=False):
    """How a run is to be started, beside its workflow, input and limit of time; see `Streamline.start`."""

    idempotency_key: str | None
    idempotency: Literal["active", "forever"]
    start_by: Duration | datetime | None
    priority: int
    delay: Duration | None
    run_at: datetime | None
    tags: Sequence[str]
    metadata: Mapping[str, Any] | None
    run_id: str | None


class StartOptions(StartRules, total=False):
    """How a run is to be started, beside its workflow and input; see `Streamline.start`."""

    timeout: Duration | None
    session: Any


def order_of(runtime: Runtime, definition: Definition, value: Any, options: StartOptions, scope: Scope) -> Order:
    """Return the order for a run, if everything in it is of the allowed form; raise what `Streamline.start` names."""
    encoded = check_input(definition.input, value)
    check_payload(runtime, definition.max_payload_bytes, encoded, "input")
    if unknown := set(options) - StartOptions.__annotations__.keys():
        raise TypeError(f"start() got unexpected keyword arguments: {', '.join(sorted(unknown))}")
    if options.get("idempotency", "active") not in ("active", "forever"):
        raise InvalidKey('idempotency: "active" or "forever"', field="idempotency")
    key, run_id = options.get("idempotency_key"), options.get("run_id")
    if key is None and definition.idempotency_key is not None:
        key = _derived_key(definition.idempotency_key, definition.input.decode(encoded.value))
    if key is None and options.get("idempotency") == "forever":
        raise InvalidKey('idempotency_key: "forever" needs one', field="idempotency_key")
    metadata = _metadata(runtime, definition, options.get("metadata"))
    begins = due_at_of(runtime, options) or runtime.clock.now()
    return Order(
        run_id=new_run_id() if run_id is None else check_new_run_id(run_id),
        definition=definition,
        input=encoded.value,
        weight=encoded.size + metadata.size,
        priority=_checked_priority(options.get("priority", 0)),
        tenant_id=scope.tenant_id,
        idempotency_key=None if key is None else check_key(key, "idempotency_key"),
        is_kept=options.get("idempotency") == "forever",
        gate=gate_of(definition, encoded.value, scope.tenant_id),
        tags=tuple(check_tags(options.get("tags", ()))),
        metadata=metadata.value,
        start_by=_checked_start_by(options.get("start_by") or definition.start_by, begins),
        deadline_at=deadline_of(options.get("timeout"), definition.run_timeout, begins),
        trace=carried(),
    )


def _metadata(runtime: Runtime, definition: Definition, metadata: Mapping[str, Any] | None) -> Encoded:
    if metadata is None:
        return NO_VALUE
    encoded = ANY.encode(check_metadata(metadata), "metadata")
    check_payload(runtime, definition.max_payload_bytes, encoded, "metadata")
    return encoded


def due_at_of(runtime: Runtime, options: StartOptions) -> datetime | None:
    """Return when the run falls due, or None for at once."""
    delay, run_at = options.get("delay"), options.get("run_at")
    if delay is not None and run_at is not None:
        raise InvalidPolicy("delay, run_at: give one of them", field="run_at")
    run_at = None if run_at is None else check_instant(run_at, "run_at")
    at = run_at if delay is None else runtime.clock.now() + parse_duration(delay, "delay")
    return None if at is None or at <= runtime.clock.now() else at


def _checked_priority(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > PRIORITY_MAX:
        raise InvalidKey(f"priority: a whole number from -{PRIORITY_MAX} to {PRIORITY_MAX}", field="priority")
    return value


def _checked_start_by(limit: Duration | datetime | None, begins: datetime) -> datetime | None:
    """Return the instant by which a run must have begun: as given, or so long after it may."""
    if limit is None:
        return None
    instant = (
        check_instant(limit, "start_by") if isinstance(limit, datetime) else begins + parse_duration(limit, "start_by")
    )
    if instant < begins:
        raise InvalidPolicy("start_by: not before the run may begin", field="start_by")
    return instant


def deadline_of(timeout: Duration | None, default: timedelta | None, begins: datetime) -> datetime | None:
    """Return the instant by which a run must have ended, counted from when it may begin."""
    allowed = default if timeout is None else parse_duration(timeout, "timeout", positive=True)
    return None if allowed is None else begins + allowed


def _derived_key(derive: Callable[[Any], str | None], value: Any) -> str | None:
    try:
        return derive(value)
    except Exception as error:
        raise InvalidKey(
            f"idempotency_key: its function raised {type(error).__name__}", field="idempotency_key"
        ) from error
