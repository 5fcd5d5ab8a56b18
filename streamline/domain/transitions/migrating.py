"""Carrying a run that nobody drives over to another version of its workflow, in one guarded write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from streamline.domain.change import Absent, AtMost, Change
from streamline.domain.definition import Definition, StepDefinition
from streamline.domain.payloads import Encoded
from streamline.domain.place import ENDED, Document, Place, members
from streamline.domain.transitions.birth import newborn_step
from streamline.domain.transitions.jumping import index_of, reset
from streamline.domain.transitions.writing import WAITING, operated, waiting_fields
from streamline.errors import IllegalTransition

# Nobody can answer a draft, and what a run that is being undone waits for is kept with the compensations.
_AS_THEY_ARE = ("draft", "compensating")


@dataclass(frozen=True, slots=True)
class Carried:
    """What a run takes along, checked and encoded.

    Args:
        definition: The version that it goes on under.
        renamed: Old ids of steps by their new ones.
        step: The step that it goes on at from its beginning; None for the one that it stands at.
        state: Its state, where that changes.
        input: Its input, where that changes.
    """

    definition: Definition
    renamed: Mapping[str, str]
    step: str | None = None
    state: Encoded | None = None
    input: Encoded | None = None


def migrate(run: Document, carried: Carried, now: datetime) -> Change:
    """Return the change that carries a run over.

    Raises:
        IllegalTransition: The new version has no step to go on at, or what the run has settled cannot be kept there.
        StepNotFound: It has not the step that was asked for.
    """
    definition = carried.definition
    k = _standing(run, carried)
    steps = [_carried(run, step, carried, is_past=i < k, now=now) for i, step in enumerate(definition.steps)]
    group = members({"steps": steps}, k)
    for i in range(k, len(steps)):
        is_new_start = carried.step is not None and i in group
        if (i not in group and "attempt" in steps[i]) or is_new_start:
            steps[i] = reset(steps[i], now)
    put: dict[str, Any] = {
        "version": definition.version, "route": definition.route, "steps": steps, "cursor": k,
    }  # fmt: skip
    for name, encoded in (("state", carried.state), ("input", carried.input)):
        if encoded is not None:
            put[name] = encoded.value
    if carried.state is not None:
        put["state_size"] = carried.state.size
    put |= _looked_at(run, steps, now, anew=carried.step is not None)
    found_by = () if run["status"] in _AS_THEY_ARE else WAITING
    gone = [name for name in (*found_by, "lease") if name in run and name not in put]
    told = {"from": run["version"], "to": definition.version, "step": steps[k]["id"]}
    change = operated(run, now, put, ("run.migrated", told), drop=tuple(gone))
    change.guard = {**change.guard, "route": run["route"], **_nobody_drives(run, now)}
    return change


def _nobody_drives(run: Document, now: datetime) -> dict[str, Any]:
    """Return the guard by which a worker of the old version that took the run meanwhile keeps it."""
    if "lease" not in run:
        return {"lease": Absent()}
    return {"lease.token": run["lease"]["token"], "lease.until": AtMost(now)}


def _standing(run: Document, carried: Carried) -> int:
    new_steps = {"steps": [newborn_step(step) for step in carried.definition.steps]}
    if carried.step is not None:
        return index_of(new_steps, carried.step)
    new_ids = {old: new for new, old in carried.renamed.items()}
    at_work = [run["steps"][k] for k in members(run, run["cursor"]) if run["steps"][k]["status"] not in ENDED]
    for step in at_work or [run["steps"][run["cursor"]]]:
        new_id = new_ids.get(str(step["id"]), str(step["id"]))
        if new_id in carried.definition.index:
            return index_of(new_steps, new_id)
    old_id = run["steps"][run["cursor"]]["id"]
    raise IllegalTransition(
        f"migrate: {carried.definition.route} has no step {old_id!r}; say which step the run goes on at", field="step"
    )


def _carried(run: Document, step: StepDefinition, carried: Carried, *, is_past: bool, now: datetime) -> dict[str, Any]:
    old_id = carried.renamed.get(step.id, step.id)
    fresh = newborn_step(step)
    old = next((each for each in run["steps"] if each["id"] == old_id), None)
    if old is None:
        return fresh | ({"status": "skipped", "ended_at": now} if is_past else {})
    if old_id != step.id and (_has_kin(old) or "spilled" in old):
        raise IllegalTransition(
            f"migrate: step {old_id!r} has children, or a large memo, and cannot have another id", field="steps"
        )
    lasting = {name: value for name, value in old.items() if name not in ("id", "group", "compensable", "keep")}
    merged = fresh | lasting
    if is_past and merged["status"] not in ENDED:
        merged |= {"status": "skipped", "ended_at": now}
    return merged


def _has_kin(step: Mapping[str, Any]) -> bool:
    return any("fan" in entry for entry in (step.get("memo") or {}).values())


def _looked_at(run: Document, steps: list[dict[str, Any]], now: datetime, *, anew: bool) -> dict[str, Any]:
    """Return what to put so that the run is looked at when it was to be, or now where it begins a step anew."""
    carried = {**run, "steps": steps}
    put: dict[str, Any] = {}
    if run["status"] not in _AS_THEY_ARE:
        open_waits = [
            entry
            for k in range(len(steps))
            if steps[k]["status"] not in ENDED
            for entry in Place(k).memo(carried).values()
            if entry.get("open")
        ]
        put |= waiting_fields(run, open_waits)
    if run["status"] == "running":
        put["status"] = "waiting"
    # What is in line, or put off, has begun no step, and is not to begin one sooner.
    if "lease" in run or (anew and run["status"] != "draft"):
        put["paused.due_at" if run.get("paused") else "due_at"] = now
    return put
