"""Runs that do not move, as operators see them, and why that is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from streamline.domain.decisions import check_run
from streamline.domain.record import Record
from streamline.errors import CorruptRun

Reason = Literal["lost", "unserved", "overdue", "corrupt", "paused", "held_up"]


@dataclass(frozen=True, slots=True)
class StuckRun(Record):
    """A run that has not moved for a while, although it should.

    Attributes:
        run_id: The run.
        workflow: Its workflow.
        version: The version of it.
        tenant_id: Whose run it is.
        status: Its status.
        reason: ``"unserved"``: no living worker serves its version; ``"lost"``: its worker stopped beating and nobody
            has taken it over; ``"overdue"``: it is due, its version is served, and nobody has taken it; ``"corrupt"``:
            it is not of the form that a worker takes; ``"paused"``: an operator holds it; ``"held_up"``: an operator
            holds its workflow.
        since: Since when it is due, its lease has been over, or it is held.
        worker: The worker that had it, where it is lost.
    """

    run_id: str
    workflow: str
    version: str
    tenant_id: str | None
    status: str
    reason: Reason
    since: datetime
    worker: str | None = None


def read_stuck(run: Mapping[str, Any], served: Collection[str], held_up: Collection[str]) -> StuckRun:
    """Return why a run does not move.

    Args:
        run: What is read of it: due for long, with a lease that has been over for long, or paused.
        served: Routes that living workers serve.
        held_up: Workflows that an operator holds up.
    """
    lease = run.get("lease") or {}
    paused = run.get("paused") or {}
    return StuckRun(
        run_id=run["_id"],
        workflow=str(run.get("workflow")),
        version=str(run.get("version")),
        tenant_id=run.get("tenant_id"),
        status=str(run.get("status")),
        reason=_reason(run, served, held_up),
        since=paused["at"] if "at" in paused else lease.get("until") or run["due_at"],
        worker=lease.get("worker"),
    )


def _reason(run: Mapping[str, Any], served: Collection[str], held_up: Collection[str]) -> Reason:
    try:
        check_run(run)
    except CorruptRun:
        return "corrupt"
    if run.get("paused"):
        return "paused"
    if run.get("workflow") in held_up:
        return "held_up"
    if run.get("route") not in served:
        return "unserved"
    return "lost" if "lease" in run else "overdue"
