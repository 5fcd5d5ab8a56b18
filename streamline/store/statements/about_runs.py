"""Every statement about runs, in alphabetical order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from streamline.domain.change import Change
from streamline.domain.statuses import ACTIVE, CLAIMABLE, TERMINAL
from streamline.domain.transitions import gating
from streamline.domain.transitions.claiming import take_due, take_expired
from streamline.store.compile import compile_guard, compile_update
from streamline.store.operations import (
    Aggregate,
    Document,
    Filter,
    Find,
    Insert,
    Remove,
    Sort,
    Write,
    WriteEach,
    WriteMany,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CHILD = {
    "workflow": 1, "version": 1, "status": 1, "output": 1, "error": 1, "ended_at": 1, "parent": 1, "steps.id": 1,
    "steps.status": 1, "tenant_id": 1,
}  # fmt: skip
_SEEN: dict[str, int] = dict.fromkeys(gating.SEEN, 1)
_UNLOGGED = {"$gt": ["$$this.seq", {"$ifNull": ["$relayed", 0]}]}
_OUTBOX = {
    "workflow": 1, "version": 1, "tenant_id": 1, "status": 1, "rev": 1, "event_seq": 1, "relayed": 1, "retention": 1,
    "ended_at": 1, "owes_at": 1, "outbox_at": 1, "born": 1,
    "events": {"$cond": [{"$isArray": "$events"}, {"$filter": {"input": "$events", "cond": _UNLOGGED}}, []]},
}  # fmt: skip
REMOVABLE: dict[str, int] = dict.fromkeys(
    (
        "status", "rev", "ended_at", "owes_at", "outbox_at", "removed_at", "takes_children", "told_at", "spilled",
        "children", "tenant_id", "workflow", "event_seq", "parent", "born",
    ),
    1,
)  # fmt: skip
_STUCK = {
    "workflow": 1, "version": 1, "route": 1, "tenant_id": 1, "status": 1, "due_at": 1, "lease": 1, "paused": 1,
    "steps.id": 1, "steps.status": 1, "cursor": 1, "attempt": 1, "recovery_count": 1, "rev": 1, "event_seq": 1,
    "events": {"$slice": -1},
}  # fmt: skip
PRIORITIES = {"$gte": -(2**31), "$lte": 2**31 - 1}


def advance_run(run_id: str, change: Change, mark: str) -> Write:
    """Carry out one transition of one run.

    Guard: the change's own; for a driver the lease token, revision, cursor and step, for others revision and status.
    Index: _id.
    """
    return Write(
        "advance_run", {"_id": run_id, **compile_guard(change)}, compile_update(change, mark), mark, change.weight
    )


def beat_leases(run_ids: Sequence[str], tokens: Sequence[str], until: datetime) -> WriteMany:
    """Extend every lease that a worker holds.

    Guard: the lease tokens; a run that was taken over has another.
    Index: _id.
    """
    held = {"_id": {"$in": list(run_ids)}, "lease.token": {"$in": list(tokens)}}
    # A late copy of an earlier beat must not move the lease back.
    return WriteMany("beat_leases", held, {"$max": {"lease.until": until}})


def claim_runs(run_ids: Sequence[str], change: Change) -> WriteMany:
    """Take runs that were found due or expired; the token in the lease tells afterwards which ones were won.

    Guard: everything that made them due, checked again.
    Index: _id.
    """
    return WriteMany("claim_runs", {"_id": {"$in": list(run_ids)}, **compile_guard(change)}, compile_update(change))


def count_due(now: datetime) -> Aggregate:
    """Count the runs that are due and that nobody has taken, by route, and tell since when the first is.

    Index: runs_due.
    """
    query = {"route": {"$gt": ""}, "priority": PRIORITIES, "due_at": {"$gt": EPOCH, "$lte": now}}
    return Aggregate("count_due", query, [_counted("$route", oldest="$due_at")])


def count_expired(before: datetime) -> Aggregate:
    """Count the runs whose lease was over by an instant, by route.

    Index: runs_lease.
    """
    query = {"route": {"$gt": ""}, "lease.until": {"$gt": EPOCH, "$lte": before}}
    return Aggregate("count_expired", query, [_counted({"route": "$route"})])


def count_failure(name: str, error: str, now: datetime) -> WriteMany:
    """Count a failed delivery to a webhook endpoint.

    Guard: none; where the answer was unclear, one failure may count twice.
    Index: _id.
    """
    told = {"$set": {"webhook.last_error": error}, "$min": {"webhook.failing_since": now}}
    return WriteMany("count_failure", {"_id": name}, {"$inc": {"webhook.failures": 1}, **told}, "subscribers")


def count_leases(now: datetime) -> Aggregate:
    """Count the runs that are driven, by worker.

    Index: runs_lease.
    """
    query = {"route": {"$gt": ""}, "lease.until": {"$gt": now}}
    return Aggregate("count_leases", query, [_counted("$lease.worker")])


def count_overdue(before: datetime) -> Aggregate:
    """Count the runs that were due by an instant and that nobody has taken, by route and priority.

    Index: runs_due.
    """
    query = {"route": {"$gt": ""}, "priority": PRIORITIES, "due_at": {"$gt": EPOCH, "$lte": before}}
    return Aggregate("count_overdue", query, [_counted({"route": "$route", "priority": "$priority"})])


def count_queued() -> Aggregate:
    """Count the runs that wait in line, by slot key, and tell since when the first does.

    Index: runs_queue.
    """
    query = {"slot_key": {"$gt": ""}, "queued_at": {"$gt": EPOCH}}
    return Aggregate("count_queued", query, [_counted("$slot_key", oldest="$queued_at")])


def count_routes() -> Aggregate:
    """Count the runs that have not ended, by workflow and version.

    Index: runs_live, which holds all that is read.
    """
    return Aggregate("count_routes", {"live": True}, [_counted("$route")], hint="runs_live")


def count_runs(query: Filter) -> Aggregate:
    """Count runs by status.

    Index: runs_page or runs_page_by_workflow where the filter names a tenant or workflow; where it names statuses of
    runs that have an error runs_failed, of runs that have not ended runs_live; else a collection scan.
    """
    return Aggregate("count_runs", query, [{"$group": {"_id": "$status", "n": {"$sum": 1}}}])


def count_slots() -> Aggregate:
    """Count the slots that are taken, by slot key.

    Index: runs_slots.
    """
    return Aggregate("count_slots", {"slot_key": {"$gt": ""}, "slot": {"$gte": 0}}, [_counted("$slot_key")])


def count_workflows() -> Aggregate:
    """Count runs by workflow and status.

    Index: runs_page where the filter names a tenant, else a collection scan.
    """
    return Aggregate("count_workflows", {}, [_counted({"workflow": "$workflow", "status": "$status"})])


def find_active_child(parent_id: str, born: str | None, fan: str) -> Find:
    """Find one child of a fan that has not ended.

    Index: runs_children.
    """
    query = {"parent.run_id": parent_id, "parent.fan": fan, "status": {"$in": sorted(ACTIVE)}, "parent.born": born}
    return Find("find_active_child", query, projection={"_id": 1}, limit=1, hint="runs_children")


def find_addressed(workflow: str, match: Filter, limit: int) -> Find:
    """Find active runs of a workflow that fit a filter, of each version the largest ids first.

    Index: runs_live.
    """
    of_workflow = {"live": True, "route": {"$gt": f"{workflow}@", "$lt": f"{workflow}A"}}  # "A" comes after "@"
    return Find(
        "find_addressed",
        {"$and": [of_workflow, match]},
        projection={"_id": 1},
        sort=(("route", -1), ("_id", -1)),
        limit=limit,
        hint="runs_live",
    )


def find_children(parent_id: str, born: str | None, fan: str | None = None, *, active: bool = False) -> Find:
    """Read the children of a run, or of one of its fans, or those of them that have not ended.

    Its birth tells the run from others that had its id.

    Index: runs_children.
    """
    query: dict[str, Any] = {"parent.run_id": parent_id, "parent.born": born}
    query |= {} if fan is None else {"parent.fan": fan}
    query |= {"status": {"$in": sorted(ACTIVE)}} if active else {}
    return Find("find_children", query, projection=_CHILD, hint="runs_children")


def find_claimed(run_ids: Sequence[str], token: str) -> Find:
    """Read back the runs that a claim has won.

    Index: _id.
    """
    return Find("find_claimed", {"_id": {"$in": list(run_ids)}, "lease.token": token})


def find_draft(debounce_key: str) -> Find:
    """Find the draft that starts under a key change and put off.

    Index: runs_debounce.
    """
    return Find("find_draft", {"debounce_key": debounce_key}, projection=_SEEN, limit=1, hint="runs_debounce")


def find_due(routes: Sequence[str], now: datetime, limit: int) -> Find:
    """Find due runs of the given routes, larger priority first, then older.

    Index: runs_due. The range of priorities lets the scan skip, within each priority, everything that is not due yet.
    """
    wanted = compile_guard(take_due(routes, now, {}, by=now)) | {"status": {"$in": [*CLAIMABLE, "compensating"]}}
    return Find(
        "find_due",
        {**wanted, "priority": PRIORITIES, "due_at": {"$gt": EPOCH, "$lte": now}},
        projection={"_id": 1, "status": 1, "due_at": 1, "gated": 1, "admitted_at": 1},
        sort=(("priority", -1), ("due_at", 1)),
        limit=limit,
        hint="runs_due",
    )


def find_ended(
    workflow: str | None, statuses: Sequence[str], before: datetime, after: tuple[datetime, str] | None, limit: int
) -> Find:
    """Read of ended runs that were created before an instant whether they can be removed, the oldest first.

    Index: runs_page, or runs_page_by_workflow where a workflow is named.
    """
    query: dict[str, Any] = {} if workflow is None else {"workflow": workflow}
    query |= {"status": {"$in": list(statuses)}, "created_at": {"$lt": before}}
    if after is not None:
        at, run_id = after
        query["created_at"] = {"$gte": at, "$lt": before}
        query["$or"] = [{"created_at": {"$gt": at}}, {"_id": {"$gt": run_id}}]
    order = (("created_at", 1), ("_id", 1))
    return Find("find_ended", query, {**REMOVABLE, "created_at": 1}, sort=order, limit=limit)


def find_expired(routes: Sequence[str], now: datetime, limit: int) -> Find:
    """Find runs of the given routes whose lease has run out, the oldest first.

    Index: runs_lease.
    """
    wanted = compile_guard(take_expired(routes, now, {}))
    return Find(
        "find_expired",
        {**wanted, "lease.until": {"$gt": EPOCH, "$lte": now}},
        projection={"_id": 1},
        sort=(("lease.until", 1),),
        limit=limit,
        hint="runs_lease",
    )


def find_fitting(run_id: str, match: Filter) -> Find:
    """Find a run if it fits a filter.

    Index: _id.
    """
    return Find("find_fitting", {"_id": run_id, "$and": [match]}, projection={"_id": 1}, limit=1)


def find_gated(run_ids: Sequence[str]) -> Find:
    """Read what decides about runs that are to be admitted.

    Index: _id.
    """
    return Find("find_gated", {"_id": {"$in": list(run_ids)}}, projection=_SEEN)


def find_hook(hashed: str) -> Find:
    """Find the run that a hook's token opens, by the hash of the token.

    Index: runs_hooks.
    """
    return Find("find_hook", {"hooks": hashed}, limit=1)


def find_keeper(tenant_id: str | None, workflow: str, key: str) -> Find:
    """Read the run that keeps an idempotency key for ever.

    Index: runs_kept_key.
    """
    query = {"tenant_id": tenant_id, "workflow": workflow, "kept_key": key}
    return Find("find_keeper", query, projection={"_id": 1, "input": 1}, limit=1)


def find_leases(run_ids: Sequence[str]) -> Find:
    """Read which lease tokens the given runs hold now.

    Index: _id.
    """
    return Find("find_leases", {"_id": {"$in": list(run_ids)}}, projection={"lease.token": 1})


def find_listeners(name: str, match: Filter | None, created_by: datetime, after: str, limit: int) -> Find:
    """Find runs that an event concerns now: they wait for it or are cancelled by it, and fit its filter.

    Index: runs_listens.
    """
    query: dict[str, Any] = {"listens": name, "_id": {"$gt": after}, "created_at": {"$lte": created_by}}
    return Find(
        "find_listeners",
        query if match is None else {**query, "$and": [match]},
        projection={"created_at": 1, "heard": 1, "passed": 1, "tenant_id": 1},
        sort=(("_id", 1),),
        limit=limit,
    )


def find_lost(routes: Sequence[str], before: datetime, limit: int) -> Find:
    """Read of runs whose lease was over by an instant why nobody takes them, the oldest first, damaged ones, too.

    Index: runs_lease, in whose order they come, route by route.
    """
    query = {"route": {"$in": list(routes)}, "lease.until": {"$gt": EPOCH, "$lte": before}}
    return Find("find_lost", query, _STUCK, sort=(("lease.until", 1),), limit=limit, hint="runs_lease")


def find_marked(limit: int) -> Find:
    """Find runs that have events which the log has not, with these events, the oldest first.

    Index: runs_outbox.
    """
    query = {"outbox_at": {"$gt": EPOCH}}
    return Find("find_marked", query, _OUTBOX, sort=(("outbox_at", 1),), limit=limit, hint="runs_outbox")


def find_marks(run_ids: Sequence[str]) -> Find:
    """Read whose insert the given runs come from, and whose write they show last.

    Index: _id.
    """
    return Find("find_marks", {"_id": {"$in": list(run_ids)}}, projection={"mark": 1, "born": 1})


def find_next_due(routes: Sequence[str], now: datetime, until: datetime) -> Find:
    """Find the first instant within a horizon at which a run of the given routes falls due.

    Index: runs_due.
    """
    return Find(
        "find_next_due",
        {"route": {"$in": list(routes)}, "priority": PRIORITIES, "due_at": {"$gt": now, "$lte": until}},
        projection={"_id": 0, "due_at": 1},
        sort=(("due_at", 1),),
        limit=1,
        hint="runs_due",
    )


def find_offspring(parents: Mapping[str, str | None]) -> Find:
    """Read of the children of runs, which are given with what tells their births, what decides about their removal.

    Index: runs_children.
    """
    query = {"parent.run_id": {"$in": list(parents)}, "parent.born": {"$in": list(parents.values())}}
    return Find("find_offspring", query, projection=REMOVABLE, hint="runs_children")


def find_overdue(routes: Sequence[str], priorities: Sequence[int], before: datetime, limit: int) -> Find:
    """Read of runs that were due by an instant why nobody takes them, the oldest first, damaged ones, too.

    Index: runs_due, in whose order they come, one route and priority after the other.
    """
    query = {"route": {"$in": list(routes)}, "priority": {"$in": list(priorities)}}
    query |= {"due_at": {"$gt": EPOCH, "$lte": before}}
    return Find("find_overdue", query, _STUCK, sort=(("due_at", 1),), limit=limit, hint="runs_due")


def find_owing(before: datetime, limit: int) -> Find:
    """Find runs that have owed something to others for a while, the oldest first.

    Index: runs_owing.
    """
    return Find(
        "find_owing",
        {"owes_at": {"$gt": EPOCH, "$lte": before}},
        sort=(("owes_at", 1),),
        limit=limit,
        hint="runs_owing",
    )


def find_page(query: Filter, sort: Sort, limit: int, fields: Sequence[str] = (), hint: str | None = None) -> Find:
    """Read one page of runs, or of the named fields of them.

    Index: runs_page, or runs_page_by_workflow where the filter names a workflow; where it names statuses of runs that
    have an error runs_failed; of runs that have not ended runs_live where these are few.
    """
    return Find("find_page", query, dict.fromkeys(fields, 1) or None, sort=sort, limit=limit, hint=hint)


def find_paused(before: datetime, limit: int) -> Find:
    """Read of runs that an operator has held since an instant or longer, the oldest first.

    Index: runs_paused.
    """
    query = {"paused.at": {"$gt": EPOCH, "$lte": before}}
    return Find("find_paused", query, _STUCK, sort=(("paused.at", 1),), limit=limit)


def find_queue(after: str) -> Find:
    """Find the next slot key, in their order, for which a run waits in line.

    Index: runs_queue.
    """
    query = {"slot_key": {"$gt": after}, "queued_at": {"$gt": EPOCH}}
    return Find("find_queue", query, projection={"slot_key": 1}, sort=(("slot_key", 1),), limit=1, hint="runs_queue")


def find_queued(slot_key: str, limit: int, without: Sequence[str] = ()) -> Find:
    """Find the runs that wait in line for a slot, larger priority first, then older; `without` those so throttled.

    Index: runs_queue.
    """
    query: dict[str, Any] = {"slot_key": slot_key, "queued_at": {"$gt": EPOCH}, "paused": None}
    query |= {"throttle_key": {"$nin": list(without)}} if without else {}
    return Find(
        "find_queued",
        query,
        projection=_SEEN,
        sort=(("priority", -1), ("created_at", 1), ("_id", 1)),
        limit=limit,
        hint="runs_queue",
    )


def find_route(route: str, after: str, limit: int) -> Find:
    """Read the next runs of a route that have not ended, in the order of their ids.

    Index: runs_live.
    """
    query = {"route": route, "_id": {"$gt": after}, "live": True}
    return Find("find_route", query, sort=(("_id", 1),), limit=limit, hint="runs_live")


def find_run(run_id: str, projection: Mapping[str, Any] | None = None) -> Find:
    """Read one run.

    Index: _id.
    """
    return Find("find_run", {"_id": run_id}, projection=projection, limit=1)


def find_runs_after(run_id: str, limit: int) -> Find:
    """Read when runs were written last, in the order of their ids.

    Index: _id.
    """
    return Find("find_runs_after", {"_id": {"$gt": run_id}}, {"updated_at": 1}, sort=(("_id", 1),), limit=limit)


def find_slots(slot_key: str) -> Find:
    """Read which slots of a key are taken.

    Index: runs_slots, which answers alone.
    """
    query = {"slot_key": slot_key, "slot": {"$gte": 0}}
    return Find("find_slots", query, projection={"_id": 0, "slot": 1}, hint="runs_slots")


def find_tenants() -> Aggregate:
    """Find the tenants that have runs, with one look at the index for each.

    Index: runs_page, which answers alone.
    """
    return Aggregate("find_tenants", {}, [{"$group": {"_id": "$tenant_id"}}])


def find_unlogged(run_id: str) -> Find:
    """Read one run as the relay does: with those of its events that the log has not.

    Index: _id.
    """
    return Find("find_unlogged", {"_id": run_id}, _OUTBOX, limit=1)


def find_waiting(query: Filter, limit: int) -> Find:
    """Find runs that wait for somebody, the oldest wait first.

    Index: runs_waiting.
    """
    wanted = {**query, "waiting_since": {"$gt": EPOCH}}
    return Find("find_waiting", wanted, sort=(("waiting_since", 1),), limit=limit)


def find_webhooks() -> Find:
    """Read the endpoints of webhooks, by tenant and name.

    Index: subscribers_webhooks.
    """
    query = {"webhook.id": {"$gt": ""}}
    order = (("tenant_id", 1), ("webhook.id", 1))
    return Find("find_webhooks", query, sort=order, hint="subscribers_webhooks", collection="subscribers")


def find_winner(tenant_id: str | None, workflow: str, key: str) -> Find:
    """Read the active run that holds an idempotency key.

    Index: runs_active_key.
    """
    query = {"tenant_id": tenant_id, "workflow": workflow, "active_key": key}
    return Find("find_winner", query, limit=1)


def insert_run(document: Document, mark: str, weight: int) -> Insert:
    """Store a new run, queued or already claimed.

    Guard: its id; its idempotency key among the active runs of its tenant and workflow, or among those that keep one;
    its slot; the key of a draft.
    Index: _id, runs_active_key, runs_kept_key, runs_slots, runs_debounce.
    """
    return Insert("insert_run", {**document, "born": mark}, weight)


def mark_runs(run_ids: Sequence[str], now: datetime) -> WriteMany:
    """Let the relay look at runs that were written by processes which did not know of the log yet.

    Guard: none; a mark too many costs one look.
    Index: _id.
    """
    return WriteMany("mark_runs", {"_id": {"$in": list(run_ids)}}, {"$min": {"outbox_at": now}})


def note_logged(notes: Sequence[Mapping[str, Any]]) -> WriteEach:
    """Record that the log has all events of runs, take their marks away, and let ended ones be removed in time.

    Guard: the number of the last event; for an ended run, the revision, too: a run that went on stays marked.
    Index: _id.
    """
    return WriteEach("note_logged", [_noted(note) for note in notes])


def note_relayed(notes: Sequence[Mapping[str, Any]]) -> WriteEach:
    """Record up to which event the log has runs that may have gone on.

    Guard: none; the larger number stands.
    Index: _id.
    """
    return WriteEach("note_relayed", [({"_id": note["run_id"]}, {"$max": {"relayed": note["seq"]}}) for note in notes])


def remove_ended(run_ids: Sequence[str], ended_by: datetime) -> Remove:
    """Remove runs of which there is nothing but themselves.

    Guard: that they have ended by an instant, and nothing has come about since that others wait for: a run that was
    begun anew has not ended, or later.
    Index: _id.
    """
    query: dict[str, Any] = {"_id": {"$in": list(run_ids)}, "status": {"$in": sorted(TERMINAL)}}
    query |= {"ended_at": {"$lte": ended_by}} | dict.fromkeys(("owes_at", "outbox_at", "spilled", "removed_at"))
    return Remove("remove_ended", query, "runs")


def remove_run(run: Mapping[str, Any]) -> Remove:
    """Remove a run that has ended, as it was read.

    Guard: its revision and status, and that it owes to others what it did then: it has not been begun anew.
    Index: _id.
    """
    seen = {name: {"$eq": run.get(name)} for name in ("status", "rev", "owes_at", "outbox_at", "removed_at")}
    return Remove("remove_run", {"_id": run["_id"], **seen}, "runs")


def _noted(note: Mapping[str, Any]) -> tuple[Filter, Mapping[str, Any]]:
    # Where there is nothing to write, nothing is written: it would be in the way of a transaction.
    seen = {"_id": note["run_id"], "event_seq": note["seq"], "outbox_at": {"$gt": EPOCH}}
    seen |= {"rev": note["rev"]} if "rev" in note else {}
    put = {"$set": note["put"]} if note.get("put") else {}
    return seen, {"$max": {"relayed": note["seq"]}, "$unset": {"outbox_at": ""}, **put}


def _counted(by: Any, oldest: str | None = None) -> dict[str, Any]:
    return {"$group": {"_id": by, "n": {"$sum": 1}, **({} if oldest is None else {"oldest": {"$min": oldest}})}}
