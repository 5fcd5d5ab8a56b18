"""Taking runs: find which are up for taking, take them in one guarded write, read back which were won."""

from __future__ import annotations

import random
from datetime import datetime
from typing import Any

from streamline.domain.change import Change
from streamline.domain.transitions.claiming import lease_of, take_due, take_expired
from streamline.engine.runtime import Runtime
from streamline.ids import new_token
from streamline.settings import Worker
from streamline.store import statements

_CROWDED_WINDOW = 4


class Claimer:
    """Claims runs for one worker.

    Where other workers take some of what was found, the next search looks at a wider window and picks from it at
    random, so that workers stop meeting at the head of the queue.
    """

    def __init__(self, runtime: Runtime, settings: Worker, worker_id: str) -> None:
        self._runtime = runtime
        self._settings = settings
        self._worker_id = worker_id
        self._crowded = False

    def new_lease(self, now: datetime, news: str | None = None) -> dict[str, Any]:
        """Return a lease of this worker from now on."""
        return lease_of(self._worker_id, new_token(), now, now + self._settings.lease_time, news)

    async def due(self, limit: int, by: datetime | None = None) -> tuple[list[dict[str, Any]], bool]:
        """Claim runs that are due by an instant, default now; return those won, and whether there are more."""
        now, routes = self._runtime.clock.now(), self._runtime.registry.routes
        by = now if by is None else by
        window = limit * _CROWDED_WINDOW if self._crowded else limit
        found = await self._runtime.store.run(statements.find_due(routes, by, window))
        ids = [document["_id"] for document in found]
        picked = ids if len(ids) <= limit else random.sample(ids, limit)
        won = await self._take(picked, take_due(routes, now, self.new_lease(now, "claimed"), by=by))
        self._crowded = len(won) < 0.9 * len(picked)
        return won, len(ids) >= window

    async def expired(self, limit: int) -> list[dict[str, Any]]:
        """Claim runs whose worker no longer beats, `limit` at most."""
        now, routes = self._runtime.clock.now(), self._runtime.registry.routes
        found = await self._runtime.store.run(statements.find_expired(routes, now, limit))
        ids = [document["_id"] for document in found]
        return await self._take(ids, take_expired(routes, now, self.new_lease(now, "recovered")))

    async def next_due(self, within: float) -> datetime | None:
        """Return the first instant within so many seconds at which a run falls due, if there is one."""
        now = self._runtime.clock.now()
        until = datetime.fromtimestamp(now.timestamp() + within, tz=now.tzinfo)
        found = await self._runtime.store.run(statements.find_next_due(self._runtime.registry.routes, now, until))
        return found[0]["due_at"] if found else None

    async def _take(self, ids: list[str], change: Change) -> list[dict[str, Any]]:
        if not ids:
            return []
        token: str = change.put["lease"]["token"]
        # How many matched does not matter: the token tells, even where the answer to the claim itself was lost.
        await self._runtime.store.run(statements.claim_runs(ids, change))
        return await self._runtime.store.run(statements.find_claimed(ids, token))
