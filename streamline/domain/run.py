"""Runs, steps and events as users see them: frozen values read from stored documents."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields, replace
from datetime import datetime
from typing import Any, Literal

from streamline.domain.decisions import check_run
from streamline.domain.definition import Definition
from streamline.domain.payloads import ANY, Codec
from streamline.domain.place import Place, at_work, attempt_of, unfinished
from streamline.domain.record import Record, required
from streamline.domain.statuses import TERMINAL, RunStatus, StepStatus
from streamline.errors import CorruptRun

# Waits that end by themselves, or with a child.
_UNANSWERABLE = ("child", "join", "poll", "sleep")


@dataclass(frozen=True, slots=True)
class Failure(Record):
    """Why a run or a step failed."""

    code: str
    type: str
    message: str
    step: str | None = None
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Wait(Record):
    """What a run waits for.

    Attributes:
        kind: ``"sleep"``, ``"wait"``, ``"event"``, ``"hook"``, ``"approval"``, ``"question"``, ``"poll"``, ``"child"``
            or ``"join"``.
        key: Its address within the step.
        step: The step.
        due_at: When it is over by itself, if it is.
        run_id: The run.
        workflow: The run's workflow.
        name: The event that is waited for.
        reason: What is waited for, for people.
        data: Shown with it.
        approvers: Who may decide; None for anybody.
        opened_at: Since when somebody can answer; None where nobody can.
    """

    kind: str
    key: str
    step: str
    due_at: datetime | None = None
    run_id: str = ""
    workflow: str = ""
    name: str | None = None
    reason: str | None = None
    data: Any = None
    approvers: tuple[str, ...] | None = None
    opened_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Whether somebody can answer."""
        return self.opened_at is not None


@dataclass(frozen=True, slots=True)
class Progress(Record):
    """How far a step is, as it said last."""

    fraction: float
    at: datetime
    message: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogLine(Record):
    """A line that a handler logged."""

    at: datetime
    level: str
    message: str
    step: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Compensation(Record):
    """How the undoing of a step stands."""

    status: Literal["pending", "waiting", "done", "failed"]
    attempt: int = 0
    error: Failure | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Event(Record):
    """One thing that happened to a run; `seq` counts them from 1 without gaps.

    Attributes:
        run_id: The run; with `seq` it names the event for ever.
        seq: Its number within the run.
        type: Such as ``"step.done"``, or the name that the handler gave it.
        at: When it happened.
        step: The step that it concerns, if it concerns one.
        attempt: Which attempt of the step.
        data: Whatever else is told of it.
        workflow: The run's workflow; None where it was not read from the log.
        version: The version of it.
        tenant_id: Whose run it is.
        position: Its place in the log, where it was read from there.
    """

    run_id: str
    seq: int
    type: str
    at: datetime
    step: str | None = None
    attempt: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    workflow: str | None = None
    version: str | None = None
    tenant_id: str | None = None
    position: int | None = None


@dataclass(frozen=True)
class StepFields:
    """What a step has as a value and as it is stored."""

    __slots__ = ()

    id: str = required()
    status: StepStatus = required()
    attempt: int = 0
    output: Any = None
    error: Failure | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    progress: Progress | None = None
    compensation: Compensation | None = None
    group: str | None = None
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Step(StepFields, Record):
    """One step of a run."""

    waits: tuple[Wait, ...] = ()


