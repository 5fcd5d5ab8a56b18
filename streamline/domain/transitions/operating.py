"""What operators and callers do to a run that they do not drive: cancel, retry, pause, unpause."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from streamline.domain.change import Change
from streamline.domain.statuses import RETRIABLE, TERMINAL
from streamline.domain.transitions.writing import Document, finished, operated
from streamline.errors import AlreadyFinished, IllegalTransition


def cancel(run: Document, now: datetime, *, reason: str | None, by: str | None) -> Change | None:
    """Return the change that ends the run and fences its driver off, or None where it has ended already."""
    if run["status"] in TERMINAL:
        return None
    told = {"at": now} | ({"reason": reason} if reason is not None else {}) | ({"by": by} if by is not None else {})
    error = {"code": "run.cancelled", "type": "RunCancelled", "message": reason or "the run was cancelled"}
    put = finished(run, "cancelled", now) | {"cancel": told, "error": {**error, **_where(run)}} | _stopped_step(run)
    return operated(
        run, now, put, ("run.cancelled", _without(told, "at")), drop=("lease", "due_at", "active_key", "paused")
    )


def retry(run: Document, now: datetime) -> Change:
    """Return the change that lets a failed or cancelled run go on from the step where it stopped.

    Raises:
        IllegalTransition: The run has not ended, or has ended well.
    """
    if run["status"] not in RETRIABLE:
        raise IllegalTransition(f"retry: a run that is {run['status']} cannot be retried", field="status")
    k = run["cursor"]
    put = {"status": "waiting", "due_at": now, "attempt": 0, "recovery_count": 0, f"steps.{k}.status": "pending"}
    put[f"steps.{k}.failures"] = 0
    if "idempotency_key" in run:
        put["active_key"] = run["idempotency_key"]
    drop = (
        "error",
        "recovered_before",
        "ended_at",
        "expire_at",
        "cancel",
        f"steps.{k}.error",
        f"steps.{k}.ended_at",
        f"steps.{k}.waits",
    )
    return operated(run, now, put, ("run.retried", {"step": run["steps"][k]["id"]}), drop=drop)


def pause(run: Document, now: datetime, *, reason: str | None, by: str | None) -> Change | None:
    """Return the change that holds the run after its present step, or None where it is held already.

    Raises:
        AlreadyFinished: The run has ended.
    """
    if run["status"] in TERMINAL:
        raise AlreadyFinished(f"pause: the run is {run['status']}", field="status")
    if run.get("paused"):
        return None
    told = ({"reason": reason} if reason is not None else {}) | ({"by": by} if by is not None else {})
    held = {"at": now, **told} | ({"due_at": run["due_at"]} if run.get("due_at") else {})
    return operated(run, now, {"paused": held}, ("run.paused", told), drop=("due_at",))


def unpause(run: Document, now: datetime) -> Change | None:
    """Return the change that lets the run go on, or None where it is not held.

    Raises:
        AlreadyFinished: The run has ended.
    """
    if run["status"] in TERMINAL:
        raise AlreadyFinished(f"unpause: the run is {run['status']}", field="status")
    if not run.get("paused"):
        return None
    due_at = run["paused"].get("due_at")
    put = {"due_at": due_at} if due_at is not None else {}
    return operated(run, now, put, ("run.unpaused", {}), drop=("paused",))


def _stopped_step(run: Document) -> dict[str, Any]:
    k = run["cursor"]
    return {f"steps.{k}.status": "pending"} if run["steps"][k]["status"] in ("running", "waiting") else {}


def _where(run: Document) -> dict[str, Any]:
    return {"step": run["steps"][run["cursor"]]["id"], "attempt": run["attempt"]}


def _without(mapping: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}
