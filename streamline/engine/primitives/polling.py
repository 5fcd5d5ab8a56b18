"""Durable polling of a job elsewhere: the run is parked between two looks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from streamline.domain.annotations import return_codec
from streamline.domain.durations import Duration, parse_duration
from streamline.domain.payloads import Codec
from streamline.engine.held.branches import Branch, current
from streamline.engine.held.surroundings import Surroundings
from streamline.engine.primitives.calling import work
from streamline.engine.primitives.waiting import Entry, park_on
from streamline.errors import WaitTimeout


async def poll(
    attempt: Surroundings, key: str, check: Callable[[], Any], *, every: Duration, max_wait: Duration | None
) -> Any:
    """Ask `check` again and again until it returns something other than None; that is stored.

    Raises:
        WaitTimeout: It had not done so within `max_wait` of the first time.
    """
    branch = current(attempt.root)
    pause = parse_duration(every, "every", positive=True)
    longest = None if max_wait is None else parse_duration(max_wait, "max_wait")
    address, entry = attempt.memo.find(branch, "poll", key)
    codec = return_codec(check, f"poll {address}")
    while entry is None or "due_at" in entry:
        if entry is not None and entry["due_at"] > attempt.clock.now():
            await _park(attempt, branch, address, entry)
            continue
        turn = 0 if entry is None else entry["turn"]
        value = await work(attempt, branch.worker(f"{address}[{turn}]"), check, ())
        began = attempt.clock.now() if entry is None else entry["began_at"]
        entry = await _looked(attempt, address, codec, value, began, turn, pause, longest)
    if entry.get("timed_out"):
        raise WaitTimeout(f"poll {key!r}: nothing came in the time allowed", field=key)
    return codec.decode(entry["output"])


async def _looked(
    attempt: Surroundings,
    address: str,
    codec: Codec,
    value: Any,
    began: datetime,
    turn: int,
    pause: timedelta,
    longest: timedelta | None,
) -> Entry:
    """Return the memo entry that follows from a look; the result, or its absence, is stored."""
    memo, now = attempt.memo, attempt.clock.now()
    inner = memo.addresses_within(f"{address}[{turn}]")
    if value is not None:
        encoded = codec.encode(value, f"poll {address}")
        attempt.check_size(encoded, f"poll {address}")
        return await memo.settle(address, {"kind": "poll", "output": encoded.value}, size=encoded.size, drop=inner)
    if longest is not None and now >= began + longest:
        return await memo.settle(address, {"kind": "poll", "output": None, "timed_out": True}, drop=inner, spills=False)
    # The wait ends with a look.
    due_at = now + pause if longest is None else min(now + pause, began + longest)
    entry = {"kind": "poll", "began_at": began, "turn": turn + 1, "due_at": due_at}
    # Without calls of its own, a look is stored with the parking that follows.
    return await memo.settle(address, entry, drop=inner, spills=False) if inner else entry


async def _park(attempt: Surroundings, branch: Branch, address: str, entry: Entry) -> None:
    if branch.quorum.is_crowded(branch) and attempt.memo.entry(address) != entry:
        await attempt.memo.settle(address, entry, spills=False)
    await park_on(attempt, branch, address, entry, entry["due_at"])
