"""The event log: what happened to all runs, in one order of dense positions, filled by relays and read by anybody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Any

from streamline.bus import Bus
from streamline.clock import Clock
from streamline.engine.pauses import within
from streamline.store import Store, statements

Entry = dict[str, Any]

HINT = "log"
BATCH = 500
_FIRST_PAUSE, _LONGEST_PAUSE, _GROWTH = 0.02, 1.0, 1.5
_RACE_PAUSE = 0.005
_TAIL_SECONDS = 5.0
_ANYWHERE = 2**62


class EventLog:
    """Appends to the log and reads it.

    Positions are given by whoever inserts, each the one after the last; a unique id decides who was first. Entries go
    in in order, and reads see what the majority has: whoever reads on after a position misses none.

    Attributes:
        closed: Whether the app is being closed: whoever waits for entries gives up.
    """

    def __init__(self, store: Store, clock: Clock, bus: Bus) -> None:
        self._store = store
        self._clock = clock
        self._bus = bus
        self._tail: int | None = None
        self._tail_at = 0.0
        self.closed = False

    async def append(self, entries: Sequence[Entry]) -> int:
        """Add entries of runs, each run's in order, except those that are there; return how many were added."""
        left, added = list(entries), 0
        while left:
            tail, now = await self._believed_tail(), self._clock.now()
            documents = [{"_id": tail + i, **entry, "logged_at": now} for i, entry in enumerate(left[:BATCH], 1)]
            done = await self._store.run(statements.append_log(documents))
            self._believe(tail + done.count)
            added, left = added + done.count, left[done.count :]
            if "_id" in done.taken:
                # Another relay was faster.
                self._tail = None
                await self._clock.sleep(_RACE_PAUSE)
            elif done.taken:
                left = await self._without_known(left)
        return added

    async def tail(self) -> int:
        """Return the last position, 0 for an empty log."""
        found = await self._store.run(statements.find_log_tail())
        return found[0]["_id"] if found else 0

    async def read(self, after: int, limit: int = BATCH) -> list[Entry]:
        """Return the entries after a position."""
        return await self._store.run(statements.find_log(after, limit))

    async def read_run(self, run_id: str, after: int, until: int = _ANYWHERE, limit: int = BATCH) -> list[Entry]:
        """Return the entries of a run with a number above `after`, up to the position `until`."""
        return await self._store.run(statements.find_log_of_run(run_id, after, until, limit))

    async def before(self, instant: datetime) -> int:
        """Return the position after which the entries are that were added at an instant or later."""
        found = await self._store.run(statements.find_log_since(instant))
        return found[0]["_id"] - 1 if found else await self.tail()

    async def purge(self, before: datetime) -> None:
        """Remove the entries that were added before an instant; the last one stays, so that positions never return."""
        until = min(await self.before(before), await self.tail() - 1)
        if until > 0:
            await self._store.run(statements.remove_log(until))

    async def follow(self, after: int) -> AsyncGenerator[list[Entry], None]:
        """Yield the entries after a position as they come, some at a time, until the app is closed."""
        pause, told = _FIRST_PAUSE, asyncio.Event()
        forget = self._bus.on_hint(HINT, told.set)
        try:
            while not self.closed:
                told.clear()
                if entries := await self.read(after):
                    yield entries
                    after, pause = entries[-1]["_id"], _FIRST_PAUSE
                    continue
                await within(pause, told)
                pause = min(pause * _GROWTH, _LONGEST_PAUSE)
        finally:
            forget()

    def close(self) -> None:
        """Let whoever waits for entries give up."""
        self.closed = True
        self._bus.hint(HINT)

    async def _believed_tail(self) -> int:
        # A belief that is old could lie where entries have been removed.
        if self._tail is None or self._clock.monotonic() - self._tail_at > _TAIL_SECONDS:
            self._believe(await self.tail())
        assert self._tail is not None
        return self._tail

    def _believe(self, tail: int) -> None:
        self._tail, self._tail_at = tail, self._clock.monotonic()

    async def _without_known(self, left: list[Entry]) -> list[Entry]:
        """Return the entries without those of the first one's run that the log has."""
        refused = left[0]
        known = await self.read_run(refused["run_id"], refused["seq"] - 1)
        # Another run may have had the same id.
        last = max([refused["seq"], *(entry["seq"] for entry in known if entry.get("born") == refused.get("born"))])
        run = (refused["run_id"], refused.get("born"))
        return [entry for entry in left if (entry["run_id"], entry.get("born")) != run or entry["seq"] > last]
