"""Which run a log record is about: fields for the engine's own records, and for those of users' loggers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final

FIELDS: Final = ("run_id", "workflow", "version", "step", "attempt", "tenant_id", "worker")

# The fields of the attempt that is logged about now; so it is in tasks and threads that begin there.
SPEAKING_OF: Final[ContextVar[tuple[str | int | None, ...] | None]] = ContextVar("streamline_run_fields", default=None)


def about(run: Mapping[str, Any], step: str | None = None, attempt: int | None = None) -> dict[str, Any]:
    """Return what a log record tells of its run, as ``extra=``; the run may be damaged.

    Args:
        run: The document, or what is known of it.
        step: The step that it is about; default the one that the run stands at, where a single one is at work.
        attempt: Which attempt of it.
    """
    steps, cursor, lease = run.get("steps"), run.get("cursor"), run.get("lease")
    if step is None and isinstance(steps, list) and isinstance(cursor, int) and 0 <= cursor < len(steps):
        here = steps[cursor]
        if isinstance(here, Mapping) and "group" not in here and run.get("status") != "compensating":
            step, attempt = here.get("id"), run.get("attempt")
    return {
        "run_id": run.get("_id"),
        "workflow": run.get("workflow"),
        "version": run.get("version"),
        "step": step,
        "attempt": attempt,
        "tenant_id": run.get("tenant_id"),
        "worker": lease.get("worker") if isinstance(lease, Mapping) else None,
    }


class RunFields(logging.Filter):
    """Adds to every log record which run it is about, for handlers and loggers of your own.

    The record gets ``run_id``, ``workflow``, ``version``, ``step``, ``attempt``, ``tenant_id`` and ``worker``: inside a
    step's handler those of the attempt, in its threads and tasks, too; elsewhere None. What a record has, it keeps.

    ``handler.addFilter(RunFields())`` covers all loggers that the handler serves.
    """

    def __init__(self) -> None:
        super().__init__()

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields; keep the record."""
        fields = None if hasattr(record, "run_id") else SPEAKING_OF.get()
        known = {} if fields is None else dict(zip(FIELDS, fields, strict=True))
        for name in FIELDS:
            if not hasattr(record, name):
                setattr(record, name, known.get(name))
        return True