@dataclass(frozen=True)
class RunFields:
    """What a run has as a value and as it is stored."""

    __slots__ = ()

    id: str = required()
    workflow: str = required()
    version: str = required()
    status: RunStatus = required()
    priority: int = required()
    attempt: int = required()
    recovery_count: int = required()
    rev: int = required()
    created_at: datetime = required()
    updated_at: datetime = required()
    input: Any = required()
    state: Any = None
    output: Any = None
    error: Failure | None = None
    tenant_id: str | None = None
    tags: tuple[str, ...] = ()
    idempotency_key: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    due_at: datetime | None = None
    expire_at: datetime | None = None
    cancel: Mapping[str, Any] | None = None
    parent: Mapping[str, Any] | None = None
    root_run_id: str | None = None
    forked_from: str | None = None
    deadline_at: datetime | None = None
    start_by: datetime | None = None
    schedule_id: str | None = None
    scheduled_at: datetime | None = None
    trace: Mapping[str, str] | None = None
    logs: tuple[LogLine, ...] = ()
    slot: int | None = None
    queued_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(RunFields, Record):
    """One run of a workflow, as it was stored when it was read.

    Instants are aware UTC with whole milliseconds; `input`, `state`, `output` and the steps' outputs are of their
    annotated types where the workflow is registered in the reading process, else as stored.
    """

    steps: tuple[Step, ...]
    metadata: Mapping[str, Any]
    paused: bool
    waits: tuple[Wait, ...]
    worker: str | None
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether the run is over: nothing but an operator's retry will change it."""
        return self.status in TERMINAL

    def step(self, step_id: str) -> Step:
        """Return the step of this id; raise ``KeyError`` where there is none."""
        for step in self.steps:
            if step.id == step_id:
                return step
        raise KeyError(step_id)


def read_run(document: Mapping[str, Any], definition: Definition | None) -> Run:
    """Return the run that `document` holds; raise `CorruptRun` where it is not of the form that this engine writes."""
    check_run(document)
    with reading(document):
        return _read(document, definition)


@contextmanager
def reading(document: Mapping[str, Any]) -> Generator[None]:
    """Raise `CorruptRun` for whatever goes wrong while a stored run is read."""
    try:
        yield
    except KeyError as error:
        raise CorruptRun(f"run {document.get('_id')}: field {error.args[0]}", field=str(error.args[0])) from error
    except (TypeError, AttributeError, ValueError, IndexError) as error:
        raise CorruptRun(
            f"run {document.get('_id')}: a stored value is not of its type: {type(error).__name__}"
        ) from error


def read_event(run_id: str, stored: Mapping[str, Any], tenant_id: str | None = None) -> Event:
    """Return the event that an entry of a run's ring holds."""
    known = ("seq", "type", "at", "step", "attempt")
    data = {name: value for name, value in stored.items() if name not in (*known, "mark")}
    return Event(run_id, **{name: stored[name] for name in known if name in stored}, data=data, tenant_id=tenant_id)


def read_entry(entry: Mapping[str, Any]) -> Event:
    """Return the event that an entry of the log holds."""
    return replace(
        read_event(entry["run_id"], entry["event"], entry["tenant_id"]),
        workflow=entry["workflow"],
        version=entry["version"],
        position=entry["_id"],
    )


def entry_of(event: Event) -> dict[str, Any]:
    """Return an event of the log as it is stored, so that `read_entry` reads it."""
    told = {name: value for name in ("seq", "type", "at", "step", "attempt") if (value := event[name]) is not None}
    of_run = {name: event[name] for name in ("run_id", "seq", "workflow", "version", "tenant_id")}
    return {"_id": event.position, **of_run, "event": {**told, **event.data}}


_DECODED = ("id", "input", "state", "output", "error", "tags", "logs")
_AS_STORED = tuple((each.name, each.default) for each in fields(RunFields) if each.name not in _DECODED)


def _read(document: Mapping[str, Any], definition: Definition | None) -> Run:
    as_stored = {name: document[name] if none is MISSING else document.get(name, none) for name, none in _AS_STORED}
    steps = tuple(_read_step(document, i, definition) for i in range(len(document["steps"])))
    return Run(
        **as_stored,
        id=document["_id"],
        input=_codec(definition, "input").decode(document["input"]),
        state=_decoded(document, "state", definition),
        output=read_output(document, definition),
        error=read_failure(document.get("error")),
        steps=steps,
        tags=tuple(document.get("tags", ())),
        metadata=dict(document.get("metadata", {})),
        paused=bool(document.get("paused")),
        waits=tuple(wait for step in steps for wait in step.waits),
        worker=(document.get("lease") or {}).get("worker"),
        logs=tuple(LogLine(**line) for line in document.get("logs", ())),
        metrics=dict(document.get("metrics", {})),
    )


