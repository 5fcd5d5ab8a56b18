"""The statuses of runs and steps, and the table of what may follow what: everything else is derived from it."""

from __future__ import annotations

from typing import Literal, get_args

RunStatus = Literal[
    "draft", "running", "waiting", "done", "failed", "cancelled", "compensating", "compensated", "compensation_failed"
]
StepStatus = Literal["pending", "running", "waiting", "done", "failed", "skipped"]

RUN_STATUSES: tuple[RunStatus, ...] = get_args(RunStatus)
STEP_STATUSES: tuple[StepStatus, ...] = get_args(StepStatus)

# A run is `draft` until a worker first takes it, `running` while one holds its lease, `waiting` in between.
# A run that is being compensated stays `compensating` whether or not a worker holds it.
NEXT: dict[RunStatus, frozenset[RunStatus]] = {
    "draft": frozenset({"running", "cancelled"}),
    "running": frozenset({"running", "waiting", "done", "failed", "cancelled", "compensating"}),
    "waiting": frozenset({"running", "waiting", "cancelled", "compensating"}),
    "compensating": frozenset({"compensating", "compensated", "compensation_failed"}),
    "done": frozenset({"waiting"}),
    "failed": frozenset({"waiting"}),
    "cancelled": frozenset({"waiting"}),
    "compensated": frozenset({"waiting"}),
    "compensation_failed": frozenset({"waiting"}),
}

TERMINAL: frozenset[RunStatus] = frozenset({"done", "failed", "cancelled", "compensated", "compensation_failed"})
ACTIVE: frozenset[RunStatus] = frozenset(RUN_STATUSES) - TERMINAL
CLAIMABLE: tuple[RunStatus, ...] = ("draft", "waiting")
HELD: tuple[RunStatus, ...] = ("running", "compensating")
RETRIABLE: frozenset[RunStatus] = frozenset({"failed", "cancelled"})
# Runs that have an error: it is written together with these statuses, and dropped when a run goes on.
ERRED: frozenset[RunStatus] = frozenset({"failed", "cancelled", "compensating", "compensated", "compensation_failed"})
