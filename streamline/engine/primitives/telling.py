"""What a handler tells while it is at work: progress, frames, log lines, events, numbers, a beat."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Mapping, MutableMapping
from typing import Any

from streamline.domain.change import Append
from streamline.domain.failures import MESSAGE_MAX
from streamline.domain.names import check_key, check_note, check_path_key
from streamline.domain.payloads import ANY
from streamline.domain.run import Event
from streamline.domain.transitions.patching import Patch
from streamline.engine.held.branches import current
from streamline.engine.held.surroundings import Surroundings
from streamline.errors import HeartbeatLost, InvalidInput, InvalidKey
from streamline.telemetry import about

LOGS_KEPT = 200
PROGRESS_SECONDS = 0.5
METRIC_MAX = 2**53
METRICS_MAX = 200
_SMALL = 2**31
_OWN = ("event.", "run.", "step.", "trigger.", "wait.")
_BEAT_SECONDS = 1.0
_FRAMES = itertools.count(1)


async def progress(attempt: Surroundings, fraction: float, message: str | None, details: Mapping[str, Any]) -> None:
    """Store how far the step is: at most every half second, the last value in any case."""
    is_number = isinstance(fraction, (int, float)) and not isinstance(fraction, bool) and math.isfinite(fraction)
    if not is_number or not 0 <= fraction <= 1:
        raise InvalidInput("fraction: a number from 0 to 1", field="fraction")
    now, place = attempt.clock.now(), attempt.memo.place
    stored: dict[str, Any] = {"fraction": float(fraction), "at": now}
    if message is not None:
        stored["message"] = check_note(message, "message")
    if details:
        checked = {check_path_key(name, "details"): value for name, value in details.items()}
        encoded = ANY.encode(checked, "details")
        attempt.check_size(encoded, "details")
        stored["details"] = encoded.value
    path = f"{place.at}.progress"
    attempt.holding.add_rider(path, Patch(place, {path: stored}), within=PROGRESS_SECONDS)
    if attempt.clock.monotonic() - attempt.holding.rode_at >= PROGRESS_SECONDS:
        await attempt.holding.ride()


def stream(attempt: Surroundings, frame: Any) -> None:
    """Tell listeners of this process of a frame that is not stored; none after the handler was told to end."""
    if attempt.flags.cancelled or attempt.flags.closed:
        return
    run, now, said = attempt.holding.run, attempt.clock.now(), {"frame": frame, "n": next(_FRAMES)}
    event = Event(
        run["_id"],
        run["event_seq"],
        "step.stream",
        now,
        attempt.step.id,
        attempt.number,
        said,
        tenant_id=run.get("tenant_id"),
    )
    attempt.say(event)


async def emit(attempt: Surroundings, event: str, payload: Any) -> None:
    """Add an event of the user's to the run's, once, and send it to the runs that wait for it."""
    name = check_key(event, "event")
    if name.startswith(_OWN):
        raise InvalidKey(f"event: not beginning with {', '.join(_OWN)}: those are the engine's", field="event")
    address, entry = attempt.memo.find(current(attempt.root), "emit", None, name=name)
    if entry is None:
        encoded = ANY.encode(payload, "payload")
        attempt.check_size(encoded, "payload")
        told = {"step": attempt.step.id, "attempt": attempt.number, "payload": encoded.value}
        stored, refused = await attempt.post(address, name, encoded)
        events = [(name, told), *(("trigger.refused", {"workflow": each}) for each in refused)]
        await attempt.memo.settle(address, {"kind": "emit", "name": name}, events=tuple(events), spills=False)
        attempt.deliver(stored)


def metric(attempt: Surroundings, name: str, value: float) -> None:
    """Add to a number of the run's; it is stored with the next write."""
    check_path_key(name, "name")
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not -METRIC_MAX <= value <= METRIC_MAX:
        raise InvalidInput(f"value: a number from -{METRIC_MAX} to {METRIC_MAX}", field="value")
    path = f"metrics.{name}"
    if len(attempt.holding.riders) >= METRICS_MAX and path not in attempt.holding.riders:
        raise InvalidInput(f"name: at most {METRICS_MAX} numbers between two writes", field="name")
    # The database adds large whole numbers until they no longer fit; floating ones always do.
    amount = float(value) if abs(value) > _SMALL else value
    attempt.holding.add_rider(path, Patch(attempt.memo.place, add={path: amount}))


async def heartbeat(attempt: Surroundings) -> None:
    """Extend the lease now, at most once a second; raise `HeartbeatLost` where it is gone."""
    now = attempt.clock.monotonic()
    if attempt.holding.lost:
        raise HeartbeatLost(f"run {attempt.holding.run['_id']}: the lease was lost")
    if attempt.holding.quiet:
        return  # its lease lasts as long as its transaction may take
    if attempt.flags.beat_at is None or now - attempt.flags.beat_at >= _BEAT_SECONDS:
        attempt.flags.beat_at = now
        await attempt.beat()


class RunLog(logging.LoggerAdapter[logging.Logger]):
    """A standard logger that adds the run, the step and the attempt to its records, and keeps them in the run.

    Lines of level INFO and above are kept, whatever the logger's own level, and stored with the run's next write.
    """

    def __init__(self, attempt: Surroundings) -> None:
        run = attempt.holding.run
        self._attempt = attempt
        extra = {**about(run, attempt.step.id, attempt.number), "step_id": attempt.step.id}
        super().__init__(logging.getLogger(f"streamline.workflow.{run['workflow']}"), extra)

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log a line, and keep it."""
        if level >= logging.INFO and not self._attempt.flags.closed:
            self._keep(level, msg, args)
        super().log(level, msg, *args, **{**kwargs, "stacklevel": kwargs.get("stacklevel", 1) + 1})

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Add who and where to what the caller adds."""
        return msg, {**kwargs, "extra": {**(self.extra or {}), **(kwargs.get("extra") or {})}}

    def _keep(self, level: int, msg: object, args: tuple[object, ...]) -> None:
        try:
            text = logging.LogRecord("", level, "", 0, msg, args, None).getMessage()
        except Exception:  # noqa: BLE001 - a line that cannot be put together must not fail the step
            text = "(a line that could not be put together)"
        attempt = self._attempt
        line = {
            "at": attempt.clock.now(),
            "level": logging.getLevelName(level),
            "message": text[:MESSAGE_MAX].encode("utf-8", "replace").decode(),
            "step": attempt.step.id,
            "attempt": attempt.number,
        }
        attempt.holding.add_rider("logs", Patch(attempt.memo.place, append={"logs": Append((line,), LOGS_KEPT)}))
