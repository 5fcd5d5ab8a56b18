"""Looking for runs that do not move: found by the indexes by which they should be found, had somebody looked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from streamline.domain.stuck import StuckRun, read_stuck
from streamline.engine.asking.presence import living, served_by
from streamline.engine.runtime import Runtime
from streamline.store import Scope, statements

Counted = Sequence[Mapping[str, Any]]


async def stuck_runs(
    runtime: Runtime, scope: Scope, *, limit: int, longer_than: timedelta, paused: bool
) -> tuple[StuckRun, ...]:
    """Return runs that have not moved for longer than so, the oldest first; held ones only where they are asked for."""
    store, before = runtime.store, runtime.clock.now() - longer_than
    held_up = set(runtime.facts.get("paused", {}))
    workers, due, expired = await asyncio.gather(
        living(runtime),
        store.run(statements.count_overdue(before), scope),
        store.run(statements.count_expired(before), scope),
    )
    passed_over = set() if paused else held_up
    overdue, lost, held = await asyncio.gather(
        _overdue(runtime, scope, _moving(due, passed_over), before, limit),
        _lost(runtime, scope, _moving(expired, passed_over), before, limit),
        store.run(statements.find_paused(before, limit), scope) if paused else _nothing(),
    )
    served = served_by(workers)
    # A run that is held while somebody drives it is found twice.
    found = {run["_id"]: read_stuck(run, served, held_up) for run in (*overdue, *lost, *held)}
    shown = [each for each in found.values() if paused or each.reason != "paused"]
    return tuple(sorted(shown, key=lambda each: (each.since, each.run_id))[:limit])


async def _overdue(
    runtime: Runtime, scope: Scope, counted: Counted, before: datetime, limit: int
) -> list[dict[str, Any]]:
    routes = sorted({each["_id"]["route"] for each in counted})
    priorities = sorted({each["_id"]["priority"] for each in counted})
    if not routes:
        return []
    return await runtime.store.run(statements.find_overdue(routes, priorities, before, limit), scope)


async def _lost(runtime: Runtime, scope: Scope, counted: Counted, before: datetime, limit: int) -> list[dict[str, Any]]:
    routes = sorted({each["_id"]["route"] for each in counted})
    return await runtime.store.run(statements.find_lost(routes, before, limit), scope) if routes else []


async def _nothing() -> list[dict[str, Any]]:
    return []


def _moving(counted: Counted, passed_over: set[str]) -> Counted:
    """Return the counts without those of workflows that are held up."""
    return [each for each in counted if str(each["_id"]["route"]).partition("@")[0] not in passed_over]
