"""The workflows that are measured: their handlers do nothing, so what is left is the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamline import Context, NonRetriableError, Workflow

STEPS = 3
OUTPUT = 3


def three_steps(name: str, **gates: Any) -> Workflow[Any, Any, Any]:
    """Return a workflow of three steps that do nothing, behind gates."""
    workflow: Workflow[Any, Any, Any] = Workflow(name, **gates)

    @workflow.step
    async def first(ctx: Context[Any]) -> int:
        return 1

    @workflow.step
    async def second(ctx: Context[Any]) -> int:
        return 2

    @workflow.step
    async def third(ctx: Context[Any]) -> int:
        return OUTPUT

    return workflow


noop = three_steps("noop")


sleeper: Workflow[Any, Any, Any] = Workflow("sleeper")


@sleeper.step
async def sleep(ctx: Context[Any]) -> None:
    await ctx.sleep("30d")


failing: Workflow[Any, Any, Any] = Workflow("failing")


@failing.step(max_attempts=1)
async def fail(ctx: Context[Any]) -> None:
    raise NonRetriableError("no")


def single_step(entered: Callable[[str], None], name: str = "single") -> Workflow[Any, Any, Any]:
    """Return a workflow of one step that tells the run's id to `entered` and does nothing else."""
    workflow: Workflow[Any, Any, Any] = Workflow(name)

    @workflow.step
    async def only(ctx: Context[Any]) -> int:
        entered(ctx.run_id)
        return 1

    return workflow
