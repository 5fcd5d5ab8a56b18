"""Removing many runs whose time is over, in bounded batches; safe to repeat, and to be done by several at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from streamline.engine.asking.run_pages import scopes_within
from streamline.engine.ended.removing import remove_run
from streamline.engine.runtime import Runtime
from streamline.errors import Conflict, InvalidQuery, RunNotFound
from streamline.features.retention import Purge, is_alone, purge_of
from streamline.store import Scope, statements

logger = logging.getLogger("streamline.engine")

_BATCH = 500
_AT_ONCE = 16


async def purge(
    runtime: Runtime, scope: Scope, workflow: str | None, *, ended_before: Any, status: object, limit: int | None
) -> int:
    """Remove the ended runs whose time is over, with what belongs to them; return how many that were."""
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise InvalidQuery("limit: a whole number of at least 1", field="limit")
    current = {definition.name: definition for definition in runtime.registry.definitions}
    if workflow is not None and ended_before is None:
        current = {workflow: runtime.registry.current(workflow)}
    wanted = purge_of(current, runtime.clock.now(), workflow=workflow, ended_before=ended_before, status=status)
    removed = 0
    if wanted.created_before is not None:
        for each in await scopes_within(runtime, scope):
            removed += await _purge_within(runtime, each, wanted, None if limit is None else limit - removed)
            if limit is not None and removed >= limit:
                break
    if scope.tenant_id is None:
        await sweep_memos(runtime)
    return removed


async def sweep_memos(runtime: Runtime) -> int:
    """Remove spilled entries whose run is gone: a worker that had lost its run stored them late; return how many."""
    after, removed = "", 0
    while True:
        found = await runtime.store.run(statements.find_memo_owners(after, _BATCH))
        owners = {each["run_id"]: each.get("born") for each in found}
        if not owners:
            return removed
        there = {each["_id"] for each in await runtime.store.run(statements.find_leases(list(owners)))}
        for gone in owners.keys() - there:
            removed += await runtime.store.run(statements.remove_memo(gone, owners[gone], runtime.clock.now()))
        after = found[-1]["run_id"]


async def _purge_within(runtime: Runtime, scope: Scope, wanted: Purge, limit: int | None) -> int:
    removed = 0
    async for page in _pages(runtime, scope, wanted):
        over = [run for run in page if wanted.concerns(run)][: None if limit is None else limit - removed]
        removed += await _remove_alone(runtime, scope, [run for run in over if is_alone(run)])
        others = [run for run in over if not is_alone(run)]
        for begin in range(0, len(others), _AT_ONCE):
            some = others[begin : begin + _AT_ONCE]
            removed += sum(await asyncio.gather(*(_remove_with_more(runtime, scope, run) for run in some)))
        if limit is not None and removed >= limit:
            break
    return removed


async def _remove_alone(runtime: Runtime, scope: Scope, runs: Sequence[Mapping[str, Any]]) -> int:
    if not runs:
        return 0
    ended_by = max(run["ended_at"] for run in runs)
    return await runtime.store.run(statements.remove_ended([run["_id"] for run in runs], ended_by), scope)


async def _remove_with_more(runtime: Runtime, scope: Scope, run: Mapping[str, Any]) -> int:
    with suppress(RunNotFound):  # removed meanwhile
        try:
            return await remove_run(runtime, run["_id"], scope)
        except Conflict as refused:
            # Begun anew, or its parent or the log has yet to read it: another purge comes.
            logger.debug("run %s is not purged now: %s", run["_id"], refused)
    return 0


async def _pages(runtime: Runtime, scope: Scope, wanted: Purge) -> AsyncIterator[list[dict[str, Any]]]:
    """Yield the runs that may be concerned, the oldest first, some at a time."""
    created_before, after = wanted.created_before, None
    assert created_before is not None
    while True:
        asked = statements.find_ended(wanted.workflow, sorted(wanted.statuses), created_before, after, _BATCH)
        page = await runtime.store.run(asked, scope)
        if page:
            yield page
        if len(page) < _BATCH:
            return
        after = (page[-1]["created_at"], page[-1]["_id"])
