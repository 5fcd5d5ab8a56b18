"""What operators and callers do to a run that they do not drive: cancel, retry, pause, unpause."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from streamline.domain.change import Change
from streamline.domain.place import ENDED, Document, Place, attempt_of, members
from streamline.domain.statuses import RETRIABLE, TERMINAL
from streamline.domain.transitions import compensating
from streamline.domain.transitions.discarding import check_lasting
from streamline.domain.transitions.writing import Entry, finished, let_go, operated, owing, waiting_fields, woken
from streamline.errors import AlreadyFinished, IllegalTransition


def cancel(run: Document, now: datetime, *, reason: str | None, by: str | None) -> Change | None:
    """Return the change that ends the run and fences its driver off, or None where it has ended or is being undone.

    A run whose workflow says so is compensated first.
    """
    if run["status"] in TERMINAL or run["status"] == "compensating":
        return None
    told = {"at": now} | ({"reason": reason} if reason is not None else {}) | ({"by": by} if by is not None else {})
    error = {"code": "run.cancelled", "type": "RunCancelled", "message": reason or "the run was cancelled"}
    put = {"cancel": told, "error": {**error, **_where(run)}} | _stopped_steps(run)
    event: Entry = ("run.cancelled", _without(told, "at"))
    undoing = compensating.entered(run, put, "cancelled", now)
    if undoing is None:
        return operated(run, now, put | finished(run, "cancelled", now), event, drop=let_go(run))
    lost = tuple(name for name in ("lease", "paused") if name in run) + compensating.closed_waits(run)
    entries = (("run.compensating", {"error": put["error"]}), event)
    return operated(run, now, put | undoing | {"due_at": now}, *entries, drop=lost)


def abandon(run: Document, now: datetime, reason: str) -> Change:
    """Return the change by which its own driver ends a run that is no longer wanted before it has begun."""
    change = cancel(run, now, reason=reason, by=None)
    assert change is not None, "a run that is driven has not ended"
    return change


def retry(run: Document, now: datetime) -> Change:
    """Return the change that lets a failed or cancelled run go on from the step where it stopped.

    What its calls have brought is kept, except for failures: branches and children that failed, and waits that nobody
    answered in time, are begun anew.

    Raises:
        IllegalTransition: The run has not ended, or has ended well, or its retention is over.
    """
    if run["status"] not in RETRIABLE:
        raise IllegalTransition(f"retry: a run that is {run['status']} cannot be retried", field="status")
    check_lasting(run, now)
    put: dict[str, Any] = {"status": "waiting", "due_at": now, "live": True, "attempt": 0, "recovery_count": 0}
    drop = [name for name in ("error", "recovered_before", "ended_at", "expire_at", "cancel") if name in run]
    drop += [name for name in ("deadline_at", "jumps", "start_by", "admitted_at") if name in run]
    steps, open_again = list[str](), list[Mapping[str, Any]]()
    for k in members(run, run["cursor"]):
        if run["steps"][k]["status"] in ("done", "skipped"):
            continue
        steps.append(run["steps"][k]["id"])
        put |= {f"steps.{k}.status": "pending", f"steps.{k}.failures": 0}
        put[f"steps.{k}.retries"] = run["steps"][k].get("retries", 0) + 1
        if "history" in run["steps"][k]:
            put[f"steps.{k}.version"] = max(each["version"] for each in run["steps"][k]["history"]) + 1
        drop += [f"steps.{k}.{name}" for name in ("error", "ended_at", "waits", "due_at") if name in run["steps"][k]]
        drop += [f"steps.{k}.memo.{address}" for address in _kept_failures(Place(k).memo(run))]
        open_again += [entry for entry in Place(k).memo(run).values() if entry.get("open")]
    if "idempotency_key" in run:
        put["active_key"] = run["idempotency_key"]
    put |= waiting_fields(run, open_again) | owing(run, now)
    return operated(run, now, put, ("run.retried", {"step": steps[0] if steps else None}), drop=tuple(drop))


def keep_key(run: Document, now: datetime) -> Change:
    """Return the change by which a run that holds an idempotency key keeps it when it has ended."""
    return operated(run, now, {"kept_key": run["idempotency_key"]}, ("run.key_kept", {}))


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


def nudge(run: Document, now: datetime, why: Mapping[str, Any]) -> Change | None:
    """Return the change that makes a run look again at what it waits for, or None where it will do so anyway."""
    if run["status"] in TERMINAL or run["status"] == "draft":
        return None
    due_at = (run.get("paused") or run).get("due_at")
    put = woken(run, now)
    if not put or (due_at is not None and due_at <= now):
        return None
    return operated(run, now, put, ("run.nudged", why))


def _kept_failures(memo: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the addresses of what would let the handler fail again as it did, without anything being done."""
    failed = [address for address, entry in memo.items() if _stands_for_failure(entry)]
    heads = [address for address, entry in memo.items() if entry.get("done")]
    broken = [head for head in heads if any(address.startswith((f"{head}[", f"{head}/")) for address in failed)]
    timers = [f"{address}/#timeout" for address in failed if f"{address}/#timeout" in memo]
    return [*failed, *broken, *timers]


def _stands_for_failure(entry: Mapping[str, Any]) -> bool:
    unsettled_child = "fan" in entry and "output" not in entry and entry.get("on_close") != "abandon"
    is_over = entry.get("outcome") == "timed_out" or "timed_out" in entry
    return unsettled_child or is_over or "failed" in entry


def _stopped_steps(run: Document) -> dict[str, Any]:
    at_work = (k for k in members(run, run["cursor"]) if run["steps"][k]["status"] in ("running", "waiting"))
    return {f"steps.{k}.status": "pending" for k in at_work}


def _where(run: Document) -> dict[str, Any]:
    k = next((k for k in members(run, run["cursor"]) if run["steps"][k]["status"] not in ENDED), run["cursor"])
    return {"step": run["steps"][k]["id"], "attempt": attempt_of(run, Place(k))}


def _without(mapping: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}
