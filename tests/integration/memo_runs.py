"""Runs of one step, and workers that fall silent in the middle of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from streamline import Run, RunHandle, Worker, Workflow
from tests.waiting import PATIENCE

# It keeps its lease while the test lasts, and lets go of its handler at once when it is closed.
SILENT = Worker(lease="60s", drain=0, cancel_grace="1s")


def one_step(handler: Callable[..., Any], *, state: Any = None, **rules: Any) -> Workflow[Any, Any, Any]:
    """Return a workflow of one step, called `only`."""
    wf: Workflow[Any, Any, Any] = Workflow("only", state=state)
    wf.step("only", **{"max_attempts": 1, **rules})(handler)
    return wf


async def ended(make_app: Any, handler: Callable[..., Any], **rules: Any) -> Run:
    """Return the run of a workflow of one step, once it has ended."""
    wf = one_step(handler, **rules)
    async with make_app(wf) as app:
        run: Run = await (await app.start(wf)).wait(PATIENCE)
        return run


class Silence:
    """A point in a handler that the first worker never gets past, as if its process had died there."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()

    async def falls(self) -> None:
        """Stop for ever at the first visit; later visits pass."""
        if not self.reached.is_set():
            self.reached.set()
            await asyncio.Event().wait()


@asynccontextmanager
async def taken_over(
    make_app: Any, runs: Any, wf: Workflow[Any, Any, Any], silence: Silence
) -> AsyncIterator[RunHandle]:
    """Start a run, let its worker fall silent, and have another app take it over."""
    async with make_app(wf, worker=SILENT) as dead:
        handle = await dead.start(wf)
        await asyncio.wait_for(silence.reached.wait(), PATIENCE)
        await expire_lease(runs, handle.id)
        async with make_app(wf) as heir:
            yield heir.handle(handle.id)


async def expire_lease(runs: Any, run_id: str) -> None:
    """Let the lease of a run be over, as if its worker had not beaten for long."""
    await runs.update_one({"_id": run_id}, [{"$set": {"lease.until": {"$subtract": ["$$NOW", 1000]}}}])


async def memo_of(runs: Any, run_id: str) -> dict[str, Any]:
    """Return what the only step of a run has in its memo."""
    stored = await runs.find_one({"_id": run_id})
    return dict(stored["steps"][0].get("memo", {}))
