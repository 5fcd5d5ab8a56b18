"""How every transition of a run is put together: its fence, its revision, its events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from streamline.domain.change import Absent, Append, Change
from streamline.domain.place import Document, Place, attempt_of, is_waiting, open_waits, unfinished

Entry = tuple[str, Mapping[str, Any]]

# What an ended run no longer has.
WAITING = ("hooks", "waiting_since", "waiting_for", "listens")
LET_GO = (
    "live", "lease", "due_at", "active_key", "paused", "nudged", "slot", "queued_at", "debounce_key", *WAITING,
)  # fmt: skip


def events_after(seq: int, now: datetime, entries: tuple[Entry, ...]) -> tuple[Mapping[str, Any], ...]:
    """Return the entries ``(type, details)`` as events numbered from ``seq + 1``."""
    return tuple({"seq": seq + i, "type": kind, "at": now, **details} for i, (kind, details) in enumerate(entries, 1))


def driven(
    run: Document,
    now: datetime,
    put: Mapping[str, Any],
    *entries: Entry,
    places: Iterable[Place] = (),
    drop: tuple[str, ...] = (),
    add: Mapping[str, float] | None = None,
    append: Mapping[str, Append] | None = None,
    weight: int = 0,
    growth: int = 0,
) -> Change:
    """Return a change by the worker that drives the run: fenced by its lease, its revision and the current step.

    Args:
        run: The run as its driver knows it.
        now: The present instant.
        put: New values by field path.
        entries: What the run's events tell of it.
        places: Where handlers are at work, where that is not the step that the run stands at.
        drop: Field paths to remove.
        add: Numbers to add, by field path.
        append: Values to add to lists, by field path.
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
    for place in places:
        fence[f"steps.{place.k}.id"] = run["steps"][place.k]["id"]
    put = {**put, "size": max(0, run.get("size", 0) + growth)} if growth else put
    change = _change(run, now, fence, put, (*news, *entries), drop, weight)
    if add:
        change.add = add
    if append:
        change.append = append
    return change


def operated(
    run: Document,
    now: datetime,
    put: Mapping[str, Any],
    *entries: Entry,
    drop: tuple[str, ...] = (),
    append: Mapping[str, Append] | None = None,
    weight: int = 0,
) -> Change:
    """Return a change by somebody who does not drive the run: guarded by the revision and status that were read."""
    guard: dict[str, Any] = {"rev": run["rev"], "status": run["status"]}
    if run["status"] == "compensating":
        # A claim of such a run changes neither.
        guard["lease.token"] = (run.get("lease") or {}).get("token", Absent())
    change = _change(run, now, guard, put, entries, drop, weight)
    if append:
        change.append = append
    return change


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
    entries: tuple[Entry, ...] = ()
    if run["status"] != "compensating":
        entries = tuple(_claimed_step(run, place, lease["at"]) for place in unfinished(run))
    if lease["news"] != "recovered":
        return entries
    return (("run.recovered", {"at": lease["at"], "recovery_count": run["recovery_count"]}), *entries)


def _claimed_step(run: Document, place: Place, at: datetime) -> Entry:
    step = run["steps"][place.k]
    started = "step.resumed" if step["status"] == "waiting" else "step.started"
    return (started, {"at": at, "step": step["id"], "attempt": attempt_of(run, place)})


def of_place(run: Document, place: Place) -> dict[str, Any]:
    """Return the step and attempt that an event tells of."""
    return {"step": run["steps"][place.k]["id"], "attempt": attempt_of(run, place)}


def finished(run: Document, status: str, now: datetime) -> dict[str, Any]:
    """Return the fields that every end of a run sets, whichever it is.

    A run that others depend on is kept until they have been told, however short its retention.
    """
    put: dict[str, Any] = {"status": status, "ended_at": now}
    if owes(run):
        return put | {"owes_at": now}
    return put | expiry(run, status, now)


def owes(run: Document) -> bool:
    """Return whether something is to be done elsewhere once the run has ended: a parent, children, a spilled memo."""
    return bool((run.get("parent") or {}).get("wait")) or "children" in run or "spilled" in run


def owing(run: Document, now: datetime) -> dict[str, Any]:
    """Return what to put where a run goes another way: children are no longer wanted, or its memo is, again."""
    return {"owes_at": now} if "children" in run or "spilled" in run else {}


def expiry(run: Document, status: str, ended_at: datetime) -> dict[str, Any]:
    """Return the field that lets the database remove an ended run in time."""
    retention = run.get("retention")
    if not isinstance(retention, Mapping) or status not in retention:
        return {}
    return {"expire_at": ended_at + timedelta(seconds=retention[status])}


def let_go(run: Document) -> tuple[str, ...]:
    """Return the fields that an ending run still has and must lose."""
    return tuple(name for name in LET_GO if name in run)


def due(run: Document, instant: datetime | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return what to put and drop so that a run which nobody drives is looked at from `instant` on; None for never.

    A paused run must not come up for claiming: the instant is kept with the pause, and restored by unpause.
    """
    field = "paused.due_at" if run.get("paused") else "due_at"
    if instant is None:
        return {}, ((field,) if "due_at" in (run.get("paused") or run) else ())
    return {field: instant}, ()


def parked(run: Document, instant: datetime | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return what to put and drop so that nobody drives the run until `instant`, or until it is woken."""
    put, drop = due(run, instant)
    status = run["status"] if run["status"] == "compensating" else "waiting"
    return {"status": status, **put}, ("lease", *drop)


def woken(run: Document, now: datetime) -> dict[str, Any]:
    """Return what to put so that a run is looked at again now, whether or not somebody drives it."""
    if "lease" in run:
        # Whoever drives it looks again before it parks the run.
        return {} if "nudged" in run else {"nudged": True}
    # A pause before another attempt is not cut short by an answer.
    return due(run, now)[0] if is_waiting(run) else {}


def answerable(
    run: Document, *, without: Callable[[Place, str], bool], more: Sequence[Mapping[str, Any]] = ()
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return what to put and drop of the fields by which a run is found and answered.

    Args:
        run: The run as it is.
        without: Tells the waits that are closed.
        more: Waits that are opened.
    """
    if "waiting_since" not in run and not more:
        return {}, ()
    left = [entry for place, address, entry in open_waits(run) if not without(place, address)]
    found = waiting_fields(run, [*left, *more])
    put = {name: value for name, value in found.items() if value != run.get(name)}
    return put, tuple(name for name in WAITING if name in run and name not in found)


def hashes_of(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the hashes of the tokens that open a wait: several where the secret has changed while it was open."""
    return (*((entry["hash"],) if "hash" in entry else ()), *entry.get("older", ()))


def waiting_fields(run: Document, waits: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the fields by which a run is found that waits for somebody: since when, what for, by which hooks."""
    heard = listens(run, (entry["name"] for entry in waits if entry["kind"] == "event"))
    if not waits:
        return heard
    hashes = [each for entry in waits for each in hashes_of(entry)]
    since, kinds = min(entry["opened_at"] for entry in waits), sorted({entry["kind"] for entry in waits})
    return {"waiting_since": since, "waiting_for": kinds, **({"hooks": hashes} if hashes else {}), **heard}


def listens(run: Document, waited_for: Iterable[str] = ()) -> dict[str, Any]:
    """Return the field by which a run is found that an event concerns: it waits for it, or is cancelled by it."""
    # What is being undone cannot be cancelled.
    cancelling = () if run["status"] == "compensating" else (rule["name"] for rule in run.get("cancel_on", ()))
    names = sorted({*waited_for, *cancelling})
    return {"listens": names} if names else {}
