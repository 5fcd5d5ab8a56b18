"""How a run comes to be: the document that is inserted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import takewhile
from typing import Any

from streamline.domain.definition import Definition, StepDefinition
from streamline.domain.transitions.writing import Entry, events_after


@dataclass(frozen=True, slots=True)
class Order:
    """What the caller asks for when starting a run; values are already checked and encoded.

    Args:
        is_kept: Whether the idempotency key stays taken when the run has ended.
        gate: The keys under which the run passes its workflow's gates.
        chain: How many runs started one another, by triggers, before this one.
        inbox: Events that the run has from its beginning.
        started_by: The event that starts it, which it does not take again.
        trace: The trace that its start belongs to, in W3C's form.
        cancel_on: What cancels the run: derived here, from definition and input, so that it holds for every start.

    Raises:
        InvalidKey: A function of the input that says what cancels the run cannot do so.
    """

    run_id: str
    definition: Definition
    input: Any
    weight: int = 0
    priority: int = 0
    tenant_id: str | None = None
    idempotency_key: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] | None = None
    parent: Mapping[str, Any] | None = None
    root_run_id: str | None = None
    start_by: datetime | None = None
    deadline_at: datetime | None = None
    schedule_id: str | None = None
    scheduled_at: datetime | None = None
    is_kept: bool = False
    gate: Mapping[str, Any] = field(default_factory=dict)
    chain: int = 0
    inbox: tuple[Mapping[str, Any], ...] = ()
    started_by: Mapping[str, Any] | None = None
    trace: Mapping[str, str] | None = None
    cancel_on: tuple[Mapping[str, Any], ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        """Derive what cancels the run."""
        if self.definition.cancel_on:
            rules = (rule.stored(self.input, self.definition.input) for rule in self.definition.cancel_on)
            object.__setattr__(self, "cancel_on", tuple(rule for rule in rules if rule is not None))


def queued(order: Order, now: datetime, due_at: datetime, slot: int | None = None) -> dict[str, Any]:
    """Return a new run that any worker may take from `due_at` on; it may hold a slot already."""
    run = _newborn(order, now, ())
    run |= {"status": "draft", "attempt": 0, "due_at": due_at}
    return run if slot is None else run | {"slot": slot}


def debounced(order: Order, now: datetime, due_at: datetime, fire_by: datetime | None) -> dict[str, Any]:
    """Return a new draft that later starts under its key change and put off, until `fire_by` at the latest."""
    run = queued(order, now, due_at) | {"debounce_key": order.gate["debounce_key"]}
    return run if fire_by is None else run | {"fire_by": fire_by}


def in_line(order: Order, now: datetime) -> dict[str, Any]:
    """Return a new run that waits for a slot."""
    run = _newborn(order, now, (("run.queued", {}),))
    run |= {"status": "draft", "attempt": 0, "queued_at": now}
    # Whoever looks after due runs ends it where its time is over.
    limits = [limit for limit in (order.start_by, order.deadline_at) if limit is not None]
    return run | {"due_at": min(limits)} if limits else run


def claimed(order: Order, now: datetime, lease: Mapping[str, Any], slot: int | None = None) -> dict[str, Any]:
    """Return a new run that the starting worker already holds: no claim is needed, and its first step has begun."""
    first = _first_group(order.definition)
    run = _newborn(order, now, tuple(("step.started", {"step": step.id, "attempt": 1}) for step in first))
    for step in run["steps"][: len(first)]:
        step |= {"status": "running", "started_at": now}
    run |= {"status": "running", "attempt": 1, "lease": dict(lease), "started_at": now}
    if order.gate:
        run |= {"admitted_at": now} | ({} if slot is None else {"slot": slot})
    return run


def _newborn(order: Order, now: datetime, entries: tuple[Entry, ...]) -> dict[str, Any]:
    definition = order.definition
    events = events_after(0, now, (("run.created", {}), *entries))
    run: dict[str, Any] = {
        "_id": order.run_id,
        "workflow": definition.name,
        **of_version(definition),
        "tenant_id": order.tenant_id,
        "input": order.input,
        "cursor": 0,
        "priority": order.priority,
        "rev": 1,
        "size": order.weight,
        "recovery_count": 0,
        "live": True,
        "events": list(events),
        "event_seq": events[-1]["seq"],
        "created_at": now,
        "updated_at": now,
    }
    for name in ("parent", "root_run_id", "start_by", "deadline_at", "schedule_id", "scheduled_at", "trace"):
        if (wanted := getattr(order, name)) is not None:
            run[name] = wanted
    if order.idempotency_key is not None:
        run |= {"idempotency_key": order.idempotency_key, "active_key": order.idempotency_key}
        run |= {"kept_key": order.idempotency_key} if order.is_kept else {}
    if order.gate:
        # Not the debounce key: only a draft that can still be put off holds it.
        run |= {name: key for name, key in order.gate.items() if name != "debounce_key"} | {"gated": True}
    return run | reacting(order) | _labels(order)


def _labels(order: Order) -> dict[str, Any]:
    """Return what a new run can be found by, as whoever starts it says."""
    labels = {"tags": list(order.tags), "metadata": dict(order.metadata or {})}
    return {name: given for name, given in labels.items() if given}


def of_version(definition: Definition) -> dict[str, Any]:
    """Return what a new run has of the version that it is started with."""
    steps = [newborn_step(step) for step in definition.steps]
    found: dict[str, Any] = {"version": definition.version, "route": definition.route, "steps": steps}
    if any(step.compensation is not None for step in definition.steps):
        found["compensate_on"] = sorted(definition.compensate_on)
    if definition.retention:
        # Whoever ends the run, be it a process that does not know the workflow, can tell how long it is kept.
        found["retention"] = {status: kept.total_seconds() for status, kept in definition.retention.items()}
    return found


def reacting(order: Order) -> dict[str, Any]:
    """Return what a new run has to do with events."""
    found: dict[str, Any] = {"chain": order.chain} if order.chain else {}
    if order.inbox:
        found["inbox"] = [dict(event) for event in order.inbox]
    if order.started_by is not None:
        found["heard"] = [dict(order.started_by)]
    if order.cancel_on:
        names = sorted({rule["name"] for rule in order.cancel_on})
        found |= {"cancel_on": [dict(rule) for rule in order.cancel_on], "listens": names}
    return found


def newborn_step(step: StepDefinition) -> dict[str, Any]:
    """Return a step as a new run holds it; whoever drives the run later finds its rules there."""
    stored: dict[str, Any] = {"id": step.id, "status": "pending"}
    if step.group is not None:
        stored["group"] = step.group
    if step.compensation is not None:
        stored["compensable"] = True
    if step.output_history:
        stored["keep"] = step.output_history
    return stored


def _first_group(definition: Definition) -> tuple[StepDefinition, ...]:
    first, *others = definition.steps
    if first.group is None:
        return (first,)
    return (first, *takewhile(lambda step: step.group == first.group, others))
