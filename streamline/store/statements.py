"""Every statement the engine sends about runs, as plain data: one function each, in alphabetical order.

A statement's docstring says what it does in one sentence, what guards it, and which index serves it. Nothing here is
awaited; `streamline.store.door.Store.run` sends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from streamline.domain.change import Change
from streamline.domain.statuses import ACTIVE, CLAIMABLE
from streamline.domain.transitions import gating
from streamline.domain.transitions.claiming import take_due, take_expired
from streamline.store.compile import compile_guard, compile_update
from streamline.store.operations import Aggregate, Document, Filter, Find, Insert, Keep, Remove, Sort, Write, WriteMany

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CHILD = {
    "workflow": 1, "version": 1, "status": 1, "output": 1, "error": 1, "ended_at": 1, "parent": 1, "steps.id": 1,
    "steps.status": 1, "tenant_id": 1,
}  # fmt: skip
_SEEN = dict.fromkeys(gating.SEEN, 1)
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


def change_gate(key: str, rev: int, put: Mapping[str, Any]) -> WriteMany:
    """Write the ledger of a gate.

    Guard: its revision, as it was read.
    Index: _id.
    """
    return WriteMany("change_gate", {"_id": key, "rev": rev}, {"$set": {**put, "rev": rev + 1}}, collection="gates")


def change_meta(name: str, put: Mapping[str, Any], drop: Sequence[str] = ()) -> WriteMany:
    """Change something that all processes of a deployment share.

    Guard: none; whoever comes last wins.
    Index: _id.
    """
    update: dict[str, Any] = {"$set": dict(put)} if put else {}
    if drop:
        update["$unset"] = dict.fromkeys(drop, "")
    return WriteMany("change_meta", {"_id": name}, update, collection="meta")


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


def count_leases(now: datetime) -> Aggregate:
    """Count the runs that are driven, by worker.

    Index: runs_lease.
    """
    query = {"route": {"$gt": ""}, "lease.until": {"$gt": now}}
    return Aggregate("count_leases", query, [_counted("$lease.worker")])


def count_queued() -> Aggregate:
    """Count the runs that wait in line, by slot key, and tell since when the first does.

    Index: runs_queue.
    """
    query = {"slot_key": {"$gt": ""}, "queued_at": {"$gt": EPOCH}}
    return Aggregate("count_queued", query, [_counted("$slot_key", oldest="$queued_at")])


def count_routes() -> Aggregate:
    """Count the runs that have not ended, by workflow and version.

    Index: runs_page where the filter names a tenant, else a collection scan.
    """
    by = {"workflow": "$workflow", "version": "$version"}
    return Aggregate("count_routes", {"status": {"$in": sorted(ACTIVE)}}, [_counted(by)])


def count_runs(query: Filter) -> Aggregate:
    """Count runs by status.

    Index: runs_page or runs_page_by_workflow where the filter names a tenant or workflow, else a collection scan.
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


def expire_memo(run_id: str, expire_at: datetime | None) -> WriteMany:
    """Let the spilled entries of a run go with it, or keep them where it goes on.

    Guard: none; whoever comes last has read the run last, or is followed by the sweep.
    Index: memo_run.
    """
    update = {"$unset": {"expire_at": ""}} if expire_at is None else {"$set": {"expire_at": expire_at}}
    return WriteMany("expire_memo", {"run_id": run_id}, update, collection="memo")


def find_active_child(parent_id: str, fan: str) -> Find:
    """Find one child of a fan that has not ended.

    Index: runs_children.
    """
    query = {"parent.run_id": parent_id, "parent.fan": fan, "status": {"$in": sorted(ACTIVE)}}
    return Find("find_active_child", query, projection={"_id": 1}, limit=1, hint="runs_children")


def find_children(parent_id: str, fan: str | None = None, *, active: bool = False) -> Find:
    """Read the children of a run, or of one of its fans, or those of them that have not ended.

    Index: runs_children.
    """
    query: dict[str, Any] = {"parent.run_id": parent_id}
    query |= {} if fan is None else {"parent.fan": fan}
    query |= {"status": {"$in": sorted(ACTIVE)}} if active else {}
    return Find("find_children", query, projection=_CHILD, hint="runs_children")


def find_claimed(run_ids: Sequence[str], token: str) -> Find:
    """Read back the runs that a claim has won.

    Index: _id.
    """
    return Find("find_claimed", {"_id": {"$in": list(run_ids)}, "lease.token": token})


def find_definitions() -> Find:
    """Read what the definitions of all versions were when they were first registered.

    Index: _id, in whose order they come.
    """
    return Find("find_definitions", {"_id": {"$gt": ""}}, sort=(("_id", 1),), collection="definitions")


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
        projection={"_id": 1, "status": 1, "gated": 1, "admitted_at": 1},
        sort=(("priority", -1), ("due_at", 1)),
        limit=limit,
        hint="runs_due",
    )


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


def find_gate(key: str) -> Find:
    """Read the ledger of a gate.

    Index: _id.
    """
    return Find("find_gate", {"_id": key}, limit=1, collection="gates")


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


def find_marks(run_ids: Sequence[str]) -> Find:
    """Read whose insert the given runs come from, and whose write they show last.

    Index: _id.
    """
    return Find("find_marks", {"_id": {"$in": list(run_ids)}}, projection={"mark": 1, "born": 1})


def find_memo(prefix: str) -> Find:
    """Read the spilled entries of the memo of one step.

    Index: memo_place.
    """
    return Find("find_memo", {"place": prefix}, collection="memo")


def find_meta(name: str) -> Find:
    """Read something that all processes of a deployment share.

    Index: _id.
    """
    return Find("find_meta", {"_id": name}, limit=1, collection="meta")


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


