"""What the worker that drives a run does to it: finish a step, try again later, give up, let go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from streamline.domain.change import Change
from streamline.domain.payloads import NO_VALUE, Encoded
from streamline.domain.place import ENDED, Document, Place, attempt_of, members
from streamline.domain.transitions import compensating
from streamline.domain.transitions.closing import waited_for
from streamline.domain.transitions.patching import begun
from streamline.domain.transitions.stating import StateChange
from streamline.domain.transitions.writing import (
    LET_GO,
    Entry,
    answerable,
    driven,
    events_after,
    finished,
    let_go,
    of_place,
    owing,
    parked,
)


@dataclass(slots=True)
class Ending:
    """What a worker needs to know to end a step.

    Args:
        now: The present instant.
        state: What to store of the run's state, where the handler changed it.
        go_on: Whether the same worker begins the next step; False lets go of the run in the same write.
    """

    now: datetime
    state: StateChange | None = None
    go_on: bool = True


def complete(run: Document, place: Place, output: Encoded, ending: Ending) -> Change:
    """Return the change that stores the step's output and, in the same write, begins the next step or ends the run."""
    at, step = place.at, run["steps"][place.k]
    put = _ended(run, place, "done", ending)
    put[f"{at}.output"] = output.value
    drop = tuple(f"{at}.{name}" for name in _WORKINGS if name in step)
    return _advance(run, place, ending, put, drop, ("step.done", of_place(run, place)), output)


def skip(run: Document, place: Place, ending: Ending, error: Mapping[str, Any] | None = None) -> Change:
    """Return the change that passes over the step, because a predicate said so or an `error` is tolerated."""
    put = _ended(run, place, "skipped", ending)
    if error is not None:
        put[f"{place.at}.error"] = dict(error)
    drop = tuple(f"{place.at}.{name}" for name in _WORKINGS if name != "error" and name in run["steps"][place.k])
    event = ("step.skipped", of_place(run, place) | ({"error": dict(error)} if error else {}))
    return _advance(run, place, ending, put, drop, event, NO_VALUE)


def fail(run: Document, place: Place, error: Mapping[str, Any], ending: Ending, *, event: str = "run.failed") -> Change:
    """Return the change that fails the step and, once no other of its group is at work, the run."""
    put = _ended(run, place, "failed", ending) | {f"{place.at}.error": dict(error)}
    failed = ("step.failed", of_place(run, place) | {"error": dict(error)})
    if _is_any_at_work(run, _others(run, place)):
        left, drop = answerable(run, without=lambda where, _: where == place)
        return driven(run, ending.now, put | left, failed, places=(place,), drop=drop)
    return _fail_run(run, place, put, (), (failed,), ending, event)


def give_up(run: Document, error: Mapping[str, Any], ending: Ending, event: str = "run.failed", *told: Entry) -> Change:
    """Return the change that fails the run as a whole: its time is over, or its worker has died; `told` goes first."""
    put: dict[str, Any] = {}
    entries: list[Entry] = []
    for k in members(run, run["cursor"]):
        if run["steps"][k]["status"] not in ENDED:
            put |= _ended(run, Place(k), "failed", ending) | {f"steps.{k}.error": dict(error)}
            entries.append(("step.failed", of_place(run, Place(k)) | {"error": dict(error)}))
    return _end_badly(run, put, (), (*entries, *told), error, ending, event)


def try_again(run: Document, place: Place, error: Mapping[str, Any], due_at: datetime, now: datetime) -> Change:
    """Return the change that records a failed attempt and parks the run until the next one is due."""
    put, drop = parked(run, _before_deadline(run, due_at))
    put |= _retrying(run, place, error)
    event = ("step.retrying", of_place(run, place) | {"error": dict(error), "due_at": due_at})
    return driven(run, now, put, event, places=(place,), drop=drop)


def record_failure(run: Document, place: Place, error: Mapping[str, Any], due_at: datetime, now: datetime) -> Change:
    """Return the change that records a failed attempt of a step whose group goes on."""
    put = _retrying(run, place, error) | {f"{place.at}.due_at": due_at}
    event = ("step.retrying", of_place(run, place) | {"error": dict(error), "due_at": due_at})
    return driven(run, now, put, event, places=(place,))


