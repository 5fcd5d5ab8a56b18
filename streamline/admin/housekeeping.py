"""Keeping a deployment in order: remove what has ended, find what does not move."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from streamline.admin.opened import Opened
from streamline.domain.durations import Duration, parse_duration
from streamline.domain.names import check_name
from streamline.domain.statuses import RunStatus
from streamline.domain.stuck import StuckRun
from streamline.engine.asking.stalling import stuck_runs
from streamline.engine.ended.purging import purge
from streamline.engine.ended.removing import remove_run
from streamline.errors import InvalidPolicy
from streamline.store.filters import checked_limit
from streamline.workflow import Workflow


class Housekeeping(Opened):
    """``delete``, ``purge``, ``stuck_runs``."""

    async def delete(self, run_id: str, *, children: bool = False) -> int:
        """Remove a run that has ended, with everything that belongs to it; return how many runs are gone.

        Its memo, its waiting events and its keys go with it: an idempotency key that it kept is free again. What it has
        told others stays: events that it sent, its entries in the event log, runs that it started.

        Args:
            run_id: The run.
            children: Whether its children go with it, and theirs; otherwise they stay.

        Raises:
            RunNotFound: There is no such run.
            IllegalTransition: The run has not ended, or one of the children that are to go with it has not; or its
                parent waits for others and has yet to read how it ended.
            Conflict: What it owes to others, such as an event to the log, cannot be settled at present.
        """
        if not isinstance(children, bool):
            raise InvalidPolicy("children: True or False", field="children")
        return await remove_run(self._open_session.runtime, run_id, self._scope, children=children)

    async def purge(
        self,
        workflow: Workflow[Any, Any, Any] | str | None = None,
        *,
        ended_before: datetime | None = None,
        status: RunStatus | Collection[RunStatus] | None = None,
        limit: int | None = None,
    ) -> int:
        """Remove the ended runs whose retention is over, with everything that belongs to them; return how many.

        It goes by the retention of the workflows as they are registered here now, also for runs that were started
        under another one. What it has begun stands where it is broken off, and it may be repeated, or be called by
        several processes at once. A run that others have yet to read is left for the next time.

        Args:
            workflow: Only runs of this workflow, of any version.
            ended_before: Runs that ended before this instant, whatever their retention.
            status: Only runs that ended so.
            limit: How many at most; default all.

        Raises:
            WorkflowNotFound: The workflow is not registered here, and no instant is given.
            InvalidName, InvalidQuery: An argument is not of the allowed form; names the field.
        """
        name = workflow.name if isinstance(workflow, Workflow) else workflow
        name = None if name is None else check_name(name, "workflow")
        runtime = self._open_session.runtime
        return await purge(runtime, self._scope, name, ended_before=ended_before, status=status, limit=limit)

    async def stuck_runs(
        self, limit: int = 100, *, longer_than: Duration = "5m", paused: bool = False
    ) -> tuple[StuckRun, ...]:
        """Return runs that should have moved and have not for a while, the oldest first, each with the reason.

        What waits for people, events, timers, children or a place in a line is where it should be.

        Args:
            limit: How many at most; 1 to 500.
            longer_than: For how long they have been due, or without a worker. Keep it longer than a lease.
            paused: Whether to name runs, too, that an operator holds, and those of workflows that are held up.

        Raises:
            InvalidQuery, InvalidPolicy: An argument is not of the allowed form; names the field.
        """
        if not isinstance(paused, bool):
            raise InvalidPolicy("paused: True or False", field="paused")
        bound = parse_duration(longer_than, "longer_than")
        runtime, most = self._open_session.runtime, checked_limit(limit)
        return await stuck_runs(runtime, self._scope, limit=most, longer_than=bound, paused=paused)
