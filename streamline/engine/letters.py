"""Putting events into the inbox of the deployment: stored first, and brought to whom they concern after that."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from streamline.domain.payloads import Encoded
from streamline.engine.runtime import Runtime
from streamline.store import statements
from streamline.telemetry import about, carried

logger = logging.getLogger("streamline.engine")


def letter(
    runtime: Runtime,
    event_id: str,
    name: str,
    payload: Encoded,
    tenant_id: str | None,
    *,
    match: Mapping[str, Any] | None = None,
    origin: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return an event as the inbox keeps it.

    Args:
        runtime: The app's parts.
        event_id: Its id.
        name: Its name.
        payload: What it brings.
        tenant_id: Whose runs it concerns.
        match: Which of them: a filter over their input, state and metadata.
        origin: The run that sent it.
    """
    now = runtime.clock.now()
    event: dict[str, Any] = {
        "_id": event_id,
        "name": name,
        "payload": payload.value,
        "size": payload.size,
        "tenant_id": tenant_id,
        "at": now,
        "owed_at": now,
        "expire_at": now + runtime.settings.event_retention_time,
        "reached": 0,
        "triggers": runtime.triggers.started_by_event(name, payload.value),
    }
    event |= {} if match is None else {"match": dict(match)}
    event |= {} if (trace := carried()) is None else {"trace": trace}
    return event if origin is None else event | {"origin": origin["_id"], "chain": origin.get("chain", 0)}


def completion(runtime: Runtime, run: Mapping[str, Any], workflows: list[str]) -> dict[str, Any]:
    """Return the end of a run as the inbox keeps it, for the workflows that it starts."""
    now = runtime.clock.now()
    event = {
        "_id": f"end.{run['ends']}.{run['born']}.{run['_id']}",
        "of": {"run_id": run["_id"], "workflow": run["workflow"], "status": run["status"]},
        "payload": run.get("output") if run["status"] == "done" else None,
        "tenant_id": run.get("tenant_id"),
        "at": now,
        "expire_at": now + runtime.settings.event_retention_time,
        "reached": 0,
        "triggers": workflows,
        "origin": run["_id"],
        "chain": run.get("chain", 0),
    }
    return event | {"trace": run["trace"]} if "trace" in run else event


async def post(runtime: Runtime, event: dict[str, Any]) -> dict[str, Any]:
    """Store an event and return what stands under its id."""
    stored = await runtime.store.run(statements.insert_event(event))
    return stored[0] if stored else event


def as_event(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return a kept event as runs take it."""
    names = ("name", "payload", "size", "at", "reached")
    return {"id": stored["_id"], **{name: stored[name] for name in names if name in stored}}


def within_chain(runtime: Runtime, run: Mapping[str, Any], workflows: list[str]) -> tuple[list[str], list[str]]:
    """Return which workflows a run may start by triggers, and which no more: it is the last of too long a chain."""
    if not workflows or run.get("chain", 0) < runtime.settings.max_chain:
        return workflows, []
    logger.error(
        "run %s: it is the last of a chain of %d runs that started one another; it does not start %s",
        run["_id"],
        runtime.settings.max_chain,
        ", ".join(workflows),
        extra=about(run),
    )
    return [], workflows
