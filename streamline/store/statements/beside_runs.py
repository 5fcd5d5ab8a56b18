"""Every statement about what lies beside the runs, in alphabetical order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from streamline.store.operations import (
    Collection,
    Document,
    Extend,
    Filter,
    Find,
    Keep,
    Remove,
    WriteMany,
)
from streamline.store.statements.about_runs import EPOCH

FAILURES_KEPT = 20


def append_log(entries: Sequence[Document]) -> Extend:
    """Add entries to the log, in order, at the positions that are their ids.

    Guard: their positions, and the run and number of each event; whoever comes second is refused.
    Index: _id, log_run.
    """
    return Extend("append_log", entries, "log")


def change_gate(key: str, rev: int, put: Mapping[str, Any]) -> WriteMany:
    """Write the ledger of a gate.

    Guard: its revision, as it was read.
    Index: _id.
    """
    return WriteMany("change_gate", {"_id": key, "rev": rev}, {"$set": {**put, "rev": rev + 1}}, collection="gates")


def change_meta(
    name: str, put: Mapping[str, Any], drop: Sequence[str] = (), collection: Collection = "meta"
) -> WriteMany:
    """Change something that all processes of a deployment share.

    Guard: none; whoever comes last wins.
    Index: _id.
    """
    update: dict[str, Any] = {"$set": dict(put)} if put else {}
    if drop:
        update["$unset"] = dict.fromkeys(drop, "")
    return WriteMany("change_meta", {"_id": name}, update, collection)


def change_schedule(schedule: str, mark: str | None, put: Mapping[str, Any]) -> WriteMany:
    """Change a schedule.

    Guard: the mark that its last write left, as it was read; this one leaves another.
    Index: _id.
    """
    return WriteMany("change_schedule", {"_id": schedule, "mark": mark}, {"$set": dict(put)}, collection="schedules")


def disable_webhook(
    name: str, reason: str | None, now: datetime, failed: int = 0, since: datetime | None = None
) -> WriteMany:
    """Disable a webhook endpoint; whoever delivers to it loses the lease, and what is not settled stays.

    Guard: that it is enabled; and that so many deliveries have failed since that instant, if that is why.
    Index: _id.
    """
    update = {"$set": {"disabled_at": now, "webhook.disabled_reason": reason}, "$unset": {"lease": ""}}
    failing = {"webhook.failures": {"$gte": failed}} | ({"webhook.failing_since": {"$lte": since}} if since else {})
    return WriteMany("disable_webhook", {"_id": name, "disabled_at": None, **failing}, update, "subscribers")


def discard_dead(name: str, positions: Sequence[int] | None = None) -> Remove:
    """Remove dead letters of a subscriber: those of the given positions, or all.

    Guard: none; one that is gone stays gone.
    Index: subscribers_dead.
    """
    query = {"of": name, "position": {"$gt": 0} if positions is None else {"$in": list(positions)}}
    return Remove("discard_dead", query, "subscribers")


def enable_webhook(name: str, put: Mapping[str, Any], drop: Sequence[str], now: datetime) -> WriteMany:
    """Enable a webhook endpoint again where it stopped; what it holds back is tried at once.

    Guard: that it is disabled, so that nobody drives it.
    Index: _id.
    """
    update = {"$set": {**put, "held.$[].due_at": now}, "$unset": dict.fromkeys(("disabled_at", *drop), "")}
    return WriteMany("enable_webhook", {"_id": name, "disabled_at": {"$gt": EPOCH}}, update, "subscribers")


def expire_memo(run_id: str, born: str | None, expire_at: datetime | None) -> WriteMany:
    """Let the spilled entries of a run go with it, or keep them where it goes on.

    Guard: the run's birth; whoever comes last has read the run last, or is followed by the sweep.
    Index: memo_run.
    """
    update = {"$unset": {"expire_at": ""}} if expire_at is None else {"$set": {"expire_at": expire_at}}
    return WriteMany("expire_memo", {"run_id": run_id, "born": born}, update, collection="memo")


def find_asked_again(name: str, limit: int) -> Find:
    """Read the dead letters of a subscriber that are to be tried again, in order.

    Index: subscribers_again.
    """
    return Find("find_asked_again", {"again": name}, sort=(("position", 1),), limit=limit, collection="subscribers")


def find_dead(name: str, limit: int) -> Find:
    """Read the dead letters of a subscriber in order.

    Index: subscribers_dead.
    """
    return Find("find_dead", {"of": name}, sort=(("position", 1),), limit=limit, collection="subscribers")


def find_definitions() -> Find:
    """Read what the definitions of all versions were when they were first registered.

    Index: _id, in whose order they come.
    """
    return Find("find_definitions", {"_id": {"$gt": ""}}, sort=(("_id", 1),), collection="definitions")


def find_due_schedules(workflows: Sequence[str], now: datetime, limit: int) -> Find:
    """Find the schedules of the given workflows about which something is to be decided or done, the earliest first.

    Index: schedules_due.
    """
    return Find(
        "find_due_schedules",
        {"workflow": {"$in": list(workflows)}, "due_at": {"$gt": EPOCH, "$lte": now}},
        sort=(("due_at", 1),),
        limit=limit,
        hint="schedules_due",
        collection="schedules",
    )


def find_events(
    name: str,
    since: datetime,
    early: datetime,
    *,
    behind: tuple[datetime, str] | None,
    before: tuple[datetime, str] | None,
    heard: Sequence[str],
    limit: int,
) -> Find:
    """Find kept events of a name in the order of arrival: those that came since an instant, or early for nobody.

    Index: inbox_name.
    """
    place: list[Filter] = [{"at": {"$gte": min(since, early)}}, {"$or": [{"at": {"$gte": since}}, {"reached": 0}]}]
    if behind is not None:
        at, event_id = behind
        place += [{"at": {"$gte": at}}, {"$or": [{"at": {"$gt": at}}, {"at": at, "_id": {"$gt": event_id}}]}]
    if before is not None:
        at, event_id = before
        place += [{"at": {"$lte": at}}, {"$or": [{"at": {"$lt": at}}, {"at": at, "_id": {"$lt": event_id}}]}]
    if heard:
        place.append({"_id": {"$nin": list(heard)}})
    query = {"name": name, "$and": place}
    return Find("find_events", query, sort=(("at", 1), ("_id", 1)), limit=limit, collection="inbox")


def find_gate(key: str) -> Find:
    """Read the ledger of a gate.

    Index: _id.
    """
    return Find("find_gate", {"_id": key}, limit=1, collection="gates")


def find_log(after: int, limit: int) -> Find:
    """Read on in the log after a position.

    Index: _id.
    """
    return Find("find_log", {"_id": {"$gt": after}}, sort=(("_id", 1),), limit=limit, collection="log")


def find_log_of_run(run_id: str, after: int, until: int, limit: int) -> Find:
    """Read the entries of one run whose number is larger than `after`, up to a position of the log.

    Index: log_run.
    """
    query = {"run_id": run_id, "seq": {"$gt": after}, "_id": {"$lte": until}}
    return Find("find_log_of_run", query, sort=(("seq", 1),), limit=limit, hint="log_run", collection="log")


def find_log_since(instant: datetime) -> Find:
    """Find the first entry of the log that was added at an instant or later.

    Index: log_time.
    """
    return Find(
        "find_log_since",
        {"logged_at": {"$gte": instant}},
        projection={"_id": 1},
        sort=(("logged_at", 1), ("_id", 1)),
        limit=1,
        collection="log",
    )


def find_log_tail() -> Find:
    """Find the last position of the log.

    Index: _id.
    """
    return Find("find_log_tail", {"_id": {"$gt": 0}}, {"_id": 1}, sort=(("_id", -1),), limit=1, collection="log")


def find_memo(prefix: str) -> Find:
    """Read the spilled entries of the memo of one step.

    Index: memo_place.
    """
    return Find("find_memo", {"place": prefix}, collection="memo")


def find_memo_owners(after: str, limit: int) -> Find:
    """Read which runs, by id and birth, memos have spilled entries of, in the order of ids; a run once for each.

    Index: memo_run, which answers alone.
    """
    query, order = {"run_id": {"$gt": after}}, (("run_id", 1),)
    shown = {"_id": 0, "run_id": 1, "born": 1}
    return Find("find_memo_owners", query, shown, sort=order, limit=limit, hint="memo_run", collection="memo")


def find_meta(name: str, collection: Collection = "meta") -> Find:
    """Read something that all processes of a deployment share.

    Index: _id.
    """
    return Find("find_meta", {"_id": name}, limit=1, collection=collection)


def find_next_schedule(workflows: Sequence[str]) -> Find:
    """Find the first instant at which a schedule of the given workflows is to be looked at.

    Index: schedules_due.
    """
    return Find(
        "find_next_schedule",
        {"workflow": {"$in": list(workflows)}, "due_at": {"$gt": EPOCH}},
        projection={"_id": 0, "due_at": 1},
        sort=(("due_at", 1),),
        limit=1,
        hint="schedules_due",
        collection="schedules",
    )


def find_owed_events(before: datetime, limit: int) -> Find:
    """Find events that have been on their way to runs for a while, the oldest first.

    Index: inbox_owed.
    """
    query = {"owed_at": {"$gt": EPOCH, "$lte": before}}
    return Find("find_owed_events", query, sort=(("owed_at", 1),), limit=limit, collection="inbox")


def find_schedules(query: Filter, after: str, limit: int) -> Find:
    """Read one page of schedules, in the order of their names.

    Index: schedules_page.
    """
    wanted = {**query, "_id": {"$gt": after}}
    return Find("find_schedules", wanted, sort=(("_id", 1),), limit=limit, collection="schedules")


def find_triggered(workflows: Sequence[str], limit: int) -> Find:
    """Find events that have yet to start a run of one of the workflows.

    Index: inbox_triggers.
    """
    return Find("find_triggered", {"triggers": {"$in": list(workflows)}}, limit=limit, collection="inbox")


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


def insert_event(document: Document) -> Keep:
    """Store an event, once.

    Guard: its id; what a handler emits has the same one however often it is entered.
    Index: _id.
    """
    return Keep("insert_event", (document,), "inbox")


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


def insert_meta(document: Document, collection: Collection = "meta") -> Keep:
    """Store something that all processes of a deployment share, once.

    Guard: its id.
    Index: _id.
    """
    return Keep("insert_meta", (document,), collection)


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


def release_lease(name: str, token: str, collection: Collection) -> WriteMany:
    """Let others have what only one process does at a time.

    Guard: the lease's token.
    Index: _id.
    """
    return WriteMany("release_lease", {"_id": name, "lease.token": token}, {"$unset": {"lease": ""}}, collection)


def remove_log(until: int) -> Remove:
    """Remove the log's entries up to a position.

    Guard: none; positions are never given again.
    Index: _id.
    """
    return Remove("remove_log", {"_id": {"$lte": until}}, "log")


def remove_memo(run_id: str, born: str | None, until: datetime) -> Remove:
    """Remove the spilled entries of a run that has ended well.

    Guard: when they were stored, and the run's birth: a run that was begun anew meanwhile keeps what it stores, and so
    does another one that has the id now.
    Index: memo_run.
    """
    return Remove("remove_memo", {"run_id": run_id, "at": {"$lte": until}, "born": born}, "memo")


def remove_schedule(schedule: str) -> Remove:
    """Remove a schedule; its runs stay.

    Guard: its id.
    Index: _id.
    """
    return Remove("remove_schedule", {"_id": schedule}, "schedules")


def remove_subscriber(name: str) -> Remove:
    """Remove a subscriber.

    Guard: none; what is gone stays gone.
    Index: _id.
    """
    return Remove("remove_subscriber", {"_id": name}, "subscribers")


def remove_worker(worker_id: str) -> Remove:
    """Tell that a worker has ended.

    Guard: its id.
    Index: _id.
    """
    return Remove("remove_worker", {"_id": worker_id}, "workers")


def retry_dead(name: str, positions: Sequence[int] | None) -> WriteMany:
    """Let dead letters of a subscriber be tried again: those of the given positions, or all.

    Guard: none; asked twice, it is tried once.
    Index: subscribers_dead.
    """
    query = {"of": name, "position": {"$gt": 0} if positions is None else {"$in": list(positions)}}
    return WriteMany("retry_dead", query, {"$set": {"again": name}}, "subscribers")


def rotate_secret(name: str, former: str, secrets: Sequence[Mapping[str, Any]], now: datetime) -> WriteMany:
    """Let the webhooks of an endpoint be signed with other secrets.

    Guard: the newest secret so far.
    Index: _id.
    """
    update = {"$set": {"webhook.secrets": list(secrets), "webhook.updated_at": now}}
    return WriteMany("rotate_secret", {"_id": name, "webhook.secrets.0.secret": former}, update, "subscribers")


def save_subscriber(name: str, token: str, saves: int, put: Mapping[str, Any], until: datetime) -> WriteMany:
    """Store how far a subscriber is and which runs it holds back, and extend its lease.

    Guard: the lease's token, and the number of the save before.
    Index: _id.
    """
    update = {"$set": {**put, "saves": saves + 1}, "$max": {"lease.until": until}}
    return WriteMany("save_subscriber", {"_id": name, "lease.token": token, "saves": saves}, update, "subscribers")


def settle_dead(identity: str, put: Mapping[str, Any]) -> WriteMany:
    """Record that a dead letter was tried again in vain.

    Guard: that it is still to be tried.
    Index: _id.
    """
    query = {"_id": identity, "again": {"$gt": ""}}
    return WriteMany("settle_dead", query, {"$set": dict(put), "$unset": {"again": ""}}, "subscribers")


def settle_event(event_id: str, reached: int) -> WriteMany:
    """Note that an event was brought to every run that it concerned, and how many it reached.

    Guard: that it is still owed.
    Index: _id.
    """
    update = {"$inc": {"reached": reached}, "$unset": {"owed_at": ""}}
    return WriteMany("settle_event", {"_id": event_id, "owed_at": {"$gt": EPOCH}}, update, collection="inbox")


def settle_trigger(event_id: str, workflow: str, failure: Mapping[str, Any] | None, *, reached: int) -> WriteMany:
    """Note that an event has started a run of a workflow, or why it cannot.

    Guard: that the workflow has yet to be started by it.
    Index: _id.
    """
    update: dict[str, Any] = {"$pull": {"triggers": workflow}, "$inc": {"reached": reached}}
    if failure is not None:
        update["$push"] = {"failures": {"$each": [dict(failure)], "$slice": -FAILURES_KEPT}}
    return WriteMany("settle_trigger", {"_id": event_id, "triggers": workflow}, update, collection="inbox")


def take_lease(name: str, lease: Mapping[str, Any], now: datetime, collection: Collection) -> WriteMany:
    """Take, or keep, what only one process does at a time.

    Guard: that nobody else's lease stands, and that it is not disabled.
    Index: _id.
    """
    free = [{"lease.until": {"$not": {"$gt": now}}}, {"lease.token": lease["token"]}]
    return WriteMany(
        "take_lease", {"_id": name, "disabled_at": None, "$or": free}, {"$set": {"lease": dict(lease)}}, collection
    )
