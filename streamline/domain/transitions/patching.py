"""What a handler has stored while it is at work: results of durable calls, state, progress; many in one write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from streamline.domain.change import Append, Change
from streamline.domain.heard import noted
from streamline.domain.place import Document, Place
from streamline.domain.transitions.writing import Entry, answerable, driven


@dataclass(frozen=True, slots=True)
class Patch:
    """Part of a write by the worker that drives a run.

    Args:
        place: Where the handler is at work.
        put: New values by field path.
        drop: Field paths to remove.
        add: Numbers to add, by field path.
        append: Values to add to lists, by field path.
        entries: What the run's events tell of it.
        weight: Bytes of users' values in it.
        growth: Bytes by which the run grows.
        spill: A document for the collection of memos, to be stored first.
        wanted: Asked of the run as it is when the patch is about to be written; the patch is left out where it says no.
        opens: Waits that somebody can answer from now on, by address.
        closes: Addresses of waits that nobody can answer any more.
        takes: The id of the event that leaves the run's inbox.
        hears: The event of the common inbox that the run takes.
    """

    place: Place
    put: Mapping[str, Any] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    add: Mapping[str, float] = field(default_factory=dict)
    append: Mapping[str, Append] = field(default_factory=dict)
    entries: tuple[Entry, ...] = ()
    weight: int = 0
    growth: int = 0
    spill: dict[str, Any] | None = None
    wanted: Callable[[Document], bool] | None = None
    opens: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    closes: frozenset[str] = frozenset()
    takes: str | None = None
    hears: Mapping[str, Any] | None = None

    def kinds(self) -> dict[str, str]:
        """Return what it does to which field paths: ``"put"``, ``"add"`` or ``"append"``."""
        puts = (*self.put, *self.drop, *(() if self.takes is None else (f"inbox.{self.takes}",)))
        puts = (*puts, *(() if self.hears is None else (f"hears.{self.hears['id']}",)))
        added, appended = dict.fromkeys(self.add, "add"), dict.fromkeys(self.append, "append")
        return {**dict.fromkeys(puts, "put"), **added, **appended}


def fitting(patches: Sequence[Patch]) -> int:
    """Return how many of the patches, from the first on, can share a write.

    No path may lie within another's, nor be another's, except that what is added or appended to one adds up.
    """
    taken: dict[str, str] = {}
    around: set[str] = set()
    for count, patch in enumerate(patches):
        mine = patch.kinds()
        above = {path: _around(path) for path in mine}
        if any(_collides(path, kind, above[path], taken, around) for path, kind in mine.items()):
            return count
        taken |= mine
        around = around.union(*above.values())
    return len(patches)


def _collides(path: str, kind: str, above: set[str], taken: Mapping[str, str], around: set[str]) -> bool:
    if path in around or above & taken.keys():
        return True
    return path in taken and (kind == "put" or taken[path] != kind)


def _around(path: str) -> set[str]:
    parts = path.split(".")
    return {".".join(parts[:i]) for i in range(1, len(parts))}


def patched(run: Document, patches: Sequence[Patch], now: datetime) -> Change:
    """Return the one change that writes all the patches, each of which fits with the others."""
    put: dict[str, Any] = {}
    add: dict[str, float] = {}
    append: dict[str, Append] = {}
    drop: list[str] = []
    entries: list[Entry] = []
    weight = growth = 0
    for patch in patches:
        put |= patch.put
        add |= _summed(add, patch.add)
        append |= _extended(append, patch.append)
        drop += patch.drop
        entries += patch.entries
        weight, growth = weight + patch.weight, growth + patch.growth
        put |= begun(run, patch.place)
        if patch.spill is not None:
            path = f"{patch.place.at}.spilled"
            add[path] = add.get(path, 0) + 1
    found, lost = _answerable(run, patches)
    put, drop = put | found, [*drop, *lost]
    taken = {patch.takes for patch in patches if patch.takes is not None}
    if taken:
        put["inbox"] = [event for event in run.get("inbox", ()) if event["id"] not in taken]
    remembered, taught = noted(run, [patch.hears for patch in patches if patch.hears is not None])
    put, append = put | remembered, append | taught
    places = tuple(patch.place for patch in patches)
    return driven(
        run, now, put, *entries, places=places, drop=tuple(drop), add=add, append=append, weight=weight, growth=growth
    )


def _answerable(run: Document, patches: Sequence[Patch]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return what to put and drop of the fields by which a run is found and answered, after all the patches."""
    if not any(patch.opens or patch.closes for patch in patches):
        return {}, ()
    opens = [entry for patch in patches for entry in patch.opens.values()]
    closes = {(patch.place, address) for patch in patches for address in (*patch.closes, *patch.opens)}
    return answerable(run, without=lambda place, address: (place, address) in closes, more=opens)


def carrying(change: Change, riders: Sequence[Patch]) -> Change:
    """Return a change that also writes what could wait for the next write: logs, progress, metrics.

    What the change replaces as a whole, or removes, needs no such word.
    """
    if not riders:
        return change
    replaced = {*change.put, *change.drop}
    put, add, append = dict(change.put), dict(change.add), dict(change.append)
    for rider in riders:
        if not any(path in replaced or _around(path) & replaced for path in rider.kinds()):
            put |= rider.put
            add |= rider.add
            append |= rider.append
    change.put, change.add, change.append = put, add, append
    return change


def joined(older: Mapping[str, Patch], newer: Mapping[str, Patch]) -> dict[str, Patch]:
    """Return riders that were not written together with those that came since."""
    both = {name: _both(older[name], newer[name]) for name in older.keys() & newer.keys()}
    return {**older, **newer, **both}


def _both(older: Patch, newer: Patch) -> Patch:
    add, append = _summed(older.add, newer.add), _extended(older.append, newer.append)
    return replace(newer, put={**older.put, **newer.put}, add=add, append=append)


def _summed(before: Mapping[str, float], more: Mapping[str, float]) -> dict[str, float]:
    return {path: before.get(path, 0) + amount for path, amount in more.items()}


def _extended(before: Mapping[str, Append], more: Mapping[str, Append]) -> dict[str, Append]:
    """Return what is appended by both, no more than what of it will be kept."""
    extended = {}
    for path, added in more.items():
        values = (*before[path].values, *added.values) if path in before else added.values
        extended[path] = Append(values[-(added.keep or 0) :], added.keep)
    return extended


def begun(run: Document, place: Place) -> dict[str, Any]:
    """A step that began with a claim has no start on record yet: the lease knows it."""
    activity = place.activity(run)
    if "news" not in run["lease"] or (activity.get("status") == "waiting" and "started_at" in activity):
        return {}
    return {f"{place.at}.started_at": run["lease"]["at"]}