def quarantine(run: Document, error: Mapping[str, Any], now: datetime) -> Change:
    """Return the change that fails a claimed run of which nothing but its lease can be relied upon."""
    status = "compensation_failed" if run.get("status") == "compensating" else "failed"
    put = {**finished(run, status, now), "error": dict(error), "updated_at": now, "rev": _next_rev(run)}
    steps, k = run.get("steps"), run.get("cursor")
    if isinstance(steps, list) and type(k) is int and 0 <= k < len(steps) and isinstance(steps[k], dict):
        put |= {f"steps.{k}.status": "failed", f"steps.{k}.error": dict(error), f"steps.{k}.ended_at": now}
    events: tuple[Mapping[str, Any], ...] = ()
    if isinstance(run.get("events"), list) and isinstance(run.get("event_seq"), int):
        events = events_after(run["event_seq"], now, ((f"run.{status}", {"error": dict(error)}),))
        put["event_seq"] = events[-1]["seq"]
    guard = {"lease.token": run["lease"]["token"], "rev": run.get("rev")}
    return Change(guard=guard, put=put, drop=LET_GO, events=events)


def release(run: Document, now: datetime) -> Change:
    """Return the change by which a stopping worker hands an unfinished run to whoever comes next, at once."""
    put, drop = parked(run, now)
    if run["status"] != "compensating":
        put |= {f"steps.{k}.status": "pending" for k in members(run, run["cursor"]) if _is_at_work(run, k)}
        put["attempt"] = run["attempt"] - 1
    return driven(run, now, put, ("run.released", {"worker": run["lease"]["worker"]}), drop=drop)


def begin(run: Document, k: int, now: datetime) -> tuple[dict[str, Any], tuple[Entry, ...]]:
    """Return what begins the step `k`, and its group with it: what to put, and the events."""
    put: dict[str, Any] = {"cursor": k, "attempt": 1}
    entries: list[Entry] = []
    for j in members(run, k):
        put[f"steps.{j}.status"], put[f"steps.{j}.started_at"] = "running", now
        entries.append(("step.started", {"step": run["steps"][j]["id"], "attempt": 1}))
    return put, tuple(entries)


_WORKINGS = ("error", "memo", "waits", "due_at")


def _advance(
    run: Document,
    place: Place,
    ending: Ending,
    put: dict[str, Any],
    drop: tuple[str, ...],
    event: Entry,
    output: Encoded,
) -> Change:
    weight, growth = output.size, output.size - memo_size(run, place)
    memo, others = place.memo(run), _others(run, place)
    if memo and waited_for(memo):
        put |= owing(run, ending.now)
    if ending.state is not None:
        put, drop = {**put, **ending.state.put}, (*drop, *ending.state.drop)
        weight, growth = weight + ending.state.weight, growth + ending.state.growth
    if _is_any_at_work(run, others):
        left, closed = answerable(run, without=lambda where, _: where == place)
        put, drop = put | left, (*drop, *closed)
        return driven(run, ending.now, put, event, places=(place,), drop=drop, weight=weight, growth=growth)
    if others and any(_error_of(run, k) is not None for k in others):
        return _fail_run(run, place, put, drop, (event,), ending, "run.failed")
    return _go_on(run, max((place.k, *others)) + 1, ending, put, drop, event, output, weight, growth)


def _go_on(
    run: Document,
    k: int,
    ending: Ending,
    put: dict[str, Any],
    drop: tuple[str, ...],
    event: Entry,
    output: Encoded,
    weight: int,
    growth: int,
) -> Change:
    """Begin step `k`, or end the run where there is none."""
    now = ending.now
    entries: tuple[Entry, ...] = (event,)
    if k == len(run["steps"]):
        last = len(run["steps"]) - 1
        put |= finished(run, "done", now)
        put["output"] = put.get(f"steps.{last}.output", run["steps"][last].get("output"))
        drop, entries = (*drop, *let_go(run)), (event, ("run.done", {}))
        weight, growth = weight + output.size, growth + output.size
    else:
        left, closed = answerable(run, without=lambda place, _: place.k < k)
        put |= left
        drop = (*drop, *closed)
        if run["recovery_count"]:
            put["recovered_before"] = run["recovery_count"]
        if not ending.go_on or run.get("paused"):
            held, gone = parked(run, now)
            put |= held | {"cursor": k, "attempt": 0}
            drop = (*drop, *gone)
        else:
            started, begun_entries = begin(run, k, now)
            put |= started
            entries = (event, *begun_entries)
    return driven(run, now, put, *entries, drop=drop, weight=weight, growth=growth)


