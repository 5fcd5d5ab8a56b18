"""The outbox: every write that has something to tell marks its run, and what is marked goes into the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from streamline.bus import STORED, Bus
from streamline.clock import Clock
from streamline.domain.change import Change
from streamline.engine.event_log import HINT, EventLog
from streamline.engine.facts import Facts
from streamline.features.outboxes import entries_of, is_full, marked, note_of
from streamline.store import Store, WakeChannel, statements

MARKED = "outbox"
FACT = "log"
RELAY = "relay"  # the record of who relays
_TELL_SECONDS = 0.003
_ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)


class Outbox:
    """Marks runs where somebody wants the log, and relays what they have to tell.

    Args:
        store: The door.
        clock: The time.
        facts: Whether anybody wants the log, and since when.
        log: Where events go.
        bus: Tells this process that there is something new.
        wakes: Tells the others.

    Attributes:
        is_relayed_here: Whether the relay is in this process, so that no other has to be told of marks.
    """

    def __init__(
        self, store: Store, clock: Clock, facts: Facts, log: EventLog, bus: Bus, wakes: WakeChannel | None
    ) -> None:
        self._store = store
        self._clock = clock
        self._facts = facts
        self._bus = bus
        self._wakes = wakes
        self._telling = False
        self.log = log
        self.is_relayed_here = False

    @property
    def is_on(self) -> bool:
        """Whether anybody wants the log."""
        return self._facts.get(FACT) is not None

    async def switch_on(self) -> None:
        """Begin the log, for the whole deployment and for good; a write then costs a field more, and the relay's."""
        if not self.is_on:
            await self._facts.load()
        if not self.is_on:
            # Of several who begin it at once, the first says since when.
            now = self._clock.now()
            known = await self._store.run(statements.insert_meta({"_id": RELAY, "since": now}))
            await self._facts.put(f"{FACT}.since", known[0]["since"] if known else now)

    def born(self, run: dict[str, Any]) -> dict[str, Any]:
        """Return a run that is to be inserted, with a mark where the run is to have one."""
        if self.is_on:
            run["outbox_at"] = run["created_at"]
        return run

    async def mark(self, run: dict[str, Any], change: Change) -> Change:
        """Return the change with a mark, where somebody wants the log; only so many events wait in a run for it.

        Raises:
            StoreUnavailable: There is no room, and the database did not answer.
        """
        if not self.is_on:
            return change
        if is_full(run, change):
            await self.settle(run)
        return marked(run, change, self._clock.now())

    async def relay(self, runs: Sequence[dict[str, Any]]) -> None:
        """Bring what runs have to tell into the log, and record that it is there; safe to be done twice, or by two."""
        since = self._facts.get(f"{FACT}.since", _ALWAYS)
        entries = [entry for run in runs for entry in entries_of(run, since)]
        if await self.log.append(entries):
            self._bus.hint(HINT)
            if self._wakes is not None:
                self._wakes.hint(HINT)
        notes = [note_of(run) for run in runs]
        if await self._store.run(statements.note_logged(notes)) < len(notes):
            await self._store.run(statements.note_relayed(notes))

    def listen(self) -> Callable[[], None]:
        """Tell the relay whenever events are stored; return a function that ends it."""
        return self._bus.on_hint(STORED, self.tell_soon)

    def tell_soon(self) -> None:
        """Tell the relay that events are stored; what is stored within a moment is told together."""
        if self.is_on and not self._telling:
            self._telling = True
            asyncio.get_running_loop().call_later(_TELL_SECONDS, self._tell)

    def _tell(self) -> None:
        self._telling = False
        self._bus.hint(MARKED)
        if self._wakes is not None and not self.is_relayed_here:
            self._wakes.hint(MARKED)

    async def settle(self, run: dict[str, Any]) -> None:
        """Bring into the log what a run has to tell, by its driver, so that the relay leaves the run alone.

        The copy that a driver has of its run does not show how far the relay is.
        """
        if not self.is_on:
            return
        for found in await self._store.run(statements.find_unlogged(run["_id"])):
            if found["events"] or "outbox_at" in found:
                await self.relay([found])
            run["relayed"] = found["event_seq"]
