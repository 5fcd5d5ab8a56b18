"""What the worker that drives a run does to it: finish a step, try again later, give up, sleep, let go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from streamline.domain.change import Change
from streamline.domain.payloads import NO_VALUE, Encoded
from streamline.domain.transitions.writing import Document, Entry, driven, events_after, finished


@dataclass(slots=True)
class Ending:
    """What a worker needs to know to end a step.

    Args:
        now: The present instant.
        state: The run's state where the handler changed it.
        go_on: Whether the same worker begins the next step; False lets go of the run in the same write.
    """

    now: datetime
    state: Encoded | None = None
    go_on: bool = True


def complete(run: Document, output: Encoded, ending: Ending) -> Change:
    """Return the change that stores the step's output and, in the same write, begins the next step or ends the run."""
    at, step = f"steps.{run['cursor']}", run["steps"][run["cursor"]]
    put = _ended(run, "done", ending)
    put[f"{at}.output"] = output.value
    drop = tuple(f"{at}.{name}" for name in ("error", "memo", "waits") if name in step)
    return _advance(run, ending, put, drop, ("step.done", _of_step(run)), output)


def skip(run: Document, ending: Ending, error: Mapping[str, Any] | None = None) -> Change:
    """Return the change that passes over the step, because a predicate said so or an `error` is tolerated."""
    k = run["cursor"]
    put = _ended(run, "skipped", ending)
    if error is not None:
        put[f"steps.{k}.error"] = dict(error)
    drop = tuple(f"steps.{k}.{name}" for name in ("memo", "waits") if name in run["steps"][k])
    event = ("step.skipped", _of_step(run) | ({"error": dict(error)} if error else {}))
    return _advance(run, ending, put, drop, event, NO_VALUE)


def fail(run: Document, error: Mapping[str, Any], ending: Ending, *, event: str = "run.failed") -> Change:
    """Return the change that fails the step and with it the run."""
    put = _ended(run, "failed", ending) | {f"steps.{run['cursor']}.error": dict(error)}
    put |= finished(run, "failed", ending.now) | {"error": dict(error)}
    told = {"error": dict(error)}
    entries = (("step.failed", _of_step(run) | told), (event, told))
    return driven(run, ending.now, put, *entries, drop=_LET_GO_FOR_EVER)


def try_again(run: Document, error: Mapping[str, Any], due_at: datetime, now: datetime) -> Change:
    """Return the change that records a failed attempt and parks the run until the next one is due."""
    k = run["cursor"]
    put = {
        f"steps.{k}.status": "pending",
        f"steps.{k}.error": dict(error),
        f"steps.{k}.attempt": run["attempt"],
        f"steps.{k}.failures": run["steps"][k].get("failures", 0) + 1,
    }
    put |= _parked(run, due_at) | _begun(run)
    event = ("step.retrying", _of_step(run) | {"error": dict(error), "due_at": due_at})
    return driven(run, now, put, event, drop=("lease",))


def sleep(run: Document, key: str, due_at: datetime, now: datetime) -> Change:
    """Return the change that stores a durable timer in the step's memo and parks the run until it is due."""
    k = run["cursor"]
    wait = {"kind": "sleep", "key": key, "due_at": due_at}
    put = {
        f"steps.{k}.status": "waiting",
        f"steps.{k}.attempt": run["attempt"],
        f"steps.{k}.waits": [wait],
        f"steps.{k}.memo.{key}": {"kind": "sleep", "due_at": due_at},
        # Waking is not another attempt: the claim will count one.
        "attempt": run["attempt"] - 1,
    }
    put |= _parked(run, due_at) | _begun(run)
    return driven(run, now, put, ("run.waiting", _of_step(run) | {"due_at": due_at}), drop=("lease",))


def settle(run: Document, key: str, entry: Mapping[str, Any], now: datetime, *, weight: int = 0) -> Change:
    """Return the change that stores the result of a durable call in the step's memo."""
    put = {f"steps.{run['cursor']}.memo.{key}": {**entry, "size": weight}} | _begun(run)
    return driven(run, now, put, weight=weight, growth=weight)


def save(run: Document, state: Encoded, now: datetime) -> Change:
    """Return the change that stores the run's state in the middle of a step."""
    put, growth = _stored_state(run, state)
    return driven(run, now, put | _begun(run), weight=state.size, growth=growth)


