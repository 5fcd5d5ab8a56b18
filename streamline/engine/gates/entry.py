"""How a new run comes to its gates: through them at once where nothing is in the way, else in line, or at a later time.

What is decided here is decided by one insert: the slot is part of the new run, and taken by whoever stores it first.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from streamline.domain.flow import Concurrency
from streamline.domain.gates import short_key
from streamline.domain.transitions.birth import Order, in_line, queued
from streamline.engine.gates.slots import Slots, concurrency_of, throttle_of
from streamline.engine.gates.throttles import Throttles
from streamline.engine.runtime import Runtime
from streamline.errors import ConcurrencyLimitReached
from streamline.store import statements


@dataclass(frozen=True, slots=True)
class Entry:
    """How a new run begins.

    Args:
        begins: Whether it has passed its gates and begins now.
        due_at: The instant that counts as its start, or when it is due; None where it waits in line.
        slot: The slot that it is to take.
    """

    begins: bool = False
    due_at: datetime | None = None
    slot: int | None = None


class Entrance:
    """Decides how new runs with gates begin."""

    def __init__(self, runtime: Runtime, throttles: Throttles) -> None:
        self._runtime = runtime
        self._slots = Slots(runtime)
        self._throttles = throttles

    async def enter(self, order: Order, *, may_begin: bool, earlier: Entry | None = None) -> Entry:
        """Decide about one run that is to begin now.

        Args:
            order: The run.
            may_begin: Whether this process drives it at once where the gates let it.
            earlier: What was decided a moment ago, where somebody else was faster to take the slot.

        Raises:
            ConcurrencyLimitReached: Every slot is taken, and the workflow says that such a run is refused.
        """
        definition, slot = order.definition, None
        limit = concurrency_of(self._runtime, definition.name, definition.route)
        if limit is not None and "slot_key" in order.gate:
            slot = await self._slot(order, limit)
            if slot is None:
                await self.leave(order, earlier)
                return Entry()
        if earlier is not None and earlier.due_at is not None:
            return replace(earlier, slot=slot)  # its turn is kept
        throttle, now = throttle_of(self._runtime, definition.name, definition.route), self._runtime.clock.now()
        if throttle is None or "throttle_key" not in order.gate:
            return Entry(may_begin, now, slot)
        key = order.gate["throttle_key"]
        if may_begin:
            turns = await self._throttles.enter(key, throttle, order.run_id)
            if order.run_id in turns.begun:
                return Entry(True, turns.begun[order.run_id], slot)
            return Entry(due_at=turns.later[order.run_id])
        (instant,) = await self._throttles.join(key, throttle)
        return Entry(due_at=instant, slot=slot if instant <= self._runtime.clock.now() else None)

    async def newborns(self, orders: Sequence[Order], due_at: datetime | None) -> list[dict[str, Any]]:
        """Return new runs that begin later: in line where they need a slot, spread where they are throttled."""
        now = self._runtime.clock.now()
        if due_at is not None:
            return [queued(order, now, due_at) for order in orders]
        instants = await self._spread(orders)
        return [
            in_line(order, now) if self._is_limited(order) else queued(order, now, instants.get(order.run_id, now))
            for order in orders
        ]

    async def leave(self, order: Order, entry: Entry | None) -> None:
        """Give back the turn that was kept for a run: its key is another's, or its slot was lost."""
        throttle = throttle_of(self._runtime, order.definition.name, order.definition.route)
        instant = None if entry is None else entry.due_at
        if entry is None or instant is None or throttle is None or "throttle_key" not in order.gate:
            return
        await self._throttles.leave(order.gate["throttle_key"], throttle, instant, has_begun=entry.begins)

    def is_refusing(self, order: Order) -> bool:
        """Return whether the run is refused where every slot is taken."""
        limit = concurrency_of(self._runtime, order.definition.name, order.definition.route)
        return limit is not None and limit.on_limit == "reject"

    async def check_room(self, orders: Sequence[Order]) -> None:
        """Raise `ConcurrencyLimitReached` where several runs that begin now would not all find a slot."""
        wanted = Counter(order.gate["slot_key"] for order in orders if self._is_limited(order))
        for key, count in wanted.items():
            definition = orders[0].definition
            limit = concurrency_of(self._runtime, definition.name, definition.route)
            if limit is not None and len(await self._slots.free(key, limit.limit)) < count:
                raise _refusal(definition.name, key, limit.limit)

    def _is_limited(self, order: Order) -> bool:
        limit = concurrency_of(self._runtime, order.definition.name, order.definition.route)
        return limit is not None and "slot_key" in order.gate

    async def _spread(self, orders: Sequence[Order]) -> dict[str, datetime]:
        by_key, instants = defaultdict[str, list[Order]](list), dict[str, datetime]()
        for order in orders:
            if "throttle_key" in order.gate and not self._is_limited(order):
                by_key[order.gate["throttle_key"]].append(order)
        for key, several in by_key.items():
            throttle = throttle_of(self._runtime, several[0].definition.name, several[0].definition.route)
            if throttle is not None:
                ids = [order.run_id for order in several]
                instants |= dict(zip(ids, await self._throttles.join(key, throttle, len(ids)), strict=True))
        return instants

    async def _slot(self, order: Order, limit: Concurrency) -> int | None:
        """Return a slot that is free, or None where the run is to wait in line."""
        key = order.gate["slot_key"]
        if limit.on_limit == "queue":
            # Whoever waits already comes first.
            waiting, free = await asyncio.gather(
                self._runtime.store.run(statements.find_queued(key, 1)), self._slots.free(key, limit.limit)
            )
            return random.choice(free) if free and not waiting else None
        free = await self._slots.free(key, limit.limit)
        if not free:
            raise _refusal(order.definition.name, key, limit.limit)
        return random.choice(free)


def _refusal(workflow: str, slot_key: str, limit: int) -> ConcurrencyLimitReached:
    said = f"workflow {workflow}: {limit} runs of the key are at work"
    return ConcurrencyLimitReached(said, workflow=workflow, key=short_key(slot_key), limit=limit)
