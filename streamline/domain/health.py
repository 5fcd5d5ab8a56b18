"""How an app stands, for probes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from streamline.domain.record import Record

HealthStatus = Literal["ok", "degraded", "down"]


@dataclass(frozen=True, slots=True)
class HealthCheck(Record):
    """How one part of an app stands.

    Attributes:
        status: ``"ok"``; ``"degraded"``, it works, but slower or not in full; ``"down"``.
        message: What is to be said of it, for people.
        details: Numbers to it; seconds where the name ends in ``_seconds``.
    """

    status: HealthStatus
    message: str
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Health(Record):
    """How an app stands at the moment.

    Attributes:
        ok: Whether it can serve: for readiness.
        alive: Whether its own background work goes on, however the database is: for liveness, because a restart of this
            process would not bring a database back.
        status: ``"ok"``; ``"degraded"``, it serves, but not all is well; ``"down"``.
        checks: Its parts, by name.
    """

    ok: bool
    alive: bool
    status: HealthStatus
    checks: Mapping[str, HealthCheck]


def summed_up(checks: Mapping[str, HealthCheck], *, vital: str = "worker") -> Health:
    """Return how an app stands whose parts stand like this; it is alive while its `vital` part is not down."""
    statuses = {check.status for check in checks.values()}
    status: HealthStatus = "down" if "down" in statuses else "degraded" if "degraded" in statuses else "ok"
    alive = vital not in checks or checks[vital].status != "down"
    return Health(status != "down", alive, status, dict(checks))
