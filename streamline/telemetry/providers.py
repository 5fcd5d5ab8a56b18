"""Which providers of OpenTelemetry are configured in this process, if any: without them nothing is told, or built."""

from __future__ import annotations

from typing import Final

from opentelemetry import metrics, trace

from streamline.telemetry.measuring import Meters

_NAME = "streamline"
# Where the API defines what stands in while nobody has configured anything.
_STAND_INS = ("opentelemetry.trace", "opentelemetry.metrics")


class Telemetry:
    """To whom the engine tells things.

    Providers belong to the process and may come at any time, so `look` is asked wherever runs begin or are taken.

    Attributes:
        tracer: Makes spans; None where nobody wants any.
        meters: Takes measurements; None where nobody wants any.
    """

    __slots__ = ("_meter_provider", "_tracer_provider", "meters", "tracer")

    def __init__(self) -> None:
        self._tracer_provider: trace.TracerProvider | None = None
        self._meter_provider: metrics.MeterProvider | None = None
        self.tracer: trace.Tracer | None = None
        self.meters: Meters | None = None

    def look(self) -> None:
        """See what is configured now."""
        tracers, meters = trace.get_tracer_provider(), metrics.get_meter_provider()
        if tracers is not self._tracer_provider:
            self._tracer_provider = tracers
            self.tracer = tracers.get_tracer(_NAME) if _is_real(tracers) else None
        if meters is not self._meter_provider:
            self._meter_provider = meters
            self.meters = Meters(meters.get_meter(_NAME)) if _is_real(meters) else None


def _is_real(provider: object) -> bool:
    return not type(provider).__module__.startswith(_STAND_INS)


TELEMETRY: Final = Telemetry()
