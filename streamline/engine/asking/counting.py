"""Counting runs for operators: what is due, at work, in line, and where."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from streamline.domain.gates import short_key
from streamline.domain.statistics import Queue, Stats
from streamline.engine.asking.presence import living, served_by
from streamline.engine.gates.slots import concurrency_of
from streamline.engine.runtime import Runtime
from streamline.store import Scope, statements

Counted = Sequence[Mapping[str, Any]]


async def stats(runtime: Runtime, scope: Scope) -> Stats:
    """Return how the runs within a scope stand."""
    now, store = runtime.clock.now(), runtime.store
    workers, by_workflow, routes, due, slots, queued, leases = await asyncio.gather(
        living(runtime),
        store.run(statements.count_workflows(), scope),
        store.run(statements.count_routes(), scope),
        store.run(statements.count_due(now), scope),
        store.run(statements.count_slots(), scope),
        store.run(statements.count_queued(), scope),
        store.run(statements.count_leases(now), scope),
    )
    served = served_by(workers) | set(runtime.registry.routes)
    statuses, workflows = defaultdict[str, int](int), defaultdict[str, dict[str, int]](dict)
    for each in by_workflow:
        statuses[each["_id"]["status"]] += each["n"]
        workflows[each["_id"]["workflow"]][each["_id"]["status"]] = each["n"]
    return Stats(
        statuses=dict(statuses),
        workflows=dict(workflows),
        due=sum(each["n"] for each in due),
        oldest_due_at=min((each["oldest"] for each in due), default=None),
        queues=_queues(runtime, slots, queued),
        workers={each["_id"]: 0 for each in workers} | {each["_id"]: each["n"] for each in leases},
        unserved={each["_id"]: each["n"] for each in routes if each["_id"] not in served},
        paused=tuple(sorted(runtime.facts.get("paused", {}))),
    )


def _queues(runtime: Runtime, slots: Counted, queued: Counted) -> tuple[Queue, ...]:
    at_work, waiting = ({each["_id"]: each for each in counted} for counted in (slots, queued))
    queues = []
    for slot_key in sorted(at_work.keys() | waiting.keys()):
        workflow, line = slot_key.partition("/")[0], waiting.get(slot_key, {})
        policy = concurrency_of(runtime, workflow, "")
        limit = None if policy is None else policy.limit
        held = at_work.get(slot_key, {}).get("n", 0)
        queues.append(Queue(workflow, short_key(slot_key), limit, held, line.get("n", 0), line.get("oldest")))
    return tuple(queues)
