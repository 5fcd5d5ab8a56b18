"""The indexes on runs, each with the statements it serves.

Filters of partial indexes use ``$gt``, because the planner proves that from a query's own range; ``$type`` and
``$exists`` would leave the index unused or refuse it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pymongo.errors import OperationFailure

from streamline.errors import IndexConflict
from streamline.store.driver import Driver
from streamline.store.index_check import IndexIssue, find_duplicates, issues_of
from streamline.store.operations import Collection
from streamline.store.statements.about_runs import EPOCH

_CONFLICTS = (85, 86)
_DUPLICATES = 11000


@dataclass(frozen=True, slots=True)
class Index:
    """One index and the statements that need it."""

    name: str
    keys: tuple[tuple[str, int], ...]
    serves: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def specification(self) -> dict[str, Any]:
        """Return the index as ``createIndexes`` takes it."""
        return {"name": self.name, "key": dict(self.keys), **self.options}


RUN_INDEXES = (
    Index(
        "runs_active_key",
        (("tenant_id", 1), ("workflow", 1), ("active_key", 1)),
        ("find_winner", "insert_run"),
        {"unique": True, "partialFilterExpression": {"active_key": {"$gt": ""}}},
    ),
    Index(
        "runs_children",
        (("parent.run_id", 1), ("parent.fan", 1), ("status", 1)),
        ("find_active_child", "find_children", "find_offspring"),
        {"partialFilterExpression": {"parent.run_id": {"$gt": ""}}},
    ),
    Index(
        "runs_debounce",
        (("debounce_key", 1),),
        ("find_draft", "insert_run"),
        {"unique": True, "partialFilterExpression": {"debounce_key": {"$gt": ""}}},
    ),
    Index(
        "runs_due",
        (("route", 1), ("priority", -1), ("due_at", 1)),
        ("count_due", "count_overdue", "find_due", "find_next_due", "find_overdue"),
        {"partialFilterExpression": {"due_at": {"$gt": EPOCH}}},
    ),
    Index(
        "runs_expire",
        (("expire_at", 1),),
        ("the server's own removal of runs whose time is over",),
        {"expireAfterSeconds": 0, "partialFilterExpression": {"expire_at": {"$gt": EPOCH}}},
    ),
    Index(
        "runs_failed",
        (("tenant_id", 1), ("created_at", -1), ("_id", -1)),
        ("find_page", "count_runs"),
        {"partialFilterExpression": {"error.code": {"$gt": ""}}},
    ),
    Index(
        "runs_hooks",
        (("hooks", 1),),
        ("find_hook",),
        {"partialFilterExpression": {"hooks": {"$gt": ""}}},
    ),
    Index(
        "runs_kept_key",
        (("tenant_id", 1), ("workflow", 1), ("kept_key", 1)),
        ("find_keeper", "insert_run"),
        {"unique": True, "partialFilterExpression": {"kept_key": {"$gt": ""}}},
    ),
    Index(
        "runs_lease",
        (("route", 1), ("lease.until", 1)),
        ("count_expired", "count_leases", "find_expired", "find_lost"),
        {"partialFilterExpression": {"lease.until": {"$gt": EPOCH}}},
    ),
    Index(
        "runs_listens",
        (("tenant_id", 1), ("listens", 1), ("_id", 1)),
        ("find_listeners",),
        {"partialFilterExpression": {"listens": {"$gt": ""}}},
    ),
    Index(
        "runs_live",
        (("live", 1), ("route", 1), ("_id", 1), ("tenant_id", 1)),
        ("count_routes", "count_runs", "find_addressed", "find_page", "find_route"),
        {"partialFilterExpression": {"live": True}},
    ),
    Index(
        "runs_owing",
        (("owes_at", 1),),
        ("find_owing",),
        {"partialFilterExpression": {"owes_at": {"$gt": EPOCH}}},
    ),
    Index(
        "runs_outbox",
        (("outbox_at", 1),),
        ("find_marked",),
        {"partialFilterExpression": {"outbox_at": {"$gt": EPOCH}}},
    ),
    Index(
        "runs_page",
        (("tenant_id", 1), ("created_at", -1), ("_id", -1)),
        ("count_runs", "find_ended", "find_page", "find_tenants"),
    ),
    Index(
        "runs_page_by_workflow",
        (("tenant_id", 1), ("workflow", 1), ("created_at", -1), ("_id", -1)),
        ("count_runs", "find_ended", "find_page"),
    ),
    Index(
        "runs_paused",
        (("paused.at", 1), ("tenant_id", 1)),
        ("find_paused",),
        {"partialFilterExpression": {"paused.at": {"$gt": EPOCH}}},
    ),
    Index(
        "runs_queue",
        (("slot_key", 1), ("priority", -1), ("created_at", 1), ("_id", 1), ("throttle_key", 1)),
        ("find_queue", "find_queued"),
        {"partialFilterExpression": {"queued_at": {"$gt": EPOCH}}},
    ),
    Index(
        "runs_slots",
        (("slot_key", 1), ("slot", 1)),
        ("find_slots", "insert_run"),
        {"unique": True, "partialFilterExpression": {"slot": {"$gte": 0}}},
    ),
    Index(
        "runs_waiting",
        (("tenant_id", 1), ("waiting_since", 1)),
        ("find_waiting",),
        {"partialFilterExpression": {"waiting_since": {"$gt": EPOCH}}},
    ),
)

MEMO_INDEXES = (
    Index("memo_place", (("place", 1),), ("find_memo",)),
    Index("memo_run", (("run_id", 1), ("born", 1)), ("expire_memo", "find_memo_owners", "remove_memo")),
    Index(
        "memo_expire",
        (("expire_at", 1),),
        ("the server's own removal of entries whose run is gone",),
        {"expireAfterSeconds": 0, "partialFilterExpression": {"expire_at": {"$gt": EPOCH}}},
    ),
)

LOG_INDEXES = (
    Index("log_run", (("run_id", 1), ("seq", 1), ("born", 1)), ("append_log", "find_log_of_run"), {"unique": True}),
    Index("log_time", (("logged_at", 1), ("_id", 1)), ("find_log_since",)),
)

SUBSCRIBER_INDEXES = (
    Index(
        "subscribers_again",
        (("again", 1), ("position", 1)),
        ("find_asked_again",),
        {"partialFilterExpression": {"again": {"$gt": ""}}},
    ),
    Index(
        "subscribers_dead",
        (("of", 1), ("position", 1)),
        ("discard_dead", "find_dead", "retry_dead"),
        {"partialFilterExpression": {"of": {"$gt": ""}}},
    ),
    Index(
        "subscribers_webhooks",
        (("tenant_id", 1), ("webhook.id", 1)),
        ("find_webhooks",),
        {"partialFilterExpression": {"webhook.id": {"$gt": ""}}},
    ),
)

INBOX_INDEXES = (
    Index("inbox_name", (("tenant_id", 1), ("name", 1), ("at", 1), ("_id", 1)), ("find_events",)),
    Index(
        "inbox_owed",
        (("owed_at", 1),),
        ("find_owed_events",),
        {"partialFilterExpression": {"owed_at": {"$gt": EPOCH}}},
    ),
    Index(
        "inbox_triggers",
        (("triggers", 1),),
        ("find_triggered",),
        {"partialFilterExpression": {"triggers": {"$gt": ""}}},
    ),
    Index(
        "inbox_expire",
        (("expire_at", 1),),
        ("the server's own removal of events whose time is over",),
        {"expireAfterSeconds": 0, "partialFilterExpression": {"expire_at": {"$gt": EPOCH}}},
    ),
)

GATE_INDEXES = (
    Index(
        "gates_expire",
        (("expire_at", 1),),
        ("the server's own removal of ledgers that say nothing any more",),
        {"expireAfterSeconds": 0},
    ),
)

SCHEDULE_INDEXES = (
    Index(
        "schedules_due",
        (("workflow", 1), ("due_at", 1)),
        ("find_due_schedules", "find_next_schedule"),
        {"partialFilterExpression": {"due_at": {"$gt": EPOCH}}},
    ),
    Index("schedules_page", (("tenant_id", 1), ("_id", 1)), ("find_schedules",)),
)

WORKER_INDEXES = (
    Index(
        "workers_expire",
        (("expire_at", 1),),
        ("the server's own removal of workers that have died",),
        {"expireAfterSeconds": 0},
    ),
)

INDEXES: dict[Collection, tuple[Index, ...]] = {
    "runs": RUN_INDEXES,
    "memo": MEMO_INDEXES,
    "gates": GATE_INDEXES,
    "log": LOG_INDEXES,
    "subscribers": SUBSCRIBER_INDEXES,
    "inbox": INBOX_INDEXES,
    "schedules": SCHEDULE_INDEXES,
    "workers": WORKER_INDEXES,
}


# What two documents must not share, by unique index.
_SHARED = {
    "runs_active_key": "an idempotency key",
    "runs_debounce": "the key of a draft",
    "runs_kept_key": "an idempotency key that is kept",
    "runs_slots": "a slot",
    "log_run": "the number of an event",
}


async def check_indexes(driver: Driver) -> list[IndexIssue]:
    """Return what is missing, different or unknown of the indexes; nothing is created."""
    found = []
    for collection, indexes in INDEXES.items():
        found += await issues_of(driver, collection, {index.name: index.specification() for index in indexes})
    return found


async def ensure_indexes(driver: Driver) -> None:
    """Create the indexes that are missing; safe to repeat, and to run from several processes at once.

    What is there is never dropped, nor built again, whichever release made it.

    Raises:
        IndexConflict: An index of the same name exists with another definition, or stored documents break a unique one.
    """
    for collection in INDEXES:
        await ensure_indexes_of(driver, collection)


async def ensure_indexes_of(driver: Driver, name: Collection) -> None:
    """Create the missing indexes of one collection, in one command."""
    collection, indexes = driver.named(name), INDEXES[name]
    try:
        await driver.build({"createIndexes": collection, "indexes": [index.specification() for index in indexes]})
    except OperationFailure as error:
        if error.code in (*_CONFLICTS, _DUPLICATES):
            said = await (_duplicated(driver, name) if error.code == _DUPLICATES else _different(driver, name))
            raise IndexConflict(f"indexes of {collection}: {said}", field="indexes") from error
        raise


async def _different(driver: Driver, name: Collection) -> str:
    wanted = {index.name: index.specification() for index in INDEXES[name]}
    found = [each for each in await issues_of(driver, name, wanted) if each.detail]
    named = "; ".join(f"{each.index}: {each.detail}" for each in found) or ", ".join(wanted)
    return (
        f"not as this release needs them: {named}. Where no process of another release needs the old one any more, "
        "drop it by hand, then create it with `python -m streamline indexes` or ensure_indexes()"
    )


async def _duplicated(driver: Driver, name: Collection) -> str:
    for index in (each for each in INDEXES[name] if each.options.get("unique")):
        if pairs := await find_duplicates(driver, name, index.specification()):
            told = ", ".join(f"{one} and {other}" for one, other in pairs)
            shared = _SHARED.get(index.name, "what must be unique")
            return f"{index.name} cannot be built: {shared} is shared by {told}; end or delete one of each, then repeat"
    return "a unique one could not be built: documents shared what must be unique; repeat"
