"""Parents and children of the tests."""

from __future__ import annotations

import asyncio
from typing import Any

from streamline import Context, Workflow
from streamline.errors import ChildFailed
from tests.waiting import eventually


def parent_of(child: Any, value: Any = None, **options: Any) -> Workflow[Any, Any, Any]:
    """A workflow that waits for one child and tells how it fared."""
    wf: Workflow[Any, Any, Any] = Workflow("parent")

    @wf.step
    async def ask(ctx: Context[Any]) -> Any:
        try:
            return ["done", await ctx.start_child(child, value, **options)]
        except ChildFailed as error:
            return [error.status, error.error.get("type")]

    return wf


def leaf(name: str = "leaf", **options: Any) -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow(name, **options)

    @wf.step
    async def work(ctx: Context[Any]) -> Any:
        return ctx.input

    return wf


class Held:
    """A workflow whose step waits until it is told to go on, or is cancelled."""

    def __init__(self, name: str = "held") -> None:
        self.entered: list[str] = []
        self.cancelled: list[str] = []
        self.gate = asyncio.Event()
        self.workflow: Workflow[Any, Any, Any] = Workflow(name)

        @self.workflow.step
        async def hold(ctx: Context[Any]) -> str:
            self.entered.append(ctx.run_id)
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled.append(ctx.run_id)
                raise
            return "let go"


async def child_of(runs: Any, parent_id: str) -> Any:
    """Return the stored child of a run as soon as it is there."""
    return await eventually(lambda: runs.find_one({"parent.run_id": parent_id}))
