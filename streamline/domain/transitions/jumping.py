"""Going on at another step: a handler's jump, an operator's rewind, a fork into a new run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from streamline.domain.change import Change
from streamline.domain.payloads import size_of
from streamline.domain.place import ENDED, Document, Place, beginnings, members
from streamline.domain.statuses import TERMINAL
from streamline.domain.transitions.discarding import check_lasting
from streamline.domain.transitions.patching import begun
from streamline.domain.transitions.stepping import Ending, begin, memo_size
from streamline.domain.transitions.writing import (
    WAITING,
    answerable,
    driven,
    listens,
    of_place,
    operated,
    owing,
    parked,
)
from streamline.errors import IllegalTransition, StepNotFound, StepOutputMissing

# What a step keeps when it is done again from the beginning.
_LASTING = ("id", "group", "compensable", "keep")


def jump(run: Document, place: Place, to: str, ending: Ending) -> Change:
    """Return the change by which a handler ends its step and goes on at another one, forwards or backwards."""
    k, now = index_of(run, to), ending.now
    put: dict[str, Any] = {"jumps": run.get("jumps", 0) + 1}
    if k <= place.k:
        put |= _reset_between(run, k, place.k, now) | owing(run, now)
    else:
        at = place.at
        put |= begun(run, place) | {f"{at}.status": "done", f"{at}.attempt": run["attempt"], f"{at}.ended_at": now}
        put |= {f"steps.{j}.status": "skipped" for j in range(place.k + 1, k)}
    if run["recovery_count"]:
        put["recovered_before"] = run["recovery_count"]
    left, drop = answerable(run, without=lambda _, __: True)
    put |= left
    if k > place.k:
        drop = (*drop, *(f"{place.at}.{name}" for name in ("memo", "waits", "error") if name in run["steps"][place.k]))
    event = ("step.jumped", of_place(run, place) | {"to": to})
    sizes: dict[str, Any] = {"growth": -_thrown_away(run, min(k, place.k), place.k)}
    if (state := ending.state) is not None:
        put, drop = {**put, **state.put}, (*drop, *state.drop)
        sizes = {"weight": state.weight, "growth": sizes["growth"] + state.growth}
    if not ending.go_on or run.get("paused"):
        held, gone = parked(run, now)
        return driven(run, now, put | held | {"cursor": k, "attempt": 0}, event, drop=(*drop, *gone), **sizes)
    # A step that was reset is put as a whole: what begins it goes into the same value.
    started, entries = begin(run, k, now)
    return driven(run, now, _folded(put, started), event, *entries, drop=drop, **sizes)


def rewind(run: Document, to: str, now: datetime, *, by: str | None = None) -> Change:
    """Return the change that does a run again from a step on, in place, and fences its driver off.

    Raises:
        StepNotFound: The run has no such step.
        IllegalTransition: The run is a draft or is being compensated, has not come to that step, or its time is over.
    """
    k = index_of(run, to)
    check_lasting(run, now)
    if run["status"] in ("compensating", "draft"):
        raise IllegalTransition(f"rewind: the run is {run['status']}", field="status")
    reached = members(run, run["cursor"])[-1]
    if k > reached:
        raise IllegalTransition(f"rewind: the run has not come to step {to!r}", field="to_step")
    put: dict[str, Any] = {"status": "waiting", "live": True, "cursor": k, "attempt": 0, "recovery_count": 0}
    put |= _reset_between(run, k, len(run["steps"]) - 1, now) | owing(run, now)
    put["paused.due_at" if run.get("paused") else "due_at"] = now
    freed = _thrown_away(run, k, len(run["steps"]) - 1) + ("output" in run and size_of(run["output"]))
    put["size"] = max(0, run.get("size", 0) - freed)
    if "idempotency_key" in run:
        put["active_key"] = run["idempotency_key"]
    put |= listens({**run, "status": "waiting"})
    gone = (*_OF_THE_END, *(("deadline_at", "start_by", "admitted_at") if run["status"] in TERMINAL else ()))
    undone = (f"steps.{j}.compensation" for j in range(k) if "compensation" in run["steps"][j])
    drop = (*(name for name in gone if name in run and name not in put), *undone)
    told = {"step": to} | ({"by": by} if by is not None else {})
    return operated(run, now, put, ("run.rewound", told), drop=drop)


_OF_THE_END = (
    "lease", "error", "output", "ended_at", "expire_at", "cancel", "recovered_before",
    "nudged", "jumps", *WAITING,
)  # fmt: skip


def forked(run: Document, newborn: Mapping[str, Any], from_step: str) -> dict[str, Any]:
    """Return a new run that stands at a step of an old one, with the outputs of the steps before it.

    Raises:
        StepNotFound: The run has no such step.
        IllegalTransition: The run has not come to that step.
    """
    k = index_of(run, from_step)
    if k > members(run, run["cursor"])[-1]:
        raise IllegalTransition(f"fork: the run has not come to step {from_step!r}", field="from_step")
    before = [_copied(step) for step in run["steps"][:k]]
    return {**newborn, "steps": [*before, *newborn["steps"][k:]], "cursor": k, "forked_from": run["_id"]}


def index_of(run: Document, step_id: str) -> int:
    """Return a step's index, the first of its group; raise `StepNotFound`."""
    for k, step in enumerate(run["steps"]):
        if step["id"] == step_id:
            return members(run, k)[0]
    raise StepNotFound(f"the run has no step {step_id!r:.100}", field="step")


