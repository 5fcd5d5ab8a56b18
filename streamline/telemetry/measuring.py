"""The instruments: what is measured, in which unit, and by which few attributes it is told apart."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, Final

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from streamline.domain.change import Change
from streamline.telemetry import queue_depth

logger = logging.getLogger("streamline.engine")

_WORKFLOW: Final = "streamline.workflow"
_STEP: Final = "streamline.step"
_STATUS: Final = "streamline.status"
_OUTCOME: Final = "streamline.outcome"
# Seconds, from a quick step to a run that waits for people. The SDK's own are made for milliseconds.
_BOUNDARIES: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800, 3600, 21600, 86400, 604800)


class Instrument:
    """Takes measurements of one kind; what they are handed to cannot harm a run.

    Args:
        take: Takes one, with its attributes.
    """

    __slots__ = ("_is_told", "_take")

    def __init__(self, take: Callable[[float, Mapping[str, Any]], None]) -> None:
        self._take = take
        self._is_told = False

    def __call__(self, value: float, told: Mapping[str, Any]) -> None:
        """Take a measurement, if that works."""
        try:
            self._take(value, told)
        except Exception as raised:
            level = logging.DEBUG if self._is_told else logging.WARNING
            self._is_told = True
            logger.log(level, "a measurement could not be taken: %s", type(raised).__name__, exc_info=raised)


class Meters:
    """Takes measurements, in the words of the engine; none of them is told apart by run."""

    def __init__(self, meter: Meter) -> None:
        count, seconds = partial(_count, meter), partial(_seconds, meter)
        self._started = count("streamline.runs.started", "{run}", "Runs that were stored.")
        self._ended = count("streamline.runs.ended", "{run}", "Runs that have ended.")
        self._recovered = count("streamline.runs.recovered", "{run}", "Runs taken over from a worker that was lost.")
        self._retries = count("streamline.step.retries", "{attempt}", "Attempts that failed and are made again.")
        self._lost = count("streamline.leases.lost", "{lease}", "Leases that this worker lost, or gave up.")
        self._refused = count("streamline.writes.fenced", "{write}", "Writes refused because the lease was another's.")
        self._latency = seconds("streamline.claim.latency", "From when a run fell due until a worker took it.")
        self._attempts = seconds("streamline.step.duration", "One attempt of a step, from entry to end or wait.")
        self._runs = seconds("streamline.run.duration", "A run, from when it was first taken until its end.")
        meter.create_observable_gauge(
            "streamline.runs.due", [_depths], "{run}", "Runs that are due and that nobody has taken."
        )
        meter.create_observable_gauge("streamline.runs.due.lag", [_lags], "s", "Since when the first of them is due.")

    def born(self, run: Mapping[str, Any]) -> None:
        """A run was stored."""
        self._started(1, {_WORKFLOW: run["workflow"]})

    def taken(self, run: Mapping[str, Any], due_at: datetime | None) -> None:
        """A worker has taken a run, which had waited since it fell due, or whose worker no longer beats."""
        lease = run["lease"]
        if due_at is not None:
            self._latency(max(0.0, (lease["at"] - due_at).total_seconds()), _of(run))
        if lease.get("news") == "recovered":
            self._recovered(1, _of(run))

    def written(self, run: Mapping[str, Any], change: Change) -> None:
        """A change of a run took effect."""
        for event in change.events:
            if event["type"] == "step.retrying":
                self._retries(1, {**_of(run), _STEP: event["step"]})
        if "ended_at" in change.put:
            told = {**_of(run), _STATUS: change.put["status"]}
            self._ended(1, told)
            if isinstance(run.get("started_at"), datetime):
                self._runs(max(0.0, (change.put["ended_at"] - run["started_at"]).total_seconds()), told)

    def attempted(self, run: Mapping[str, Any], step: str, outcome: str, seconds: float) -> None:
        """An attempt of a step is over."""
        self._attempts(seconds, {**_of(run), _STEP: step, _OUTCOME: outcome})

    def lost(self, run: Mapping[str, Any]) -> None:
        """A lease is gone that had not been given back."""
        self._lost(1, _of(run))

    def fenced(self, run: Mapping[str, Any]) -> None:
        """A write was refused."""
        self._refused(1, _of(run))


def _of(run: Mapping[str, Any]) -> dict[str, Any]:
    return {_WORKFLOW: str(run.get("workflow"))}


def _count(meter: Meter, name: str, unit: str, said: str) -> Instrument:
    return Instrument(meter.create_counter(name, unit, said).add)


def _seconds(meter: Meter, name: str, said: str) -> Instrument:
    return Instrument(meter.create_histogram(name, "s", said, explicit_bucket_boundaries_advisory=_BOUNDARIES).record)


def _depths(_: CallbackOptions) -> Iterable[Observation]:
    return [Observation(waiting.count, told) for waiting, told in queue_depth.seen()]


def _lags(_: CallbackOptions) -> Iterable[Observation]:
    return [Observation(waiting.lag, told) for waiting, told in queue_depth.seen()]
