"""Which workers live and what they serve; and a warning where runs are due that none of them does."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from streamline.domain.definition import versioned
from streamline.domain.run import Event
from streamline.engine.runtime import Runtime
from streamline.store import statements

logger = logging.getLogger("streamline.engine")

_SEEN_SECONDS = 10.0
_ALIVE = timedelta(seconds=3 * _SEEN_SECONDS)
_KEPT = timedelta(hours=1)
_WATCH_EVERY = 3
_GRACE = timedelta(seconds=5)


class Presence:
    """Tells the others that a worker lives, now and then, and looks for runs that nobody takes."""

    def __init__(self, runtime: Runtime, worker_id: str) -> None:
        self._runtime = runtime
        self._worker_id = worker_id
        self._started_at = runtime.clock.now()
        self._told: frozenset[str] = frozenset()
        self._passes = 0

    async def run_once(self) -> float:
        """Tell that the worker lives; return the pause until it does so again."""
        now = self._runtime.clock.now()
        put = {"routes": list(self._runtime.registry.routes), "started_at": self._started_at, "seen_at": now}
        await self._runtime.store.run(statements.put_worker(self._worker_id, put | {"expire_at": now + _KEPT}))
        self._passes += 1
        if self._passes % _WATCH_EVERY == 1:
            await self.watch()
        return _SEEN_SECONDS * random.uniform(0.8, 1.2)

    async def watch(self) -> None:
        """Warn, once for each, of versions that runs are due of and that no living worker serves."""
        now = self._runtime.clock.now()
        due = {each["_id"]: each["n"] for each in await self._runtime.store.run(statements.count_due(now - _GRACE))}
        served = served_by(await living(self._runtime)) if due else set()
        unserved = {route: count for route, count in due.items() if route not in served}
        for route, count in unserved.items():
            if route not in self._told:
                logger.warning("%d runs of %s are due, and no living worker serves that version", count, route)
                workflow, version = versioned(route)
                said = {"workflow": workflow, "version": version, "runs": count}
                self._runtime.bus.say(Event("", 0, "version.unserved", now, data=said))
        self._told = frozenset(unserved)

    async def leave(self) -> None:
        """Tell that the worker has ended."""
        await self._runtime.store.run(statements.remove_worker(self._worker_id))


async def living(runtime: Runtime) -> list[dict[str, Any]]:
    """Return the workers that were seen lately."""
    return await runtime.store.run(statements.find_workers(runtime.clock.now() - _ALIVE))


def served_by(workers: list[dict[str, Any]] | list[Mapping[str, Any]]) -> set[str]:
    """Return the routes that any of the workers serves."""
    return {route for worker in workers for route in worker["routes"]}