def find_page(query: Filter, sort: Sort, limit: int) -> Find:
    """Read one page of runs.

    Index: runs_page, or runs_page_by_workflow where the filter names a workflow.
    """
    return Find("find_page", query, sort=sort, limit=limit)


def find_queue(after: str) -> Find:
    """Find the next slot key, in their order, for which a run waits in line.

    Index: runs_queue.
    """
    query = {"slot_key": {"$gt": after}, "queued_at": {"$gt": EPOCH}}
    return Find("find_queue", query, projection={"slot_key": 1}, sort=(("slot_key", 1),), limit=1, hint="runs_queue")


def find_queued(slot_key: str, limit: int) -> Find:
    """Find the runs that wait in line for a slot, larger priority first, then older.

    Index: runs_queue.
    """
    return Find(
        "find_queued",
        {"slot_key": slot_key, "queued_at": {"$gt": EPOCH}, "paused": None},
        projection=_SEEN,
        sort=(("priority", -1), ("created_at", 1), ("_id", 1)),
        limit=limit,
        hint="runs_queue",
    )


def find_route(route: str, after: str, limit: int) -> Find:
    """Read the next runs of a route that have not ended, in the order of their ids.

    Index: _id; what lies between is looked through, once for a deploy.
    """
    query = {"_id": {"$gt": after}, "route": route, "status": {"$in": sorted(ACTIVE)}}
    return Find("find_route", query, sort=(("_id", 1),), limit=limit, hint="_id_")


def find_run(run_id: str, projection: Mapping[str, Any] | None = None) -> Find:
    """Read one run.

    Index: _id.
    """
    return Find("find_run", {"_id": run_id}, projection=projection, limit=1)


def find_slots(slot_key: str) -> Find:
    """Read which slots of a key are taken.

    Index: runs_slots, which answers alone.
    """
    query = {"slot_key": slot_key, "slot": {"$gte": 0}}
    return Find("find_slots", query, projection={"_id": 0, "slot": 1}, hint="runs_slots")


def find_waiting(query: Filter, limit: int) -> Find:
    """Find runs that wait for somebody, the oldest wait first.

    Index: runs_waiting.
    """
    wanted = {**query, "waiting_since": {"$gt": EPOCH}}
    return Find("find_waiting", wanted, sort=(("waiting_since", 1),), limit=limit)


def find_winner(tenant_id: str | None, workflow: str, key: str) -> Find:
    """Read the active run that holds an idempotency key.

    Index: runs_active_key.
    """
    query = {"tenant_id": tenant_id, "workflow": workflow, "active_key": key}
    return Find("find_winner", query, limit=1)


def find_workers(since: datetime) -> Find:
    """Read which workers live, and what they serve.

    Index: _id, in whose order they come.
    """
    query = {"_id": {"$gt": ""}, "seen_at": {"$gte": since}}
    return Find("find_workers", query, sort=(("_id", 1),), collection="workers")


def insert_definition(document: Document) -> Keep:
    """Store what a version's definition is, once.

    Guard: its id, the route.
    Index: _id.
    """
    return Keep("insert_definition", (document,), "definitions")


def insert_gate(document: Document) -> Keep:
    """Store the ledger of a gate where there is none.

    Guard: its id.
    Index: _id.
    """
    return Keep("insert_gate", (document,), "gates")


def insert_memo(documents: Sequence[Document]) -> Keep:
    """Store entries of a memo beside the run, each once.

    Guard: their ids; of two drivers that settle the same call the first wins, and both go by what is stored.
    Index: _id.
    """
    return Keep("insert_memo", documents, "memo")


def insert_meta(document: Document) -> Keep:
    """Store something that all processes of a deployment share, once.

    Guard: its id.
    Index: _id.
    """
    return Keep("insert_meta", (document,), "meta")


def insert_run(document: Document, mark: str, weight: int) -> Insert:
    """Store a new run, queued or already claimed.

    Guard: its id; its idempotency key among the active runs of its tenant and workflow, or among those that keep one;
    its slot; the key of a draft.
    Index: _id, runs_active_key, runs_kept_key, runs_slots, runs_debounce.
    """
    return Insert("insert_run", {**document, "born": mark}, weight)


def put_definition(route: str, put: Mapping[str, Any]) -> WriteMany:
    """Change what a version's definition is, in development.

    Guard: none; whoever comes last wins.
    Index: _id.
    """
    return WriteMany("put_definition", {"_id": route}, {"$set": dict(put)}, "definitions")


def put_worker(worker_id: str, put: Mapping[str, Any]) -> WriteMany:
    """Tell that a worker lives, and what it serves.

    Guard: none; only the worker itself writes it.
    Index: _id.
    """
    return WriteMany("put_worker", {"_id": worker_id}, {"$set": dict(put)}, "workers", upsert=True)


def remove_memo(run_id: str, until: datetime) -> Remove:
    """Remove the spilled entries of a run that has ended well.

    Guard: when they were stored; a run that was begun anew meanwhile keeps what it stores.
    Index: memo_run.
    """
    return Remove("remove_memo", {"run_id": run_id, "at": {"$lte": until}}, "memo")


def remove_worker(worker_id: str) -> Remove:
    """Tell that a worker has ended.

    Guard: its id.
    Index: _id.
    """
    return Remove("remove_worker", {"_id": worker_id}, "workers")


def _counted(by: Any, oldest: str | None = None) -> dict[str, Any]:
    return {"$group": {"_id": by, "n": {"$sum": 1}, **({} if oldest is None else {"oldest": {"$min": oldest}})}}