def quarantine(run: Document, error: Mapping[str, Any], now: datetime) -> Change:
    """Return the change that fails a claimed run of which nothing but its lease can be relied upon."""
    put = {**finished(run, "failed", now), "error": dict(error), "updated_at": now, "rev": _next_rev(run)}
    steps, k = run.get("steps"), run.get("cursor")
    if isinstance(steps, list) and type(k) is int and 0 <= k < len(steps) and isinstance(steps[k], dict):
        put |= {f"steps.{k}.status": "failed", f"steps.{k}.error": dict(error), f"steps.{k}.ended_at": now}
    events: tuple[Mapping[str, Any], ...] = ()
    if isinstance(run.get("events"), list) and isinstance(run.get("event_seq"), int):
        events = events_after(run["event_seq"], now, (("run.failed", {"error": dict(error)}),))
        put["event_seq"] = events[-1]["seq"]
    guard = {"lease.token": run["lease"]["token"], "rev": run.get("rev")}
    return Change(guard=guard, put=put, drop=_LET_GO_FOR_EVER, events=events)


def release(run: Document, now: datetime) -> Change:
    """Return the change by which a stopping worker hands an unfinished run to whoever comes next, at once."""
    put = {f"steps.{run['cursor']}.status": "pending", "attempt": run["attempt"] - 1, **_parked(run, now)}
    return driven(run, now, put, ("run.released", {"worker": run["lease"]["worker"]}), drop=("lease",))


_LET_GO_FOR_EVER = ("lease", "due_at", "active_key", "paused")


def _advance(
    run: Document, ending: Ending, put: dict[str, Any], drop: tuple[str, ...], event: Entry, output: Encoded
) -> Change:
    k, weight, growth = run["cursor"], output.size, output.size - _memo_size(run)
    if ending.state is not None:
        stored, more = _stored_state(run, ending.state)
        put, weight, growth = put | stored, weight + ending.state.size, growth + more
    if k + 1 == len(run["steps"]):
        put |= finished(run, "done", ending.now) | {"output": output.value}
        drop = (*drop, *_LET_GO_FOR_EVER)
        return driven(
            run,
            ending.now,
            put,
            event,
            ("run.done", {}),
            drop=drop,
            weight=weight + output.size,
            growth=growth + output.size,
        )
    put["cursor"] = k + 1
    if run["recovery_count"]:
        put["recovered_before"] = run["recovery_count"]
    if not ending.go_on or run.get("paused"):
        put |= _parked(run, ending.now) | {"attempt": 0}
        return driven(run, ending.now, put, event, drop=(*drop, "lease"), weight=weight, growth=growth)
    put["attempt"], put[f"steps.{k + 1}.status"], put[f"steps.{k + 1}.started_at"] = 1, "running", ending.now
    begun = ("step.started", {"step": run["steps"][k + 1]["id"], "attempt": 1})
    return driven(run, ending.now, put, event, begun, drop=drop, weight=weight, growth=growth)


def _memo_size(run: Document) -> int:
    """The memo goes with the end of its step."""
    memo = run["steps"][run["cursor"]].get("memo", {})
    return sum(entry.get("size", 0) for entry in memo.values())


def _next_rev(run: Document) -> int:
    return run["rev"] + 1 if isinstance(run.get("rev"), int) else 1


def _stored_state(run: Document, state: Encoded) -> tuple[dict[str, Any], int]:
    """A state takes the place of the one before: the run grows by the difference."""
    return {"state": state.value, "state_size": state.size}, state.size - run.get("state_size", 0)


def _ended(run: Document, status: str, ending: Ending) -> dict[str, Any]:
    at = f"steps.{run['cursor']}"
    put = _begun(run)
    put[f"{at}.status"], put[f"{at}.attempt"], put[f"{at}.ended_at"] = status, run["attempt"], ending.now
    return put


def _begun(run: Document) -> dict[str, Any]:
    """A step that began with a claim has no start on record yet: the lease knows it."""
    k = run["cursor"]
    if "news" not in run["lease"] or (run["steps"][k]["status"] == "waiting" and "started_at" in run["steps"][k]):
        return {}
    return {f"steps.{k}.started_at": run["lease"]["at"]}


def _parked(run: Document, due_at: datetime) -> dict[str, Any]:
    """A paused run must not come up for claiming: the instant is kept with the pause, and restored by unpause."""
    return {"status": "waiting", ("paused.due_at" if run.get("paused") else "due_at"): due_at}


def _of_step(run: Document) -> dict[str, Any]:
    return {"step": run["steps"][run["cursor"]]["id"], "attempt": run["attempt"]}
