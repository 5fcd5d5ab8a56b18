"""The documents: what they share with the values of the domain is inherited from it, so that it is written once.

`RunFields`, `StepFields` and `ScheduleFields` are the fields that a stored document and the value read from it have in
common; `Run`, `Step` and `Schedule` inherit them as these documents do. Inheriting rather than generating lets type
checkers see them, too. What is added here is only stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar

from pydantic import BaseModel, Field

from streamline.domain.run import RunFields, StepFields
from streamline.features.recurrence.schedule import ScheduleFields
from streamline.odm.reading_only import EngineDocument


class StoredLease(BaseModel):
    """Who works on a run.

    Attributes:
        worker: The worker's id.
        token: What each of its writes must show.
        at: Since when.
        until: Until when, unless it is extended.
        news: How the run was taken, as an event tells it later.
    """

    worker: str
    token: str
    at: datetime
    until: datetime
    news: str | None = None


class StoredOutput(BaseModel):
    """An earlier output of a step; see ``ctx.output_history``."""

    version: int
    output: Any = None
    ended_at: datetime


class StoredStep(BaseModel, StepFields):  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    """A step as it is stored in its run.

    Attributes:
        waits: Addresses of the entries of `memo` that its handler waits for.
        memo: What its handler has settled, and asked for, by address.
        spilled: How many entries of its memo lie in the collection ``memo``.
        failures: How often it has failed since it was begun.
        due_at: When it is to be tried again, as a step of a group.
        retries: How often an operator had it retried after the run had ended.
        compensable: Whether it is undone where the run ends badly.
        keep: How many earlier outputs are kept.
        history: The earlier outputs.
        version: Which output the present one is, where earlier ones are kept.
    """

    waits: tuple[str, ...] = ()
    memo: Mapping[str, Any] = {}
    spilled: int = 0
    failures: int = 0
    due_at: datetime | None = None
    retries: int = 0
    compensable: bool = False
    keep: int = 0
    history: tuple[StoredOutput, ...] = ()
    version: int | None = None


class RunDocument(EngineDocument, RunFields):  # pyright: ignore[reportGeneralTypeIssues]
    """A run as it is stored.

    What users have to do with:

    Attributes:
        steps: Its steps, in the order of their definition.
        metadata: As it was started with.
        metrics: Sums of ``ctx.metric``.
        live: Whether it has not ended.
        lease: Who works on it; None where nobody does.
        paused: Who holds it up, since when and why; None where nobody does.
        waiting_since: Since when it waits for somebody, and `waiting_for`: what kinds of answers.
        events: The newest events, the last with the number `event_seq`.

    The rest is how the engine keeps it, and may change with any release: do not build on it.
    """

    collection: ClassVar[str] = "runs"

    id: str  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]
    steps: tuple[StoredStep, ...]
    metadata: Mapping[str, Any] = {}
    metrics: Mapping[str, float] = {}
    live: bool = False
    lease: StoredLease | None = None
    paused: Mapping[str, Any] | None = None
    waiting_since: datetime | None = None
    waiting_for: tuple[str, ...] = ()
    events: tuple[Mapping[str, Any], ...]
    event_seq: int

    # How it is driven.
    route: str
    cursor: int
    mark: str | None = None
    born: str | None = None
    nudged: bool = False
    jumps: int = 0
    recovered_before: int = 0
    size: int = 0
    state_size: int = 0
    children: bool = False
    spilled: bool = False
    compensate_on: tuple[str, ...] = ()

    # By what it is found, and held back.
    active_key: str | None = None
    kept_key: str | None = None
    debounce_key: str | None = None
    fire_by: datetime | None = None
    gated: bool = False
    slot_key: str | None = None
    throttle_key: str | None = None
    admitted_at: datetime | None = None
    hooks: tuple[str, ...] = ()
    listens: tuple[str, ...] = ()

    # What it has to do with events, and what follows from its end.
    cancel_on: tuple[Mapping[str, Any], ...] = ()
    inbox: tuple[Mapping[str, Any], ...] = ()
    heard: tuple[Mapping[str, Any], ...] = ()
    passed: tuple[Mapping[str, Any], ...] = ()
    chain: int = 0
    retention: Mapping[str, float] = {}
    owes_at: datetime | None = None
    told_at: datetime | None = None
    removed_at: datetime | None = None
    takes_children: bool = False
    tells: bool = False
    ends: int = 0
    outbox_at: datetime | None = None
    relayed: int = 0

    class Settings:
        """For Beanie."""

        name = "streamline.runs"


class ScheduleDocument(EngineDocument, ScheduleFields):  # pyright: ignore[reportGeneralTypeIssues]
    """A schedule as it is stored.

    Attributes:
        name: What `Schedule.id` is: a name within the tenant.
        jitter: In seconds.
        until_at: Last instant at which it may occur.
        max_count: How many runs it starts at most; stored as ``count``, which Beanie's documents have as a method.
        due_at: When it is to be looked at.
        mark: Of the last change.
    """

    collection: ClassVar[str] = "schedules"

    id: str  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]
    name: str
    jitter: float | None
    until_at: datetime | None
    max_count: int | None = Field(alias="count")
    due_at: datetime | None = None
    mark: str | None = None

    class Settings:
        """For Beanie."""

        name = "streamline.schedules"


class EventDocument(EngineDocument):
    """An event as the log keeps it, where somebody has switched the log on.

    Attributes:
        id: Its place in the log.
        run_id: The run.
        seq: Its number within the run.
        workflow: The run's workflow.
        version: The version of it.
        tenant_id: Whose run it is.
        born: What tells the run from others that had its id.
        logged_at: When it came into the log.
        event: ``type``, ``at``, ``step``, ``attempt``, and whatever else is told of it.
    """

    collection: ClassVar[str] = "log"

    id: int  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]
    run_id: str
    seq: int
    workflow: str
    version: str
    tenant_id: str | None
    born: str | None = None
    logged_at: datetime
    event: Mapping[str, Any]

    class Settings:
        """For Beanie."""

        name = "streamline.log"
