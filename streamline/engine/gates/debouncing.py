"""Starting a debounced workflow: the one draft of its key is stored, or changed and put off."""

from __future__ import annotations

import asyncio
from datetime import datetime
from weakref import WeakValueDictionary

from streamline.domain.transitions import gating
from streamline.domain.transitions.birth import Order, debounced
from streamline.engine.gates.slots import debounce_of
from streamline.engine.runtime import Runtime
from streamline.store import Inserted, statements


class Debouncing:
    """Keeps one draft per key."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def start(self, order: Order, begins: datetime) -> tuple[str, Inserted | None]:
        """Store or change the draft of the run's key.

        Args:
            order: The run.
            begins: The instant from which it may begin.

        Returns:
            The draft's id, and what the insert came to; None where an older draft was changed.
        """
        key = order.gate["debounce_key"]
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:  # starts of one process take turns; those of others are met by the write's guard
            while True:
                found = await self._runtime.store.run(statements.find_draft(key))
                if not found:
                    outcome = await self._insert(order, begins)
                    if outcome != "draft_taken":
                        return order.run_id, outcome
                    continue
                draft = found[0]
                now = self._runtime.clock.now()
                if await self._runtime.commit(draft, gating.bump(draft, order, now, self._fires(order, begins))):
                    self._runtime.announce(draft["route"], draft.get("due_at"))
                    return str(draft["_id"]), None

    async def _insert(self, order: Order, begins: datetime) -> Inserted:
        policy = debounce_of(self._runtime, order.definition.name, order.definition.route)
        now, fires = self._runtime.clock.now(), self._fires(order, begins)
        fire_by = None if policy is None or policy.longest is None else begins + policy.longest
        run = debounced(order, now, fires, fire_by)
        insert = statements.insert_run(self._runtime.outbox.born(run), self._runtime.store.new_mark(), order.weight)
        outcome = await asyncio.shield(self._runtime.store.submit(insert))
        if outcome == "inserted":
            self._runtime.announce(run["route"], run["due_at"])
            self._runtime.bus.publish(run["_id"], tuple(run["events"]))
        return outcome

    def _fires(self, order: Order, begins: datetime) -> datetime:
        policy = debounce_of(self._runtime, order.definition.name, order.definition.route)
        return begins if policy is None else begins + policy.window_time
