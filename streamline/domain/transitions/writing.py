"""How every transition of a run is put together: its fence, its revision, its events."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from streamline.domain.change import Change

Document = Mapping[str, Any]
Entry = tuple[str, Mapping[str, Any]]


def events_after(seq: int, now: datetime, entries: tuple[Entry, ...]) -> tuple[Mapping[str, Any], ...]:
    """Return the entries ``(type, details)`` as events numbered from ``seq + 1``."""
    return tuple({"seq": seq + i, "type": kind, "at": now, **details} for i, (kind, details) in enumerate(entries, 1))


def driven(
    run: Document,
    now: datetime,
    put: Mapping[str, Any],
    *entries: Entry,
    drop: tuple[str, ...] = (),
    weight: int = 0,
    growth: int = 0,
) -> Change:
    """Return a change by the worker that drives the run: fenced by its lease, its revision and the current step.

    Args:
        run: The run as its driver knows it.
        now: The present instant.
        put: New values by field path.
        entries: What the run's events tell of it.
        drop: Field paths to remove.
        weight: Bytes of users' values in `put`.
        growth: Bytes by which users' values in the run become more, or fewer.
    """
    k, news = run["cursor"], claim_news(run)
    if news and "lease" not in drop:
        drop = (*drop, "lease.news")
    fence = {
        "lease.token": run["lease"]["token"],
        "rev": run["rev"],
        "cursor": k,
        f"steps.{k}.id": run["steps"][k]["id"],
    }
    put = {**put, "size": max(0, run.get("size", 0) + growth)} if growth else put
    return _change(run, now, fence, put, (*news, *entries), drop, weight)


def operated(
    run: Document, now: datetime, put: Mapping[str, Any], *entries: Entry, drop: tuple[str, ...] = ()
) -> Change:
    """Return a change by somebody who does not drive the run: guarded by the revision and status that were read."""
    return _change(run, now, {"rev": run["rev"], "status": run["status"]}, put, entries, drop, 0)


def _change(
    run: Document,
    now: datetime,
    guard: Mapping[str, Any],
    put: Mapping[str, Any],
    entries: tuple[Entry, ...],
    drop: tuple[str, ...],
    weight: int,
) -> Change:
    events = events_after(run["event_seq"], now, entries)
    stamped = dict(put)
    stamped["rev"], stamped["updated_at"] = run["rev"] + 1, now
    if events:
        stamped["event_seq"] = events[-1]["seq"]
    return Change(guard=guard, put=stamped, drop=drop, events=events, weight=weight)


def claim_news(run: Document) -> tuple[Entry, ...]:
    """Return the events of the last claim where none of them is recorded yet.

    A claim covers many runs in one write and cannot number their events; the next write to each run does.
    """
    lease = run.get("lease") or {}
    if "news" not in lease:
        return ()
    step = run["steps"][run["cursor"]]
    started = "step.resumed" if step["status"] == "waiting" else "step.started"
    entry = (started, {"at": lease["at"], "step": step["id"], "attempt": run["attempt"]})
    if lease["news"] != "recovered":
        return (entry,)
    return (("run.recovered", {"at": lease["at"], "recovery_count": run["recovery_count"]}), entry)


def finished(run: Document, status: str, now: datetime) -> dict[str, Any]:
    """Return the fields that every end of a run sets, whichever it is."""
    put: dict[str, Any] = {"status": status, "ended_at": now}
    retention = run.get("retention")
    if isinstance(retention, Mapping) and status in retention:
        put["expire_at"] = now + timedelta(seconds=retention[status])
    return put
