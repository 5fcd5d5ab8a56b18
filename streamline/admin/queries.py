"""Asking for runs: one, a page, all, their number, their end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar, Unpack

from streamline.admin.opened import Opened
from streamline.domain.durations import Duration, parse_duration
from streamline.domain.run import Event, Progress, Run, read_output
from streamline.domain.statistics import Stats
from streamline.domain.statuses import RunStatus
from streamline.domain.summary import SUMMARY_FIELDS, RunSummary, read_summary
from streamline.domain.versions import VersionInfo
from streamline.engine.asking.counting import stats
from streamline.engine.asking.known_definitions import versions
from streamline.engine.endings import OnAsking
from streamline.errors import RunCancelled, RunFailed
from streamline.paging import Page, RunOptions
from streamline.store.filters import RunQuery
from streamline.workflow import Workflow

T = TypeVar("T")


class Queries(Opened):
    """``get``, ``runs``, ``summaries``, ``count_runs``, ``stats``, and what handles ask."""

    async def get(self, run_id: str) -> Run:
        """Return the run as it is now; raise `RunNotFound`."""
        return self._run_of(await self._open_session.runtime.read(run_id, self._scope))

    async def runs(
        self,
        workflow: Workflow[Any, Any, Any] | str | None = None,
        *,
        status: RunStatus | Sequence[RunStatus] | None = None,
        tags: str | Sequence[str] | None = None,
        match: Mapping[str, Any] | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        order: str = "-created_at",
        limit: int = 50,
        after: str | None = None,
    ) -> Page[Run]:
        """Return a page of runs.

        Args:
            workflow: Only runs of this workflow, of any version.
            status: Only runs of this status, or one of these.
            tags: Only runs that have all of these.
            match: A Mongo filter over ``input``, ``metadata`` and ``output``; operators that run code are refused.
            created_after: Only runs created at or after this instant.
            created_before: Only runs created before this instant.
            order: ``"-created_at"``, newest first, or ``"created_at"``.
            limit: 1 to 500.
            after: ``next`` of the page before.

        Raises:
            InvalidQuery: An argument is not of the allowed form; names the field.
        """
        query = _query(workflow, status, tags, match, created_after, created_before)
        found, following = await self._open_session.pages.page(query, order, limit, after, self._scope)
        return Page(tuple(self._run_of(document) for document in found), following)

    async def iter_runs(
        self, workflow: Workflow[Any, Any, Any] | str | None = None, **options: Unpack[RunOptions]
    ) -> AsyncIterator[Run]:
        """Iterate over all runs that `runs` would page through; arguments as there."""
        async for run in _all(self.runs, workflow, options):
            yield run

    async def summaries(
        self,
        workflow: Workflow[Any, Any, Any] | str | None = None,
        *,
        status: RunStatus | Sequence[RunStatus] | None = None,
        tags: str | Sequence[str] | None = None,
        match: Mapping[str, Any] | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        order: str = "-created_at",
        limit: int = 50,
        after: str | None = None,
    ) -> Page[RunSummary]:
        """Return a page of summaries: how runs stand, without their payloads; arguments as for `runs`."""
        query = _query(workflow, status, tags, match, created_after, created_before)
        found, following = await self._open_session.pages.page(query, order, limit, after, self._scope, SUMMARY_FIELDS)
        return Page(tuple(read_summary(document) for document in found), following)

    async def iter_summaries(
        self, workflow: Workflow[Any, Any, Any] | str | None = None, **options: Unpack[RunOptions]
    ) -> AsyncIterator[RunSummary]:
        """Iterate over all summaries that `summaries` would page through; arguments as there."""
        async for summary in _all(self.summaries, workflow, options):
            yield summary

    async def count_runs(
        self,
        workflow: Workflow[Any, Any, Any] | str | None = None,
        *,
        status: RunStatus | Sequence[RunStatus] | None = None,
        tags: str | Sequence[str] | None = None,
        match: Mapping[str, Any] | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
    ) -> dict[RunStatus, int]:
        """Return how many runs there are of each status that occurs; arguments as for `runs`."""
        query = _query(workflow, status, tags, match, created_after, created_before)
        found = await self._open_session.pages.count(query, self._scope)
        return {each["_id"]: each["n"] for each in found}

    async def progress_of(self, run_id: str) -> Progress | None:
        """Return how far a run's step is that said so last; see `RunHandle.progress`."""
        said = [step.progress for step in (await self.get(run_id)).steps if step.progress is not None]
        return max(said, key=lambda progress: progress.at, default=None)

    async def versions(self) -> tuple[VersionInfo, ...]:
        """Return the versions of all workflows, and how many of their runs have not ended."""
        return await versions(self._open_session.runtime, self._scope)

    async def stats(self) -> Stats:
        """Return how the deployment stands: runs by status, what is due, slots and lines, workers, paused workflows.

        Everything is counted from the runs; on a large database this is for operators and dashboards, not for a loop.
        """
        return await stats(self._open_session.runtime, self._scope)

    async def result_of(self, run_id: str, timeout: Duration | None = None, on_asking: OnAsking | None = None) -> Any:
        """Return the output of a run once it is done; see `RunHandle.result`."""
        document = await self._ended(run_id, timeout, on_asking)
        if document["status"] == "done":
            return read_output(document, self._registry.serving(document["workflow"], document["version"]))
        error = document.get("error") or {}
        if "cancel" in document:
            reason = document["cancel"].get("reason")
            raise RunCancelled(
                f"run {run_id} was cancelled" + (f": {reason}" if reason else ""), run_id=run_id, reason=reason
            )
        raise RunFailed(f"run {run_id} failed: {error.get('type')}: {error.get('message')}", run_id=run_id, error=error)

    async def wait_for_run(self, run_id: str, timeout: Duration | None = None) -> Run:
        """Return a run once it has ended; see `RunHandle.wait`."""
        return self._run_of(await self._ended(run_id, timeout))

    async def _ended(self, run_id: str, timeout: Duration | None, on_asking: OnAsking | None = None) -> dict[str, Any]:
        seconds = None if timeout is None else parse_duration(timeout, "timeout").total_seconds()
        return await self._open_session.endings.wait(run_id, self._scope, seconds, on_asking)

    def events_of(self, run_id: str, after: int = 0) -> AsyncIterator[Event]:
        """Iterate over the events of a run; see `RunHandle.events`."""
        return self._open_session.endings.events(run_id, self._scope, after)


def _query(workflow: Workflow[Any, Any, Any] | str | None, *conditions: Any) -> RunQuery:
    return RunQuery(workflow.name if isinstance(workflow, Workflow) else workflow, *conditions)


async def _all(
    page_of: Callable[..., Awaitable[Page[T]]], workflow: Workflow[Any, Any, Any] | str | None, options: RunOptions
) -> AsyncIterator[T]:
    while True:
        page = await page_of(workflow, **options)
        for item in page.items:
            yield item
        if page.next is None:
            return
        options["after"] = page.next
