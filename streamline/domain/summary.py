"""Runs as lists show them: how they stand, without anything that users put into them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from streamline.domain.record import Record
from streamline.domain.run import Failure, read_failure, reading
from streamline.domain.statuses import RUN_STATUSES, TERMINAL, RunStatus
from streamline.errors import CorruptRun

_NEEDED = ("workflow", "version", "status", "priority", "attempt", "recovery_count", "created_at", "updated_at")
_OPTIONAL = (
    "tenant_id", "idempotency_key", "started_at", "ended_at", "due_at", "expire_at", "deadline_at", "queued_at",
    "waiting_since", "root_run_id", "forked_from", "schedule_id", "scheduled_at",
)  # fmt: skip
# What is read of a run, by field path.
SUMMARY_FIELDS = (
    *_NEEDED, *_OPTIONAL, "tags", "error", "cursor", "steps.id", "steps.status", "paused.at", "cancel.at",
    "waiting_for", "lease.worker", "parent.run_id",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunSummary(Record):
    """How a run stands, without its input, state, outputs, memos, events and logs.

    Attributes:
        id: The run.
        workflow: The run's workflow.
        version: The version of it.
        status: As of a `Run`.
        tenant_id: Whose run it is.
        priority: Larger first.
        tags: Its tags.
        idempotency_key: The key that it was started with.
        step: The step that it stands at; of an ended run the one that was the last.
        steps: Number of steps.
        steps_done: How many of them are done or skipped.
        attempt: Which attempt of the step; from 1, 0 before the first.
        recovery_count: How often it was taken over from a lost worker.
        error: Why it failed, or is being undone.
        created_at: When it was started.
        updated_at: When it was last written.
        started_at: When its first step began.
        ended_at: When it ended.
        due_at: When it is looked at again by itself.
        expire_at: When it will be removed.
        deadline_at: By when it must have ended.
        queued_at: Since when it waits in line for a slot.
        waiting_since: Since when somebody can answer it.
        waiting_for: The kinds of waits that can be answered.
        paused: Whether an operator holds it.
        cancelled: Whether it was cancelled.
        worker: Who drives it.
        parent_id: The run that started it as a child.
        root_run_id: The run at the top of its family.
        forked_from: The run that it was forked from.
        schedule_id: The schedule that started it.
        scheduled_at: For which occurrence.
    """

    id: str
    workflow: str
    version: str
    status: RunStatus
    tenant_id: str | None
    priority: int
    tags: tuple[str, ...]
    idempotency_key: str | None
    step: str
    steps: int
    steps_done: int
    attempt: int
    recovery_count: int
    error: Failure | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    due_at: datetime | None
    expire_at: datetime | None
    deadline_at: datetime | None
    queued_at: datetime | None
    waiting_since: datetime | None
    waiting_for: tuple[str, ...]
    paused: bool
    cancelled: bool
    worker: str | None
    parent_id: str | None
    root_run_id: str | None
    forked_from: str | None
    schedule_id: str | None
    scheduled_at: datetime | None

    @property
    def ended(self) -> bool:
        """Whether the run is over: nothing but an operator's retry will change it."""
        return self.status in TERMINAL


def read_summary(document: Mapping[str, Any]) -> RunSummary:
    """Return what a list shows of a stored run; raise `CorruptRun` where it is not of the form that is written here."""
    with reading(document):
        steps, status = document["steps"], document["status"]
        if status not in RUN_STATUSES:
            raise CorruptRun(f"run {document.get('_id')}: field status", field="status")
        plain: dict[str, Any] = {name: document[name] for name in _NEEDED}
        plain |= {name: document.get(name) for name in _OPTIONAL}
        return RunSummary(
            id=document["_id"],
            **plain,
            tags=tuple(document.get("tags", ())),
            step=steps[document["cursor"]]["id"],
            steps=len(steps),
            steps_done=sum(step["status"] in ("done", "skipped") for step in steps),
            error=read_failure(document.get("error")),
            waiting_for=tuple(document.get("waiting_for", ())),
            paused="paused" in document,
            cancelled="cancel" in document,
            worker=(document.get("lease") or {}).get("worker"),
            parent_id=(document.get("parent") or {}).get("run_id"),
        )