def read_output(document: Mapping[str, Any], definition: Definition | None) -> Any:
    """Return the run's output, of its last step's type; None unless the run is done and that step was not skipped."""
    if document.get("status") != "done" or document["steps"][-1]["status"] != "done":
        return None
    if definition is None:
        return document.get("output")
    try:
        return definition.steps[-1].output.decode(document.get("output"))
    except ValueError as error:
        raise CorruptRun(f"run {document['_id']}: its output is not of the declared type", field="output") from error


def _read_step(document: Mapping[str, Any], k: int, definition: Definition | None) -> Step:
    stored, place = document["steps"][k], Place(k)
    # A claim covers many runs in one write and touches no step; that those at work are attempted follows from it.
    is_at_work = document["status"] == "running" and place in unfinished(document)
    driven = is_at_work and stored["status"] != "waiting"
    resumed = is_at_work and stored["status"] == "waiting" and "group" not in stored
    codec = _step_codec(definition, stored["id"])
    return Step(
        id=stored["id"],
        status="running" if driven or resumed else stored["status"],
        attempt=attempt_of(document, place) if driven or resumed else stored.get("attempt", 0),
        output=codec.decode(stored["output"]) if "output" in stored else None,
        error=read_failure(stored.get("error")),
        started_at=stored.get("started_at") or ((document.get("lease") or {}).get("at") if is_at_work else None),
        ended_at=None if is_at_work else stored.get("ended_at"),
        waits=_read_waits(document, k),
        progress=Progress(**stored["progress"]) if "progress" in stored else None,
        compensation=_read_compensation(stored.get("compensation")),
        group=stored.get("group"),
        generation=stored.get("generation", 0),
    )


def read_waits(document: Mapping[str, Any]) -> tuple[Wait, ...]:
    """Return what a run waits for: all that somebody can answer, and where nobody drives it, its timers."""
    return tuple(wait for k in range(len(document["steps"])) for wait in _read_waits(document, k))


def _read_waits(document: Mapping[str, Any], k: int) -> tuple[Wait, ...]:
    if document["status"] in TERMINAL:
        return ()
    step, waits = document["steps"][k], list[Wait]()
    for place in (place for place in at_work(document) if place.k == k):
        activity = place.activity(document)
        is_parked = activity.get("status") == "waiting" and "lease" not in document
        asked = set(activity.get("waits", ())) if is_parked else set()
        for address, entry in place.memo(document).items():
            if entry.get("open") or (address in asked and entry["kind"] in _UNANSWERABLE and "outcome" not in entry):
                waits.append(_read_wait(document, step["id"], address, entry))
    return tuple(waits)


def _read_wait(document: Mapping[str, Any], step: str, address: str, entry: Mapping[str, Any]) -> Wait:
    approvers = entry.get("approvers")
    return Wait(
        kind=entry["kind"],
        key=address,
        step=step,
        due_at=entry.get("due_at"),
        run_id=document["_id"],
        workflow=document["workflow"],
        name=entry.get("name"),
        reason=entry.get("reason"),
        data=entry.get("data"),
        approvers=None if approvers is None else tuple(approvers),
        opened_at=entry.get("opened_at"),
    )


def _read_compensation(stored: Mapping[str, Any] | None) -> Compensation | None:
    if stored is None:
        return None
    return Compensation(
        stored["status"], stored.get("attempt", 0), read_failure(stored.get("error")), stored.get("ended_at")
    )


def read_failure(stored: Mapping[str, Any] | None) -> Failure | None:
    """Return the failure that is stored, if one is."""
    if stored is None:
        return None
    return Failure(**{name: stored[name] for name in ("code", "type", "message", "step", "attempt") if name in stored})


def _decoded(document: Mapping[str, Any], name: str, definition: Definition | None) -> Any:
    return _codec(definition, name).decode(document[name]) if name in document else None


def _codec(definition: Definition | None, name: str) -> Codec:
    return ANY if definition is None else (getattr(definition, name) or ANY)


def _step_codec(definition: Definition | None, step_id: str) -> Codec:
    if definition is None or step_id not in definition.index:
        return ANY
    return definition.steps[definition.index[step_id]].output