def _reset_between(run: Document, first: int, last: int, now: datetime) -> dict[str, Any]:
    return {f"steps.{j}": reset(run["steps"][j], now) for j in range(first, last + 1)}


def _thrown_away(run: Document, first: int, last: int) -> int:
    """Return the bytes of users' values that go where steps are reset: memos, and outputs that no history keeps."""
    freed = 0
    for k in range(first, last + 1):
        freed += memo_size(run, Place(k))
        if "output" in run["steps"][k] and not run["steps"][k].get("keep"):
            freed += size_of(run["steps"][k]["output"])
    return freed


def reset(step: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Return a step as it is before it begins; what it had brought goes to its history, where it keeps one."""
    fresh = {name: step[name] for name in _LASTING if name in step}
    fresh |= {"status": "pending", "generation": beginnings(step) + 1}
    history = list(step.get("history", ()))
    if step["status"] == "done" and step.get("keep"):
        version = step.get("version", len(history) + 1)
        known = {each["version"] for each in history}
        if version not in known:
            history.append({"version": version, "output": step.get("output"), "ended_at": step.get("ended_at", now)})
        fresh["version"] = max([version, *known]) + 1
        history = history[-step["keep"] :]
    elif "version" in step:
        fresh["version"] = step["version"]
    return fresh | ({"history": history} if history else {})


def _copied(step: Mapping[str, Any]) -> dict[str, Any]:
    # Undoing what the old run did is the old run's to do.
    return {name: value for name, value in step.items() if name not in ("compensation", "compensable", "memo")}


def _folded(put: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    folded = dict(put)
    for path, value in more.items():
        whole, _, name = path.rpartition(".")
        if whole in folded:
            folded[whole] = {**folded[whole], name: value}
        else:
            folded[path] = value
    return folded


def pin(run: Document, step_id: str, version: int, now: datetime) -> Change | None:
    """Return the change that makes an earlier output of a step its output again, or None where it is that already.

    Raises:
        StepNotFound: The run has no such step.
        StepOutputMissing: The step's history has no such version.
        IllegalTransition: The run is cancelled, or the step is to be done again.
    """
    k = next((i for i, step in enumerate(run["steps"]) if step["id"] == step_id), None)
    if k is None:
        raise StepNotFound(f"the run has no step {step_id!r:.100}", field="step")
    if run["status"] == "cancelled":
        raise IllegalTransition("pin_output: the run is cancelled", field="status")
    put = pinned(run["steps"][k], f"steps.{k}", version)
    if put is not None and run["status"] == "done" and k + 1 == len(run["steps"]):
        put["output"] = put[f"steps.{k}.output"]
    return None if put is None else operated(run, now, put, ("step.pinned", {"step": step_id, "version": version}))


def pinned(step: Mapping[str, Any], at: str, version: int) -> dict[str, Any] | None:
    """Return what to put so that an earlier output is the step's, or None where it is already."""
    if step["status"] not in ENDED:
        raise IllegalTransition(f"pin_output: step {step['id']!r} is to be done again", field="step")
    history = list(step.get("history", ()))
    current = step.get("version", 1)
    if version == current and step["status"] == "done":
        return None
    found = next((each for each in history if each["version"] == version), None)
    if found is None:
        raise StepOutputMissing(f"step {step['id']!r} has no output of version {version}", field="version")
    if step["status"] == "done" and current not in {each["version"] for each in history}:
        history.append({"version": current, "output": step.get("output"), "ended_at": step.get("ended_at")})
    kept = sorted(history, key=lambda each: each["version"])[-max(step.get("keep", 1), 1) :]
    return {f"{at}.output": found["output"], f"{at}.version": version, f"{at}.history": kept}
