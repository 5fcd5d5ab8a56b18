"""What is done to many runs at once: cancel, retry, rewind, delete."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from streamline.domain.bulk_result import BulkResult
from streamline.domain.definition import StepReference
from streamline.domain.names import check_note
from streamline.domain.statuses import ACTIVE, RETRIABLE, RUN_STATUSES, TERMINAL
from streamline.engine.asking.in_bulk import Act, InBulk
from streamline.engine.control import Control
from streamline.engine.ended.removing import remove_run
from streamline.engine.session import Session
from streamline.errors import InvalidPolicy, InvalidQuery
from streamline.store import Scope
from streamline.store.bulk_filters import among, read_bulk_filter
from streamline.workflow import Workflow

_CANCELLABLE = ACTIVE - {"compensating"}
_REWINDABLE = frozenset(RUN_STATUSES) - {"compensating", "draft"}


class Bulk:
    """``app.bulk``: an operator's verbs on all runs that fit a filter.

    A filter is a mapping of arguments of `Streamline.runs` by name: ``workflow``, ``status``, ``tags``, ``match``,
    ``created_after``, ``created_before``. A name that begins with ``input``, ``metadata`` or ``output``, such as
    ``"input.customer"``, is a part of ``match``. A filter without any condition is refused unless `limit` is given.

    The runs are gone through oldest first, 16 at a time, each by the transition of the single verb. Runs that are
    started after the call began, by the clock of this process, are left alone. Where the process dies or the database
    goes away in the middle, what was done is done; repeat the call.
    """

    def __init__(self, session: Callable[[], Session], scope: Scope) -> None:
        self._session = session
        self._scope = scope

    async def cancel(
        self,
        filter: Mapping[str, Any],
        *,
        limit: int | None = None,
        dry_run: bool = False,
        reason: str | None = None,
        by: str | None = None,
    ) -> BulkResult:
        """Cancel runs that have not ended and are not being undone; see `Streamline.cancel`.

        Args:
            filter: Which runs; see `Bulk`.
            limit: How many at most, the oldest of them; at least 1.
            dry_run: Write nothing and tell what would be cancelled.
            reason: Kept with each.
            by: Who does it; kept with each.

        Raises:
            InvalidQuery: The filter or limit is not of the allowed form; names the field.
            StoreUnavailable: The database is away; what was done so far is done.
        """
        cancel = partial(self._control.cancel, reason=check_note(reason, "reason"), by=check_note(by, "by"))
        return await self._carry_out(filter, _CANCELLABLE, cancel, limit, dry_run)

    async def retry(self, filter: Mapping[str, Any], *, limit: int | None = None, dry_run: bool = False) -> BulkResult:
        """Let failed and cancelled runs go on from the step where they stopped; see `Streamline.retry`.

        Args:
            filter: Which runs; see `Bulk`.
            limit: How many at most, the oldest of them; at least 1.
            dry_run: Write nothing and tell what would be retried.

        Raises:
            InvalidQuery: The filter or limit is not of the allowed form; names the field.
            StoreUnavailable: The database is away; what was done so far is done.
        """
        return await self._carry_out(filter, RETRIABLE, _always(self._control.retry), limit, dry_run)

    async def rewind(
        self,
        filter: Mapping[str, Any],
        to_step: StepReference[Any] | str,
        *,
        limit: int | None = None,
        dry_run: bool = False,
        by: str | None = None,
    ) -> BulkResult:
        """Do runs again from a step on, in place; see `Streamline.rewind`.

        A repeat of the call does it again with every run that fits the filter still: name a status that a rewound run
        does not have, or go by `created_before` and small limits.

        Args:
            filter: Which runs; see `Bulk`.
            to_step: From where; a run that has not come to it is skipped, one that has no such step fails.
            limit: How many at most, the oldest of them; at least 1.
            dry_run: Write nothing and tell what would be rewound, as far as their statuses tell.
            by: Who does it; kept with each.

        Raises:
            InvalidQuery: The filter or limit is not of the allowed form; names the field.
            StoreUnavailable: The database is away; what was done so far is done.
        """
        step, who = to_step.id if isinstance(to_step, StepReference) else to_step, check_note(by, "by")

        async def rewind(run_id: str, scope: Scope) -> bool:
            await self._control.rewind(run_id, step, scope, by=who)
            return True

        return await self._carry_out(filter, _REWINDABLE, rewind, limit, dry_run)

    async def delete(
        self,
        filter: Mapping[str, Any],
        *,
        children: bool = False,
        limit: int | None = None,
        dry_run: bool = False,
    ) -> BulkResult:
        """Remove runs that have ended, with everything that belongs to them; see `Streamline.delete`.

        Args:
            filter: Which runs; see `Bulk`.
            children: Whether their children go with them, and theirs; one that fits the filter itself may be counted as
                skipped, as it is gone by then.
            limit: How many at most, the oldest of them; at least 1.
            dry_run: Write nothing and tell what would be removed.

        Raises:
            InvalidQuery: The filter or limit is not of the allowed form; names the field.
            InvalidPolicy: `children` is neither True nor False.
            StoreUnavailable: The database is away; what was done so far is done.
        """
        if not isinstance(children, bool):
            raise InvalidPolicy("children: True or False", field="children")

        async def remove(run_id: str, scope: Scope) -> bool:
            return await remove_run(self._session().runtime, run_id, scope, children=children) > 0

        return await self._carry_out(filter, TERMINAL, remove, limit, dry_run)

    @property
    def _control(self) -> Control:
        return self._session().control

    async def _carry_out(
        self, filter: Mapping[str, Any], statuses: Collection[str], act: Act, limit: int | None, dry_run: bool
    ) -> BulkResult:
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise InvalidQuery("limit: a whole number of at least 1", field="limit")
        query = among(read_bulk_filter(_by_name(filter), limited=limit is not None), statuses)
        if query is None:
            return BulkResult(dry_run=dry_run)
        session = self._session()
        bulk = InBulk(session.runtime, session.pages)
        return await bulk.carry_out(query, None if dry_run else act, self._scope, limit)


def _always(change: Callable[[str, Scope], Any]) -> Act:
    """Return an act that changes the run wherever it raises nothing."""

    async def act(run_id: str, scope: Scope) -> bool:
        await change(run_id, scope)
        return True

    return act


def _by_name(filter: Any) -> Any:
    if isinstance(filter, Mapping) and isinstance(workflow := filter.get("workflow"), Workflow):
        return {**filter, "workflow": workflow.name}
    return filter
