"""Waiting: stored, answered by somebody or ended by time, and then never waited for again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, get_args

from streamline.domain.durations import Duration, parse_duration
from streamline.domain.payloads import ANY, Codec, codec_of
from streamline.domain.transitions.parking import waiting_event
from streamline.engine.held.branches import Branch, Suspension
from streamline.engine.held.loaded import name_of_class
from streamline.engine.held.surroundings import Surroundings
from streamline.errors import InvalidInput, SerializationError

Entry = Mapping[str, Any]


async def hold_on(attempt: Surroundings, branch: Branch, address: str, fresh: Entry, timer: str | None = None) -> Entry:
    """Return the entry of a wait once it is settled: answered, or timed out.

    Args:
        attempt: The attempt that waits.
        branch: The branch that waits.
        address: The wait's address in the memo.
        fresh: What to store where nothing is stored of it yet.
        timer: Address of a second limit, stored under `fresh` of its own, as ``{"due_at": ...}`` in the memo.

    Raises:
        Suspension: The wait is not over, and no branch of the handler is awake: the run is to be parked.
    """
    looked = False
    while True:
        stored = attempt.memo.entry(address)
        entry = fresh if stored is None else stored
        if "outcome" in entry:
            return entry
        now, limits = attempt.clock.now(), _limits(attempt, entry, timer)
        event, kept = waiting_event(attempt.holding.run, entry), None
        if stored is None and event is None and entry["kind"] == "event" and not (limits and min(limits) <= now):
            # Open first: whoever sends an event from now on finds the wait, and what was sent before is found below.
            await attempt.memo.open(address, fresh)
            continue
        if entry["kind"] == "event" and not looked:
            kept, looked = await attempt.kept_event(entry), True
        if kept is not None and (event is None or kept["at"] <= event["at"]):
            await attempt.memo.close(address, _taken(entry, kept), hears=kept)
            looked = False
            continue
        if event is not None:
            await attempt.memo.close(address, _taken(entry, event), take=event["id"])
            continue
        if limits and min(limits) <= now:
            if not entry.get("open"):
                return entry
            await attempt.memo.close(address, _timed_out(entry, now))
            continue
        if stored is None and branch.quorum.is_crowded(branch):
            await attempt.memo.open(address, fresh)
            continue
        first = min(limits, default=None)
        await park_on(attempt, branch, address, entry if first is None else {**entry, "due_at": first}, first)


async def park_on(attempt: Surroundings, branch: Branch, address: str, entry: Entry, due_at: datetime | None) -> None:
    """Return when it is time to look again at a wait, while other branches are awake.

    Raises:
        Suspension: No branch is awake any more: the run is to be parked on this wait, and others.
    """
    attempt.flags.pending[address] = entry
    try:
        await branch.quorum.park(branch, due_at)
    except Suspension:
        raise
    except BaseException:
        del attempt.flags.pending[address]
        raise
    del attempt.flags.pending[address]


def opened_wait(kind: str, key: str, now: datetime, timeout: Duration | None, **told: Any) -> dict[str, Any]:
    """Return the memo entry of a wait that somebody can answer."""
    entry: dict[str, Any] = {"kind": kind, "key": key, "open": True, "opened_at": now}
    if timeout is not None:
        entry["due_at"] = now + parse_duration(timeout, "timeout")
    return entry | {name: value for name, value in told.items() if value is not None}


def encoded_details(attempt: Surroundings, data: Any) -> Any:
    """Return what a wait shows to whoever is to answer it, as it is stored."""
    if data is None:
        return None
    encoded = codec_of(data).encode(data, "data")
    attempt.check_size(encoded, "data")
    return encoded.value


def decoded_answer(entry: Entry, model: Any) -> Any:
    """Return the answer of a settled wait, of the type asked for; raise `InvalidInput` where it does not fit."""
    codec = ANY if model is None else Codec(model, "model")
    try:
        return codec.decode(entry.get("output"))
    except (ValueError, SerializationError) as error:
        raise InvalidInput(f"the answer does not fit its model: {type(error).__name__}", field="payload") from error


def fits(entry: Entry, model: Any) -> bool:
    """Return whether the answer of a settled wait is of the type asked for."""
    try:
        decoded_answer(entry, model)
    except InvalidInput:
        return False
    return True


def name_of(attempt: Surroundings, model: Any) -> str | None:
    """Return under which name a model is found by whoever takes the answer, to check it before it is stored."""
    if model is None:
        return None
    name = repr(model)
    if isinstance(model, type) and not get_args(model) and "<locals>" not in model.__qualname__:
        name = name_of_class(model)
    attempt.models[name] = model
    return name


def _limits(attempt: Surroundings, entry: Entry, timer: str | None) -> list[datetime]:
    second = None if timer is None else attempt.memo.entry(timer)
    return [each["due_at"] for each in (entry, second) if each is not None and each.get("due_at") is not None]


def _timed_out(entry: Entry, now: datetime) -> dict[str, Any]:
    kept = {name: entry[name] for name in ("kind", "name", "key", "generation", "due_at") if name in entry}
    return {**kept, "outcome": "timed_out", "at": now}


def _taken(entry: Entry, event: Entry) -> dict[str, Any]:
    kept = {name: entry[name] for name in ("kind", "name", "key") if name in entry}
    return {**kept, "outcome": "answered", "output": event["payload"], "size": event.get("size", 0), "at": event["at"]}
