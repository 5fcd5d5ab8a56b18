"""Which providers of OpenTelemetry are configured in this process, if any: without them nothing is told, or built."""

from __future__ import annotations

from typing import Final

from opentelemetry import metrics, trace

from streamline.telemetry.measuring import Meters

_NAME = "streamline"
# Where the API defines what stands in while nobody has configured anything.
_STAND_INS = ("opentelemetry.trace", "opentelemetry.metrics")
_OF_TRACES, _OF_METRICS = trace.get_tracer_provider.__globals__, metrics.get_meter_provider.__globals__


class Telemetry:
    """To whom the engine tells things.

    Providers belong to the process and may come at any time: who starts a run glances, who looks for runs looks here.

    Attributes:
        tracer: Makes spans; None where nobody wants any.
        meters: Takes measurements; None where nobody wants any.
    """

    __slots__ = ("_meter_provider", "_set", "_tracer_provider", "meters", "tracer")

    def __init__(self) -> None:
        self._tracer_provider: trace.TracerProvider | None = None
        self._meter_provider: metrics.MeterProvider | None = None
        self.tracer: trace.Tracer | None = None
        self.meters: Meters | None = None
        self._set = _what_is_set()

    def glance(self) -> None:
        """See whether something else is configured now, at next to no cost."""
        if _what_is_set() != self._set:
            self.look()

    def look(self) -> None:
        """See what is configured now."""
        self._set = _what_is_set()
        tracers, meters = trace.get_tracer_provider(), metrics.get_meter_provider()
        if tracers is not self._tracer_provider:
            self._tracer_provider = tracers
            self.tracer = tracers.get_tracer(_NAME) if _is_real(tracers) else None
        if meters is not self._meter_provider:
            self._meter_provider = meters
            self.meters = Meters(meters.get_meter(_NAME)) if _is_real(meters) else None


def _what_is_set() -> tuple[object, object]:
    # While nothing is set, the getters search the environment at each call, which costs more than all else that is done
    # here for a start. Should these names ever change, `look` sees what comes, a few seconds later.
    return _OF_TRACES.get("_TRACER_PROVIDER"), _OF_METRICS.get("_METER_PROVIDER")


def _is_real(provider: object) -> bool:
    return not type(provider).__module__.startswith(_STAND_INS)


TELEMETRY: Final = Telemetry()
