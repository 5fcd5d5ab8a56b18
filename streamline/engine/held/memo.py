"""The memo of a place: what a re-entered handler finds instead of doing it again.

A durable call is addressed by its key. Once settled it is never carried out again: the stored result comes back. A
handler must ask for the same calls under the same keys each time; another kind or name under a stored key is an error.
A memo of many or large results spills into a collection of its own, so that the run's own writes stay small.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from streamline.clock import Clock
from streamline.domain.heard import has_heard
from streamline.domain.place import Document, Place
from streamline.domain.transitions.closing import waited_for
from streamline.domain.transitions.patching import Patch
from streamline.domain.transitions.stepping import memo_size
from streamline.domain.transitions.writing import Entry as Event
from streamline.engine.held.branches import Branch
from streamline.engine.held.holding import Holding
from streamline.errors import NonDeterministicStep

ENTRIES_MAX = 100
QUEUED_MAX = 1000
BYTES_MAX = 64 * 1024

Entry = Mapping[str, Any]


class Memo:
    """The settled and open calls of the place that a handler is at work at."""

    def __init__(self, holding: Holding, place: Place, clock: Clock) -> None:
        self._holding = holding
        self._clock = clock
        self.place = place

    def find(self, branch: Branch, kind: str, key: str | None, *, name: str | None = None) -> tuple[str, Entry | None]:
        """Return the address of a call of a branch and its entry, or None where nothing is stored of it.

        Raises:
            InvalidKey: The key is not of the allowed form, or was used before in this branch.
            NonDeterministicStep: The key holds a call of another kind, or for something else.
        """
        address = branch.address(kind, key)
        entry = self.entry(address)
        if entry is not None:
            self._check(address, entry, kind, name)
        return address, entry

    def entry(self, address: str) -> Entry | None:
        """Return what is stored under an address, or None."""
        stored = self.place.memo(self._holding.run).get(address)
        if stored is not None or not self._holding.spilled:
            return stored
        spilled: Entry | None = self._holding.spilled.get(f"{memo_prefix(self._holding.run, self.place)}{address}")
        return spilled

    async def settle(
        self,
        address: str,
        entry: Entry,
        *,
        size: int = 0,
        events: tuple[Event, ...] = (),
        drop: Collection[str] = (),
        spills: bool = True,
        **more: Any,
    ) -> Entry:
        """Store the result of a call and return what stands under its address.

        Args:
            address: The call's.
            entry: What to store.
            size: Bytes of users' values in it.
            events: What the run's events tell of it.
            drop: Addresses that nobody will ask for any more.
            spills: Whether it may go to the collection of memos.
            more: Further parts of the same write, as in `Patch`.

        Raises:
            HeartbeatLost: The run is no longer held.
        """
        at, stored = self.place.at, {**entry, "size": size}
        gone, memo = self._gone(drop), self.place.memo(self._holding.run)
        closes = frozenset(address for address in drop if memo.get(address, {}).get("open"))
        if waited_for({address: memo[address] for address in drop if address in memo}):
            # Children that nobody waits for any more are to be ended.
            more["put"] = {**more.get("put", {}), "owes_at": self._clock.now()}
        if spills and self._is_full(size, len(gone)):
            document = self._spilled_document(address, stored)
            gone = (*gone, *self._gone((address,)))
            patch = Patch(self.place, drop=gone, entries=events, spill=document, closes=closes, **more)
        else:
            put = {f"{at}.memo.{address}": stored, **more.pop("put", {})}
            growth = size - (self.entry(address) or {}).get("size", 0)
            parts: dict[str, Any] = {"weight": size, "growth": growth, "closes": closes, **more}
            patch = Patch(self.place, put, gone, entries=events, **parts)
        await self._holding.settle(patch)
        return self.entry(address) or stored

    async def open(self, address: str, entry: Entry) -> None:
        """Store that a branch waits, before the run is parked: others of its branches go on."""
        put = {f"{self.place.at}.memo.{address}": dict(entry)}
        opens = {address: entry} if entry.get("open") else {}
        await self._holding.settle(
            Patch(self.place, put, opens=opens, wanted=lambda run: address not in self.place.memo(run))
        )

    async def reopen(self, address: str, entry: Entry, *events: Event) -> None:
        """Store a wait that is open anew: its answer was of no use, or another token opens it, too."""
        put, before = {f"{self.place.at}.memo.{address}": dict(entry)}, self.entry(address)

        def is_unchanged(run: Document) -> bool:
            return self.place.memo(run).get(address) == before

        await self._holding.settle(Patch(self.place, put, entries=events, opens={address: entry}, wanted=is_unchanged))

    async def close(
        self, address: str, entry: Entry, *, take: str | None = None, hears: Mapping[str, Any] | None = None
    ) -> None:
        """Close a wait from inside, unless somebody answers first, or another wait takes the event.

        Args:
            address: The wait's.
            entry: What to store.
            take: The id of the event in the run's inbox that is the answer.
            hears: The event of the common inbox that is the answer.
        """

        def is_open(run: Document) -> bool:
            stored = self.place.memo(run).get(address)
            is_there = take is None or any(event["id"] == take for event in run.get("inbox", ()))
            if hears is not None and has_heard(run, hears):
                return False
            return is_there and (stored is None or bool(stored.get("open")))

        put, closes = {f"{self.place.at}.memo.{address}": dict(entry)}, frozenset({address})
        size = 0 if hears is None else entry.get("size", 0)
        await self._holding.settle(
            Patch(self.place, put, weight=size, growth=size, wanted=is_open, closes=closes, takes=take, hears=hears)
        )

    def addresses_within(self, path: str) -> list[str]:
        """Return the addresses of the calls of a branch and of its branches."""
        return [address for address in self.place.memo(self._holding.run) if address.startswith(f"{path}/")]

    def _gone(self, addresses: Collection[str]) -> tuple[str, ...]:
        memo = self.place.memo(self._holding.run)
        return tuple(f"{self.place.at}.memo.{address}" for address in addresses if address in memo)

    def _is_full(self, size: int, freed: int) -> bool:
        # What is on its way counts: it will have been stored by then.
        holding = self._holding
        count = len(self.place.memo(holding.run))
        is_long = (count >= ENTRIES_MAX and not freed) or count + holding.queued >= QUEUED_MAX
        if size > BYTES_MAX or is_long:
            return True
        stored = memo_size(holding.run, self.place) + holding.queued_bytes
        return stored > 0 and stored + size > BYTES_MAX

    def _spilled_document(self, address: str, entry: Entry) -> dict[str, Any]:
        run = self._holding.run
        return {
            "_id": f"{memo_prefix(run, self.place)}{address}",
            "run_id": run["_id"],
            "born": run["born"],
            "place": memo_prefix(run, self.place),
            "address": address,
            "at": self._clock.now(),
            "entry": dict(entry),
        }

    @staticmethod
    def _check(address: str, entry: Entry, kind: str, name: str | None) -> None:
        stored = entry["kind"] if entry["kind"] != kind else entry.get("name")
        asked = kind if entry["kind"] != kind else name
        if stored != asked:
            raise NonDeterministicStep(
                f"key {address!r} is stored as {stored}, and the handler asks for {asked}: a handler must ask for the "
                "same calls under the same keys each time it is entered",
                field=address,
            )


def memo_prefix(run: Document, place: Place) -> str:
    """Return what the ids of a place's spilled entries begin with.

    A step that is done again has others, and so has a later run of the same id.
    """
    step = run["steps"][place.k]
    undo = "/undo" if place.undo else ""
    return f"{run['_id']}/{run['born']}/{step['id']}/{step.get('generation', 0)}{undo}/"
