"""Keeping leases: one write extends all of a worker's, and what cannot be kept is given up in time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

from streamline.engine.held.holding import Holding
from streamline.engine.runtime import Runtime
from streamline.settings import Worker
from streamline.store import statements
from streamline.telemetry import about

logger = logging.getLogger("streamline.engine")

# Of a period; more than one, so that the pass before the lease runs out is the one that acts.
_MARGIN = 1.2


class Heartbeat:
    """Extends the leases of the runs a worker holds, every quarter of a lease."""

    def __init__(self, runtime: Runtime, settings: Worker, held: Callable[[], Collection[Holding]]) -> None:
        self._runtime = runtime
        self._lease = settings.lease_time
        self._period = settings.beat_seconds
        self._held = held
        self._last_pass: float | None = None
        self._beating: asyncio.Future[None] | None = None

    async def run_once(self) -> float:
        """Extend every lease, give up those that are lost or can no longer be trusted, and return the pause."""
        began = self._runtime.clock.monotonic()
        self._watch_lag()
        holdings = [holding for holding in self._held() if not holding.lost and not holding.quiet]
        if holdings:
            beat = self._beating or asyncio.ensure_future(self._beat(holdings))
            # While the database is away one beat stays under way; what it cannot keep is given up meanwhile.
            await asyncio.wait((beat,), timeout=self._period)
            self._beating = None if beat.done() else beat
            self._give_up_unsafe()
            if beat.done():
                beat.result()
        self._last_pass = self._runtime.clock.monotonic()
        return max(0.0, self._period - (self._last_pass - began))

    async def _beat(self, holdings: list[Holding]) -> None:
        sent = self._runtime.clock.monotonic()
        until = self._runtime.clock.now() + self._lease
        ids, tokens = [h.run["_id"] for h in holdings], list({h.token for h in holdings})
        matched = await self._runtime.store.run(statements.beat_leases(ids, tokens, until))
        kept = holdings if matched == len(holdings) else await self._sort_out(holdings)
        for holding in kept:
            holding.safe_until = sent + self._lease.total_seconds()

    async def _sort_out(self, holdings: list[Holding]) -> list[Holding]:
        """Some leases are gone: runs that have ended meanwhile, or that somebody else has taken or cancelled."""
        found = await self._runtime.store.run(statements.find_leases([h.run["_id"] for h in holdings]))
        tokens = {document["_id"]: (document.get("lease") or {}).get("token") for document in found}
        lost = [h for h in holdings if tokens.get(h.run["_id"]) != h.token]
        for holding in lost:
            if not holding.over:
                holding.lose()
        return [h for h in holdings if h not in lost]

    def _give_up_unsafe(self) -> None:
        """A lease that will have run out by the next pass is given up now, before anybody can have taken the run."""
        margin = _MARGIN * self._period
        now = self._runtime.clock.monotonic()
        for holding in self._held():
            if now > holding.safe_until - margin and not holding.over:
                said = "run %s: no heartbeat for most of a lease; giving it up"
                logger.warning(said, holding.run["_id"], extra=about(holding.run))
                holding.lose()

    def _watch_lag(self) -> None:
        if self._last_pass is None:
            return
        late = self._runtime.clock.monotonic() - self._last_pass - self._period
        if late > self._period:
            steps = sorted({h.run["steps"][h.run["cursor"]]["id"] for h in self._held() if h.handlers})
            logger.warning("the event loop was blocked for %.1f s; steps at work: %s", late, ", ".join(steps) or "none")
