"""Workflows with a transactional step, and what their handlers write in its transaction."""

from __future__ import annotations

import asyncio
from typing import Any

from streamline import Context, Worker, Workflow

BRIEF = Worker(concurrency=50, lease="2s", poll_interval="200ms", drain="5s", cancel_grace="500ms")


class Book:
    """What handlers have written in their transactions, as others see it."""

    def __init__(self, database: Any) -> None:
        self.entries = database["ledger"]
        self.entered = 0
        self.written = asyncio.Event()
        self.go_on = asyncio.Event()

    async def write(self, ctx: Context[Any], **more: Any) -> None:
        """Write one entry in the handler's transaction."""
        self.entered += 1
        await self.entries.insert_one({"run": ctx.run_id, "attempt": ctx.attempt, **more}, session=ctx.session)
        self.written.set()

    async def write_and_wait(self, ctx: Context[Any]) -> None:
        """Write one entry, and let the test do something before the first handler goes on."""
        await self.write(ctx)
        if self.entered == 1:
            await self.go_on.wait()

    async def runs(self) -> list[str]:
        """Return the runs of all entries."""
        return [entry["run"] async for entry in self.entries.find()]


def paying(handler: Any, **rules: Any) -> Workflow[Any, Any, Any]:
    """A workflow whose middle step is transactional."""
    wf: Workflow[Any, Any, Any] = Workflow("pay", state=dict)

    @wf.step
    async def before(ctx: Context[Any]) -> str:
        return "before"

    wf.step("pay", **{"transactional": True, **rules})(handler)

    @wf.step
    async def after(ctx: Context[Any]) -> Any:
        return dict(ctx.state)

    return wf
