"""Starting a debounced workflow: the one draft of its key is stored, or changed and put off."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from datetime import datetime
from weakref import WeakValueDictionary

from streamline.domain.transitions import gating
from streamline.domain.transitions.birth import Order, debounced
from streamline.engine.gates.slots import debounce_of
from streamline.engine.runtime import Runtime
from streamline.errors import StoreUnavailable, StreamlineError
from streamline.store import Inserted, statements

_PAUSE = 0.005


@dataclass(frozen=True, slots=True)
class _Wish:
    """A start: the run, and from when on it may begin, None for at once."""

    order: Order
    due_at: datetime | None

    def begins(self, now: datetime) -> datetime:
        """Return from when on the run may begin."""
        return now if self.due_at is None else max(now, self.due_at)


@dataclass(slots=True, weakref_slot=True)
class _Line:
    """The starts of one key in this process, which take turns.

    Whoever's turn it is writes the latest of them: it has come after all that wait, and replaces what they would write.
    """

    latest: _Wish
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    arrived: int = 0
    written: int = 0
    run_id: str = ""
    outcome: Inserted | None = None


class Debouncing:
    """Keeps one draft per key."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._lines: WeakValueDictionary[str, _Line] = WeakValueDictionary()

    async def start(self, order: Order, due_at: datetime | None) -> tuple[str, Inserted | None]:
        """Store or change the draft of the run's key.

        Args:
            order: The run.
            due_at: From when on it may begin, None for at once; the window counts from then.

        Returns:
            The draft's id, and what the insert came to; None where an older draft was changed.
        """
        key, wish = order.gate["debounce_key"], _Wish(order, due_at)
        line = self._lines.setdefault(key, _Line(wish))
        line.latest, line.arrived = wish, line.arrived + 1
        turn = line.arrived
        async with line.lock:
            if line.written < turn and line.arrived > turn:
                await self._write_latest(line)
            if line.written < turn:
                line.run_id, line.outcome = await self._write(wish)
                line.written = turn
            return line.run_id, line.outcome if line.written == turn else None

    async def _write_latest(self, line: _Line) -> None:
        """Write the latest start for all; where that came to nothing, it and whoever waits do it for themselves."""
        latest, arrived = line.latest, line.arrived
        try:
            run_id, outcome = await self._write(latest)
        except StoreUnavailable:
            raise
        except StreamlineError:
            return  # what is wrong with it is told to its own caller
        if outcome in ("inserted", None):
            line.run_id, line.outcome, line.written = run_id, outcome, arrived

    async def _write(self, wish: _Wish) -> tuple[str, Inserted | None]:
        key = wish.order.gate["debounce_key"]
        while True:
            found = await self._runtime.store.run(statements.find_draft(key))
            if not found:
                outcome = await self._insert(wish)
                if outcome != "draft_taken":
                    return wish.order.run_id, outcome
                continue
            draft, now = found[0], self._runtime.clock.now()
            if gating.is_sealed(draft, now):
                # Starts that keep coming would keep whoever is to begin it from doing so: each changes what it read.
                await self._runtime.commit(draft, gating.seal(draft, now))
                continue
            if await self._runtime.commit(draft, gating.bump(draft, wish.order, now, self._fires(wish, now))):
                self._runtime.announce(wish.order.definition.route, draft.get("due_at"))
                return str(draft["_id"]), None
            await self._runtime.clock.sleep(random.uniform(0, _PAUSE))  # another process was faster

    async def _insert(self, wish: _Wish) -> Inserted:
        order, now = wish.order, self._runtime.clock.now()
        policy = debounce_of(self._runtime, order.definition.name, order.definition.route)
        fire_by = None if policy is None or policy.longest is None else wish.begins(now) + policy.longest
        run = debounced(order, now, self._fires(wish, now), fire_by)
        insert = self._runtime.insertion(run, order.weight)
        outcome = await asyncio.shield(self._runtime.store.submit(insert))
        if outcome == "inserted":
            self._runtime.announce(run["route"], run["due_at"])
            self._runtime.newborn(run)
        return outcome

    def _fires(self, wish: _Wish, now: datetime) -> datetime:
        """Return when the draft begins if nobody starts it again, counted from its write: a start may have waited."""
        policy = debounce_of(self._runtime, wish.order.definition.name, wish.order.definition.route)
        return wish.begins(now) if policy is None else wish.begins(now) + policy.window_time
