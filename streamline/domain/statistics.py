"""How a deployment stands, in numbers counted from its runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from streamline.domain.record import Record


@dataclass(frozen=True, slots=True)
class Queue(Record):
    """How one key of a concurrency limit stands.

    Attributes:
        workflow: The workflow.
        key: What its key function returned; empty where there is none.
        limit: How many runs may be at work; None where this process does not know the workflow, or it has no limit.
        at_work: How many hold a slot.
        queued: How many wait in line.
        oldest_queued_at: Since when the one waits that has waited longest.
    """

    workflow: str
    key: str
    limit: int | None
    at_work: int = 0
    queued: int = 0
    oldest_queued_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Stats(Record):
    """How a deployment stands.

    Attributes:
        statuses: Number of runs by status.
        workflows: The same for each workflow.
        due: Number of runs that are due and that nobody has taken yet.
        oldest_due_at: When the first of them fell due.
        queues: The keys of concurrency limits under which runs are at work or wait in line.
        workers: Number of runs that each living worker drives at the moment.
        unserved: Number of runs that have not ended, by ``workflow@version``, of versions that no living worker serves.
        paused: Workflows that an operator holds up.
    """

    statuses: Mapping[str, int]
    workflows: Mapping[str, Mapping[str, int]]
    due: int = 0
    oldest_due_at: datetime | None = None
    queues: tuple[Queue, ...] = ()
    workers: Mapping[str, int] = field(default_factory=dict)
    unserved: Mapping[str, int] = field(default_factory=dict)
    paused: tuple[str, ...] = ()
