"""Undoing what a run has done: its compensations, from the last done step to the first."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from streamline.domain.change import Change
from streamline.domain.place import Document, Place, attempt_of, next_undo
from streamline.domain.transitions.patching import begun
from streamline.domain.transitions.stating import StateChange
from streamline.domain.transitions.writing import WAITING, Entry, answerable, driven, finished, let_go, owing, parked


def entered(run: Document, put: Mapping[str, Any], outcome: str, now: datetime) -> dict[str, Any] | None:
    """Return what to put so that the run is undone instead of ended, or None where there is nothing to undo.

    Args:
        run: The run.
        put: What the same write puts already: a step of a group may be done by it.
        outcome: How the run would end: ``"failed"`` or ``"cancelled"``.
        now: The present instant.
    """
    if outcome not in run.get("compensate_on", ()):
        return None
    done = [k for k, step in enumerate(run["steps"]) if step.get("compensable") and _is_done(step, k, put)]
    if not done:
        return None
    undoing: dict[str, Any] = {"status": "compensating", **owing(run, now)}
    if run["recovery_count"]:
        undoing["recovered_before"] = run["recovery_count"]
    for k in done:
        undoing[f"steps.{k}.compensation"] = {"status": "pending"}
    return undoing


def closed_waits(run: Document) -> tuple[str, ...]:
    """Return the fields by which a run can be answered, and that one which is being undone must lose."""
    return tuple(name for name in (*WAITING, "nudged") if name in run)


def compensated(run: Document, place: Place, now: datetime, *, go_on: bool, state: StateChange | None = None) -> Change:
    """Return the change that ends one compensation and begins the next, or ends the run."""
    at = place.at
    put = begun(run, place) | {
        f"{at}.status": "done",
        f"{at}.attempt": attempt_of(run, place),
        f"{at}.ended_at": now,
    }
    drop = tuple(f"{at}.{name}" for name in ("memo", "error", "waits") if name in place.activity(run))
    if state is not None:
        put, drop = {**put, **state.put}, (*drop, *state.drop)
    return _next(run, place, put, drop, ("step.compensated", {"step": run["steps"][place.k]["id"]}), now, go_on)


def not_compensated(run: Document, place: Place, error: Mapping[str, Any], now: datetime, *, go_on: bool) -> Change:
    """Return the change that gives up one compensation; the others are carried out all the same."""
    at = place.at
    put = begun(run, place) | {
        f"{at}.status": "failed",
        f"{at}.attempt": attempt_of(run, place),
        f"{at}.error": dict(error),
        f"{at}.ended_at": now,
    }
    told = {"step": run["steps"][place.k]["id"], "error": dict(error)}
    return _next(run, place, put, (), ("step.compensation_failed", told), now, go_on)


def _next(
    run: Document,
    place: Place,
    put: dict[str, Any],
    drop: tuple[str, ...],
    event: Entry,
    now: datetime,
    go_on: bool,
) -> Change:
    if run["recovery_count"]:
        put["recovered_before"] = run["recovery_count"]
    if next_undo(_without(run, place.k)) is None:
        status = _outcome(run, place, put)
        put |= finished(run, status, now)
        end = (f"run.{status}", {"error": run.get("error")} if run.get("error") else {})
        return driven(run, now, put, event, end, places=(place,), drop=(*drop, *let_go(run)))
    left, closed = answerable(run, without=lambda where, _: where == place)
    put |= left
    drop = (*drop, *closed)
    if go_on and not run.get("paused"):
        return driven(run, now, put, event, places=(place,), drop=drop)
    held, gone = parked(run, now)
    return driven(run, now, put | held, event, places=(place,), drop=(*drop, *gone))


def _outcome(run: Document, place: Place, put: Mapping[str, Any]) -> str:
    others = (step.get("compensation") for k, step in enumerate(run["steps"]) if k != place.k)
    statuses = {each["status"] for each in others if each} | {put[f"{place.at}.status"]}
    return "compensation_failed" if "failed" in statuses else "compensated"


def _without(run: Document, k: int) -> dict[str, Any]:
    steps = [{**step, "compensation": None} if j == k else step for j, step in enumerate(run["steps"])]
    return {**run, "steps": steps}


def _is_done(step: Mapping[str, Any], k: int, put: Mapping[str, Any]) -> bool:
    return bool(put.get(f"steps.{k}.status", step["status"]) == "done")
