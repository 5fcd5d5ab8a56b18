"""Operations on many runs: each run by the transition of the single verb, so that a repeat does no harm."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from streamline.domain.bulk_result import BulkFailure, BulkResult, Tally
from streamline.engine.asking.run_pages import RunPages, scopes_within
from streamline.engine.runtime import Runtime
from streamline.errors import AlreadyFinished, IllegalTransition, RunNotFound, StoreUnavailable, StreamlineError
from streamline.store import Scope
from streamline.store.filters import PAGE_MAX, RunQuery

# Answers whether the run was changed.
Act = Callable[[str, Scope], Awaitable[bool]]

_AT_ONCE = 16
_OVERTAKEN = (AlreadyFinished, IllegalTransition, RunNotFound)


class InBulk:
    """Walks over the runs that a query finds, oldest first, and acts on a bounded number of them at a time."""

    def __init__(self, runtime: Runtime, pages: RunPages) -> None:
        self._runtime = runtime
        self._pages = pages

    async def carry_out(self, query: RunQuery, act: Act | None, scope: Scope, limit: int | None) -> BulkResult:
        """Act on each run that was there when the call began; without an act, only tell which ones.

        Raises:
            StoreUnavailable: The database is away; what was done so far is done, and the call can be repeated.
        """
        tally, until = Tally(), self._runtime.clock.now() + timedelta(milliseconds=1)
        # New runs, and what the runs of the walk start, are not chased.
        query = replace(query, created_before=_earlier(query.created_before, until))
        for each in await scopes_within(self._runtime, scope):
            async for run_ids in self._walk(query, each, tally, limit):
                if act is None:
                    for run_id in run_ids:
                        tally.show(run_id)
                else:
                    await _act_on(run_ids, act, each, tally)
        return tally.result(dry_run=act is None)

    async def _walk(self, query: RunQuery, scope: Scope, tally: Tally, limit: int | None) -> AsyncIterator[list[str]]:
        after: str | None = None
        while left := PAGE_MAX if limit is None else min(PAGE_MAX, limit - tally.matched):
            found, after = await self._pages.page(query, "created_at", left, after, scope, ("created_at",))
            tally.matched += len(found)
            yield [each["_id"] for each in found]
            if after is None:
                return


async def _act_on(run_ids: Sequence[str], act: Act, scope: Scope, tally: Tally) -> None:
    rest = iter(run_ids)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(_AT_ONCE, len(run_ids))):
                group.create_task(_work(rest, act, scope, tally))
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None


async def _work(rest: Iterator[str], act: Act, scope: Scope, tally: Tally) -> None:
    for run_id in rest:
        try:
            if await act(run_id, scope):
                tally.change(run_id)
            else:
                tally.skipped += 1
        except _OVERTAKEN:
            tally.skipped += 1
        except StoreUnavailable:
            raise
        except StreamlineError as error:
            tally.fail(BulkFailure(run_id, error.code, error.message))


def _earlier(given: datetime | None, until: datetime) -> datetime:
    return until if given is None else min(given, until)
