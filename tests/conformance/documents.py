"""Runs as they are stored, made by the engine's own transitions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from streamline import Context, Workflow
from streamline.domain.definition import Definition
from streamline.domain.transitions.birth import Order, queued
from streamline.domain.transitions.claiming import lease_of

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)


def definition_of(name: str = "flow", version: str = "1.0.0", steps: int = 3) -> Definition:
    wf: Workflow[Any, Any, Any] = Workflow(name, version=version)
    for i in range(steps):
        wf.step(f"s{i}")(_nothing)
    return wf.definition


async def _nothing(ctx: Context[Any]) -> None: ...


FLOW = definition_of()


def draft(run_id: str, due_at: datetime = NOW, *, definition: Definition = FLOW, **order: Any) -> dict[str, Any]:
    """A run that nobody has taken yet."""
    return queued(Order(run_id, definition, {"n": 1}, **order), NOW, due_at) | {"born": f"born-{run_id}"}


def held(
    run_id: str, token: str = "token", until: datetime = NOW + timedelta(seconds=30), **order: Any
) -> dict[str, Any]:
    """A run whose first step is being carried out."""
    run = draft(run_id, **order)
    del run["due_at"]
    run["steps"][0] |= {"status": "running", "started_at": NOW}
    lease = lease_of("worker", token, NOW, until)
    return run | {"status": "running", "attempt": 1, "lease": lease, "started_at": NOW}


def ended(run_id: str, status: str = "done", **order: Any) -> dict[str, Any]:
    """A run that is over."""
    run = draft(run_id, **order)
    del run["due_at"], run["live"]
    run.pop("active_key", None)
    if status == "done":
        return run | {"status": status, "ended_at": NOW, "output": 1}
    error = {"code": "step.error", "type": "ValueError", "message": "no", "step": "s0", "attempt": 1}
    return run | {"status": status, "ended_at": NOW, "error": error}
