"""Storing new runs: claimed where this process has room for them, else queued, or in line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

from streamline.domain.transitions.birth import Order, claimed, in_line, queued
from streamline.engine.gates.entry import Entry
from streamline.engine.runtime import Runtime
from streamline.engine.working.worker import ActiveWorker
from streamline.store.operations import Insert, Inserted

Answer = asyncio.Future[Inserted]


class Inserting:
    """Stores runs, and sees to what follows from their being stored."""

    def __init__(self, runtime: Runtime, worker: ActiveWorker | None) -> None:
        self._runtime = runtime
        self._worker = worker

    async def insert(self, order: Order, due_at: datetime | None) -> Inserted:
        """Insert the run; what follows from its being stored is done even where the caller is cancelled meanwhile."""
        now = self._runtime.clock.now()
        if due_at is None and self.reserve(order):
            return await self._insert_claimed(order, now)
        return await self._insert_queued(order, queued(order, now, due_at or now))

    async def insert_entry(self, order: Order, entry: Entry) -> Inserted:
        """Insert a run that has gates, as they let it in."""
        now = self._runtime.clock.now()
        if entry.begins:
            return await self._insert_claimed(order, entry.due_at or now, entry.slot)
        if entry.due_at is not None:
            return await self._insert_queued(order, queued(order, now, entry.due_at, entry.slot))
        outcome = await self._insert_queued(order, in_line(order, now))
        # Whoever gave a slot back meanwhile may not have seen this run in line.
        self._runtime.freed(order.gate["slot_key"])
        return outcome

    async def _insert_claimed(self, order: Order, begun_at: datetime, slot: int | None = None) -> Inserted:
        worker = self._worker
        assert worker is not None, "a place was reserved"
        # The turn may have been given a while ago; the lease counts from now.
        run = claimed(order, begun_at, worker.claimer.new_lease(self._runtime.clock.now()), slot)
        return await self._submit(order, run, self._follow_claimed(worker, run, self._runtime.clock.monotonic()))

    async def _insert_queued(self, order: Order, run: dict[str, Any]) -> Inserted:
        return await self._submit(order, run, self._follow_queued(run))

    async def _submit(self, order: Order, run: dict[str, Any], follow: Callable[[Answer], None]) -> Inserted:
        stored = self._runtime.store.submit(self.statement(order, run))
        stored.add_done_callback(follow)
        return await asyncio.shield(stored)

    def reserve(self, order: Order) -> bool:
        """Keep a place for a run that this process drives from birth, if it can."""
        is_held_up = self._runtime.is_held_up(order.definition.name)
        return self._worker is not None and not is_held_up and self._serves(order) and self._worker.reserve()

    def unreserve(self, is_kept: bool) -> None:
        """Give a place back that was kept."""
        if is_kept and self._worker is not None:
            self._worker.crew.unreserve(1)

    def _follow_claimed(self, worker: ActiveWorker, run: dict[str, Any], sent: float) -> Callable[[Answer], None]:
        def follow(stored: Answer) -> None:
            worker.crew.unreserve(1)
            if _is_inserted(stored):
                worker.crew.take(run, sent + worker.settings.lease_seconds, tell=False)
                self._runtime.newborn(run)

        return follow

    def _follow_queued(self, run: dict[str, Any]) -> Callable[[Answer], None]:
        def follow(stored: Answer) -> None:
            if _is_inserted(stored):
                self._runtime.announce(run["route"], run.get("due_at"))
                self._runtime.newborn(run)

        return follow

    def statement(self, order: Order, run: dict[str, Any]) -> Insert:
        """Return the insert of a run."""
        return self._runtime.insertion(run, order.weight)

    def _serves(self, order: Order) -> bool:
        return order.definition.route in self._runtime.registry.routes


def _is_inserted(stored: Answer) -> bool:
    return not stored.cancelled() and stored.exception() is None and stored.result() == "inserted"
