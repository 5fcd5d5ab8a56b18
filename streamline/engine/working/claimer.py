"""Taking runs: find which are up for taking, take them in one guarded write, read back which were won."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from streamline.domain.change import Change
from streamline.domain.transitions.claiming import lease_of, take_admitted, take_due, take_expired, take_undoing
from streamline.domain.transitions.gating import is_to_be_admitted
from streamline.engine.driving.crew import Crew
from streamline.engine.gates.throttles import Throttles
from streamline.engine.runtime import Runtime
from streamline.engine.working.admission import Admission
from streamline.ids import new_token
from streamline.settings import Worker
from streamline.store import statements
from streamline.telemetry import TELEMETRY

logger = logging.getLogger("streamline.engine")

_LOST_SHARE = 0.03
_SPREAD_MAX = 16.0
_LOCKED_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim came to.

    Args:
        count: How many runs were won; the crew drives them already.
        more: Whether there may be more to claim.
    """

    count: int = 0
    more: bool = False


class Claimer:
    """Claims runs for one worker and hands them to its crew, never more than there is room for.

    Where other workers take some of what was found, the next search looks at a wider window and picks from it at
    random, so that workers stop meeting at the head of the queue.
    """

    def __init__(self, runtime: Runtime, settings: Worker, worker_id: str, crew: Crew, throttles: Throttles) -> None:
        self._runtime = runtime
        self._settings = settings
        self._worker_id = worker_id
        self._crew = crew
        self._spread = 1.0
        self.admission = Admission(runtime, crew, throttles, self.new_lease, settings.lease_seconds)

    def new_lease(self, now: datetime, news: str | None = None) -> dict[str, Any]:
        """Return a lease of this worker from now on."""
        return lease_of(self._worker_id, new_token(), now, now + self._settings.lease_time, news)

    async def due(self, limit: int, by: datetime | None = None) -> Claimed:
        """Claim runs that are due by an instant, default now, `limit` at most."""
        now, routes = self._runtime.clock.now(), self._runtime.routes
        if not routes:
            return Claimed()
        TELEMETRY.look()
        by = now if by is None else by
        window = int(limit * self._spread)
        found = await self._runtime.store.run(statements.find_due(routes, by, window))
        picked = found if len(found) <= limit else random.sample(found, limit)
        count, dues = 0, {each["_id"]: each["due_at"] for each in picked}
        for take, runs in _sorted_by_claim(picked):
            ids = [each["_id"] for each in runs]
            if take is None:
                count += await self.admission.take(ids, by)
            elif ids:
                count += await self._take(ids, "claimed", partial(_claim_by, take, routes, by), dues=dues)
        self._adapt_spread(len(picked), count)
        return Claimed(count, more=len(found) >= window or count < len(found))

    async def expired(self, limit: int) -> Claimed:
        """Claim runs whose worker no longer beats, `limit` at most."""
        TELEMETRY.look()
        now, routes = self._runtime.clock.now(), self._runtime.routes
        found = await self._runtime.store.run(statements.find_expired(routes, now, limit))
        ids = [document["_id"] for document in found]
        count = await self._take(ids, "recovered", lambda now, lease: take_expired(routes, now, lease), locked=True)
        if count:
            logger.warning("%d runs had lost their worker and were taken over", count)
        return Claimed(count, more=len(ids) >= limit)

    async def next_due(self, within: float) -> datetime | None:
        """Return the first instant within so many seconds at which a run falls due, if there is one."""
        now = self._runtime.clock.now()
        until = datetime.fromtimestamp(now.timestamp() + within, tz=now.tzinfo)
        found = await self._runtime.store.run(statements.find_next_due(self._runtime.routes, now, until))
        return found[0]["due_at"] if found else None

    async def _claim_unlocked(self, ids: list[str], change: Change) -> None:
        """Claim what can be: a transaction that outlives its process locks the run it was about to move on.

        The server ends such a transaction in time; until then the run must not keep the others waiting.
        """
        store, clock = self._runtime.store, self._runtime.clock
        seconds = min(_LOCKED_SECONDS, self._settings.beat_seconds / 2)
        if await store.send_within(statements.claim_runs(ids, change), seconds):
            return
        deadline = clock.monotonic() + seconds
        for run_id in random.sample(ids, len(ids)):
            if clock.monotonic() > deadline:
                return
            await store.send_within(statements.claim_runs([run_id], change), seconds / 4)

    def _adapt_spread(self, picked: int, won: int) -> None:
        if picked - won > _LOST_SHARE * picked:
            self._spread = min(self._spread * 2, _SPREAD_MAX)
        else:
            self._spread = max(self._spread * 0.95, 1.0)

    async def _take(
        self,
        ids: list[str],
        news: str,
        change: Callable[[datetime, dict[str, Any]], Change],
        *,
        locked: bool = False,
        dues: Mapping[str, datetime] | None = None,
    ) -> int:
        kept = self._crew.reserve(len(ids))
        if not kept:
            return 0
        # The leases count from before the claim is sent, whenever it is answered.
        safe_until, now = self._runtime.clock.monotonic() + self._settings.lease_seconds, self._runtime.clock.now()
        try:
            runs = await self._claim(ids[:kept], change(now, self.new_lease(now, news)), locked=locked)
        finally:
            self._crew.unreserve(kept)
        for run in runs:
            self._crew.take(run, safe_until, due_at=None if dues is None else dues[run["_id"]])
        return len(runs)

    async def _claim(self, ids: list[str], change: Change, *, locked: bool) -> list[dict[str, Any]]:
        # How many matched does not matter: the token tells, even where the answer to the claim itself was lost.
        if locked:
            await self._claim_unlocked(ids, change)
        else:
            await self._runtime.store.run(statements.claim_runs(ids, change))
        return await self._runtime.store.run(statements.find_claimed(ids, change.put["lease"]["token"]))


def _sorted_by_claim(
    found: list[dict[str, Any]],
) -> Iterator[tuple[Callable[..., Change] | None, list[dict[str, Any]]]]:
    """Yield due runs by how they are claimed: in one write, as what is being undone, or one by one through gates."""
    gated = [run for run in found if is_to_be_admitted(run)]
    undone = [run for run in found if run["status"] == "compensating" and not is_to_be_admitted(run)]
    if not undone and not gated:
        yield take_due, found
        return
    others = {run["_id"] for run in (*undone, *gated)}
    admitted = [run for run in found if run["_id"] not in others and "gated" in run]
    yield take_due, [run for run in found if run["_id"] not in others and "gated" not in run]
    yield take_admitted, admitted
    yield take_undoing, undone
    if gated:
        yield None, gated


def _claim_by(
    take: Callable[..., Change], routes: tuple[str, ...], by: datetime, now: datetime, lease: dict[str, Any]
) -> Change:
    return take(routes, now, lease, by=by)