def _fail_run(
    run: Document,
    place: Place,
    put: dict[str, Any],
    drop: tuple[str, ...],
    entries: tuple[Entry, ...],
    ending: Ending,
    event: str,
) -> Change:
    """Of a group, the first step that failed, in the order of declaration, says why the run did."""
    own = put.get(f"{place.at}.error") if put[f"{place.at}.status"] == "failed" else None
    errors = [own if k == place.k else _error_of(run, k) for k in members(run, place.k)]
    error = next(each for each in errors if each is not None)
    return _end_badly(run, put, drop, entries, error, ending, event)


def _end_badly(
    run: Document,
    put: dict[str, Any],
    drop: tuple[str, ...],
    entries: tuple[Entry, ...],
    error: Mapping[str, Any],
    ending: Ending,
    event: str,
) -> Change:
    """Entering compensation is part of the write that fails the run: no crash can come between."""
    now, put = ending.now, put | {"error": dict(error)}
    undoing = compensating.entered(run, put, "failed", now)
    if undoing is None:
        put |= finished(run, "failed", now)
        return driven(run, now, put, *entries, (event, {"error": dict(error)}), drop=(*drop, *let_go(run)))
    put |= undoing
    entered = (*entries, ("run.compensating", {"error": dict(error)}))
    drop = (*drop, *compensating.closed_waits(run))
    if ending.go_on and not run.get("paused"):
        return driven(run, now, put, *entered, drop=drop)
    held, gone = parked({**run, "status": "compensating"}, now)
    return driven(run, now, put | held, *entered, drop=(*drop, *gone))


def _others(run: Document, place: Place) -> tuple[int, ...]:
    """Return the indexes of the other steps of its group."""
    if "group" not in run["steps"][place.k]:
        return ()
    return tuple(k for k in members(run, place.k) if k != place.k)


def _is_any_at_work(run: Document, indexes: tuple[int, ...]) -> bool:
    return bool(indexes) and any(_is_at_work(run, k) for k in indexes)


def _error_of(run: Document, k: int) -> Mapping[str, Any] | None:
    step = run["steps"][k]
    return step["error"] if step["status"] == "failed" else None


def _is_at_work(run: Document, k: int) -> bool:
    return run["steps"][k]["status"] not in ENDED


def _before_deadline(run: Document, due_at: datetime) -> datetime:
    deadline = None if run["status"] == "compensating" else run.get("deadline_at")
    return due_at if deadline is None else min(due_at, deadline)


def _retrying(run: Document, place: Place, error: Mapping[str, Any]) -> dict[str, Any]:
    at = place.at
    return {
        f"{at}.status": "pending",
        f"{at}.error": dict(error),
        f"{at}.attempt": attempt_of(run, place),
        f"{at}.failures": place.activity(run).get("failures", 0) + 1,
    } | begun(run, place)


def memo_size(run: Document, place: Place) -> int:
    """Return the bytes of users' values in a memo, which goes with the end of its step."""
    memo = place.memo(run)
    return sum(entry.get("size", 0) for entry in memo.values()) if memo else 0


def _next_rev(run: Document) -> int:
    return run["rev"] + 1 if isinstance(run.get("rev"), int) else 1


def _ended(run: Document, place: Place, status: str, ending: Ending) -> dict[str, Any]:
    at = place.at
    put = begun(run, place)
    put[f"{at}.status"], put[f"{at}.attempt"], put[f"{at}.ended_at"] = status, attempt_of(run, place), ending.now
    return put
