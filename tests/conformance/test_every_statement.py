"""Every statement: the index that its docstring names serves it, and no other tenant's run is touched.

A new statement fails here until it has a case.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from streamline.domain.change import Change
from streamline.domain.gates import full_key
from streamline.domain.payloads import NO_VALUE
from streamline.domain.place import here
from streamline.domain.transitions import operating, stepping
from streamline.domain.transitions.claiming import lease_of, take_due, take_expired, take_undoing
from streamline.domain.transitions.stepping import Ending
from streamline.store import EVERYTHING, Scope, Store, statements
from streamline.store.filters import RunQuery, behind, cursor_of, sort_of
from streamline.store.indexes import INDEXES
from streamline.store.operations import Extend, Extended, Insert, Keep, Write, WriteEach, WriteMany
from tests.conformance.documents import FLOW, NOW, definition_of, draft, ended, held
from tests.conformance.plans import explain

ROUTES = [FLOW.route, "flow@2.0.0"]
LEASE = lease_of("me", "mine", NOW, NOW + timedelta(seconds=30), "claimed")
NEWEST = sort_of("-created_at")
LATER = definition_of(version="2.0.0")
OTHER = definition_of("other")
KIN = definition_of("kin")
EACH = 12  # runs of a kind and tenant
ALL = 24 * EACH  # runs of a tenant
ACTIVE_RUNS = 92  # of a tenant


@dataclass(frozen=True)
class Case:
    """A statement about the runs below, the index that serves it, how many runs it is about and may look at."""

    statement: Any
    index: str
    touches: int = 1
    looks: int | None = None


def documents(tenant: str) -> list[dict[str, Any]]:
    """Runs of one tenant; their ids end with the tenant."""
    made = [
        draft(f"due{i}-{tenant}", NOW - timedelta(seconds=i), tenant_id=tenant, priority=i % 3) for i in range(EACH)
    ]
    made += [draft(f"later{i}-{tenant}", NOW + timedelta(seconds=i + 1), tenant_id=tenant) for i in range(EACH)]
    made += [held(f"held{i}-{tenant}", f"token-{tenant}", tenant_id=tenant) for i in range(EACH)]
    made += [held(f"lost{i}-{tenant}", "old", NOW - timedelta(seconds=1), tenant_id=tenant) for i in range(EACH)]
    made += [ended(f"done{i}-{tenant}", tenant_id=tenant) for i in range(EACH)]
    made += [ended(f"v2-{i}-{tenant}", "failed", tenant_id=tenant, definition=LATER) for i in range(EACH)]
    made += [ended(f"zz{i}-{tenant}", tenant_id=tenant, definition=OTHER) for i in range(10 * EACH)]
    made += [
        draft(f"keyed{i}-{tenant}", NOW + timedelta(days=1), tenant_id=tenant, idempotency_key=f"k{i}")
        for i in range(EACH)
    ]
    for made_of_kind in (undoing, waiting, children, owing, gated, outboxes):
        made += made_of_kind(tenant)
    return [run | {"created_at": NOW - timedelta(seconds=i % 97)} for i, run in enumerate(made)]


def undoing(tenant: str) -> list[dict[str, Any]]:
    """Runs of the first workflow that are due to be compensated."""
    made = [draft(f"undo{i}-{tenant}", NOW - timedelta(seconds=i), tenant_id=tenant) for i in range(EACH)]
    return [run | {"status": "compensating", "attempt": 1} for run in made]


def waiting(tenant: str) -> list[dict[str, Any]]:
    """Runs of a workflow of their own that wait for somebody, by a hook and without a due time, and are paused."""
    made = [draft(f"wait{i}-{tenant}", tenant_id=tenant, definition=KIN) for i in range(EACH)]
    for i, run in enumerate(made):
        del run["due_at"]
        since = NOW - timedelta(seconds=i)
        run |= {"status": "waiting", "hooks": [f"hash{i}-{tenant}"], "waiting_since": since, "waiting_for": ["hook"]}
        run |= {"listens": ["paid", f"only{i}"], "paused": {"at": since}}
    return made


def children(tenant: str) -> list[dict[str, Any]]:
    """Children of two fans of one run; every third has ended."""
    made = []
    for i in range(EACH):
        parent = {"run_id": f"wait0-{tenant}", "born": "b", "fan": f"fan{i % 2}", "wait": True, "policy": "all"}
        order = {"tenant_id": tenant, "definition": KIN, "parent": parent}
        made.append(ended(f"kid{i}-{tenant}", **order) if i % 3 == 0 else held(f"kid{i}-{tenant}", **order))
    return made


def gated(tenant: str) -> list[dict[str, Any]]:
    """Runs of a workflow with gates: some hold slots, more wait in line, one is put off, one keeps its key."""
    made = [ended(f"gated{i}-{tenant}", tenant_id=tenant, definition=KIN) for i in range(2 * EACH)]
    for i, run in enumerate(made):
        run.update({"slot_key": full_key("kin", tenant, str(i % 2)), "gated": True})
        run.update({"slot": i // 2} if i < EACH else {"queued_at": NOW})
    made[0] |= {"debounce_key": full_key("kin", tenant, "d"), "kept_key": "kept"}
    return made


def owing(tenant: str) -> list[dict[str, Any]]:
    """Runs that have ended, and of which others are yet to be told."""
    made = [ended(f"owes{i}-{tenant}", tenant_id=tenant, definition=KIN) for i in range(EACH)]
    return [run | {"owes_at": NOW - timedelta(seconds=i)} for i, run in enumerate(made)]


def outboxes(tenant: str) -> list[dict[str, Any]]:
    """Runs that have events which the log has not."""
    made = [ended(f"tells{i}-{tenant}", tenant_id=tenant, definition=KIN) for i in range(EACH)]
    return [run | {"outbox_at": NOW - timedelta(seconds=i)} for i, run in enumerate(made)]


def log_entries(tenant: str) -> list[dict[str, Any]]:
    """Entries of the log, of a few runs in turn."""
    numbers = range(10 * EACH) if tenant == "ours" else range(10 * EACH, 20 * EACH)
    return [
        {
            "_id": i + 1,
            "run_id": f"held{i % 5}-{tenant}",
            "seq": i // 5 + 1,
            "event": {"seq": i // 5 + 1, "type": "e", "at": NOW},
            "logged_at": NOW - timedelta(hours=1) + timedelta(seconds=i),
        }
        for i in numbers
    ]


def subscribers(tenant: str) -> list[dict[str, Any]]:
    """A subscriber, driven by somebody, with dead letters of which some are to be tried again."""
    lease = {"worker": "me", "token": f"token-{tenant}", "until": NOW}
    letters = [{"_id": f"sub-{tenant}/{i}", "of": f"sub-{tenant}", "position": i} for i in range(1, EACH + 1)]
    letters = [letter | ({"again": letter["of"]} if i % 3 == 0 else {}) for i, letter in enumerate(letters)]
    driven = {"_id": f"sub-{tenant}", "position": 1, "saves": 3, "lease": lease}
    return [driven, *letters, *(endpoint(i, tenant) for i in range(EACH))]


def endpoint(i: int, tenant: str) -> dict[str, Any]:
    """A webhook endpoint that has failed a few times; every other one is disabled."""
    webhook = {"id": f"w{i}", "failures": 5, "failing_since": NOW, "secrets": [{"secret": "s"}]}
    made = {"_id": f"webhook:{tenant}:w{i}", "tenant_id": tenant, "webhook": webhook, "held": [{"due_at": NOW}]}
    return made | ({"disabled_at": NOW} if i % 2 else {})


def events(tenant: str) -> list[dict[str, Any]]:
    """Events of three names; every second is on its way, every third has yet to start a run."""
    made = []
    for i in range(3 * EACH):
        event = {"_id": f"event{i}-{tenant}", "name": f"name{i % 3}", "tenant_id": tenant, "payload": i}
        event |= {
            "at": NOW - timedelta(seconds=i),
            "reached": i % 2,
            "triggers": [f"wf-{tenant}"] if i % 3 == 0 else [],
        }
        made.append(event | ({"owed_at": event["at"]} if i % 2 == 0 else {}))
    return made


def entries(tenant: str) -> list[dict[str, Any]]:
    """Entries of memos beside the runs, of two steps of each of a few runs."""
    return [
        {
            "_id": f"held{i}-{tenant}/s{k}/0/k{n}",
            "run_id": f"held{i}-{tenant}",
            "born": "b",
            "place": f"held{i}-{tenant}/s{k}/0/",
            "address": f"k{n}",
            "entry": {"kind": "call", "output": n},
            "at": NOW - timedelta(seconds=n),
        }
        for i in range(5)
        for k in range(2)
        for n in range(EACH)
    ]


def schedules(tenant: str) -> list[dict[str, Any]]:
    """Schedules of two workflows; half of them are due, some never will be."""
    made: list[dict[str, Any]] = [
        {"_id": f"daily{i}-{tenant}", "tenant_id": tenant, "workflow": ("flow", "kin")[i % 2], "mark": "m"}
        for i in range(4 * EACH)
    ]
    for i, each in enumerate(made):
        each["due_at"] = None if i >= 3 * EACH else NOW + timedelta(seconds=i - EACH)
    return made


def transition(run: dict[str, Any]) -> Change:
    change = operating.cancel(run, NOW, reason=None, by=None)
    assert change is not None
    return change


def cases(tenant: str) -> dict[str, list[Case]]:
    """Every statement by name, about runs of this tenant."""
    run, due = held(f"held0-{tenant}", f"token-{tenant}", tenant_id=tenant), [f"due0-{tenant}", f"due1-{tenant}"]
    undone, waits = [f"undo0-{tenant}", f"undo1-{tenant}"], {"workflow": "kin", "waiting_for": "hook"}
    completion = stepping.complete(run, here(run), NO_VALUE, Ending(NOW))
    place_of_memo, parent, memo = f"held0-{tenant}/s0/0/", f"wait0-{tenant}", entries(tenant)
    lost, all_held = [f"lost0-{tenant}", f"lost1-{tenant}"], [f"held{i}-{tenant}" for i in range(EACH)]
    place = cursor_of({"created_at": NOW - timedelta(seconds=5), "_id": f"m-{tenant}"})
    workflow, slot_key = RunQuery(workflow="flow").filter(), full_key("kin", tenant, "0")
    failed = RunQuery(status=["failed", "cancelled"]).filter()
    sub, telling = f"sub-{tenant}", [f"tells{i}-{tenant}" for i in range(EACH)]
    enabled, disabled = f"webhook:{tenant}:w0", f"webhook:{tenant}:w1"
    return {
        "advance_run": [
            Case(statements.advance_run(run["_id"], transition(run), "m1"), "_id"),
            Case(statements.advance_run(run["_id"], completion, "m2"), "_id"),
        ],
        "append_log": [
            Case(statements.append_log([{"_id": 1001, "run_id": "new", "seq": 1}]), "log_run"),
            Case(statements.append_log([{"_id": 1001, "run_id": "new", "seq": 1}, {"_id": 1, "run_id": "n"}]), "_id"),
        ],
        "beat_leases": [
            Case(statements.beat_leases(all_held, [f"token-{tenant}"], NOW + timedelta(minutes=1)), "_id", EACH)
        ],
        "change_gate": [Case(statements.change_gate("gate", 3, {"plan": []}), "_id")],
        "change_meta": [
            Case(statements.change_meta("secret", {"value": "w"}, ["other"]), "_id"),
            Case(statements.change_meta(sub, {"position": 9}, ("lease",), "subscribers"), "_id"),
        ],
        "change_schedule": [Case(statements.change_schedule(f"daily0-{tenant}", "m", {"mark": "n"}), "_id")],
        "claim_runs": [
            Case(statements.claim_runs(due, take_due(ROUTES, NOW, LEASE, by=NOW)), "_id", 2),
            Case(statements.claim_runs(lost, take_expired(ROUTES, NOW, LEASE)), "_id", 2),
            Case(statements.claim_runs(undone, take_undoing(ROUTES, NOW, LEASE, by=NOW)), "_id", 2),
        ],
        "count_due": [Case(statements.count_due(NOW), "runs_due", 2 * EACH)],
        "count_expired": [Case(statements.count_expired(NOW), "runs_lease", EACH, 4 * EACH)],
        "count_failure": [Case(statements.count_failure(enabled, "no", NOW), "_id")],
        "count_leases": [Case(statements.count_leases(NOW), "runs_lease", 20)],
        "count_overdue": [Case(statements.count_overdue(NOW), "runs_due", 2 * EACH, 8 * EACH)],
        "count_queued": [Case(statements.count_queued(), "runs_queue", EACH)],
        "count_routes": [Case(statements.count_routes(), "runs_live", ACTIVE_RUNS, 2 * ACTIVE_RUNS)],
        "count_runs": [
            Case(statements.count_runs({}), "runs_page", ALL, ALL),
            Case(statements.count_runs(failed), "runs_failed", EACH),
            Case(statements.count_runs(workflow), "runs_page_by_workflow", 8 * EACH, 8 * EACH),
            Case(statements.count_runs(RunQuery("flow", created_after=NOW).filter()), "runs_page_by_workflow", 2, 2),
        ],
        "disable_webhook": [
            Case(statements.disable_webhook(enabled, "why", NOW), "_id"),
            Case(statements.disable_webhook(enabled, "why", NOW, 5, NOW), "_id"),
            Case(statements.disable_webhook(enabled, "why", NOW, 6, NOW), "_id", 0),
            Case(statements.disable_webhook(enabled, "why", NOW, 5, NOW - timedelta(seconds=1)), "_id", 0),
            Case(statements.disable_webhook(disabled, "why", NOW), "_id", 0),
        ],
        "discard_dead": [
            Case(statements.discard_dead(sub), "subscribers_dead", EACH),
            Case(statements.discard_dead(sub, [1, 2, 99]), "subscribers_dead", 2),
        ],
        "count_slots": [Case(statements.count_slots(), "runs_slots", EACH)],
        "count_workflows": [Case(statements.count_workflows(), "runs_page", ALL, ALL)],
        "enable_webhook": [
            Case(statements.enable_webhook(disabled, {"webhook.failures": 0}, ["webhook.last_error"], NOW), "_id"),
            Case(statements.enable_webhook(enabled, {"webhook.failures": 0}, [], NOW), "_id", 0),
        ],
        "expire_memo": [
            Case(statements.expire_memo(run["_id"], "b", NOW), "memo_run", 2 * EACH),
            Case(statements.expire_memo(run["_id"], "b", None), "memo_run", 2 * EACH),
        ],
        "find_active_child": [Case(statements.find_active_child(parent, "b", "fan0"), "runs_children")],
        "find_asked_again": [Case(statements.find_asked_again(sub, 10), "subscribers_again", EACH // 3)],
        "find_addressed": [
            Case(statements.find_addressed("kin", {}, 10), "runs_live", 10, 2 * EACH),
            Case(statements.find_addressed("kin", {"input.n": 2}, 10), "runs_live", 0, 6 * EACH),
        ],
        "find_children": [
            Case(statements.find_children(parent, "b"), "runs_children", EACH),
            Case(statements.find_children(parent, "b", "fan1"), "runs_children", EACH // 2),
            Case(statements.find_children(parent, "b", active=True), "runs_children", 2 * EACH // 3),
            Case(statements.find_children(parent, "b", "fan0", active=True), "runs_children", EACH // 3),
        ],
        "find_claimed": [Case(statements.find_claimed(all_held, f"token-{tenant}"), "_id", EACH)],
        "find_dead": [Case(statements.find_dead(sub, 10), "subscribers_dead", 10)],
        "find_due": [
            Case(statements.find_due(ROUTES, NOW, 10), "runs_due", 10),
            Case(statements.find_due(ROUTES[:1], NOW, 1000), "runs_due", 2 * EACH),
        ],
        "find_events": [
            Case(events_of("name0"), "inbox_name", EACH),
            Case(events_of("name1", since=NOW), "inbox_name", EACH // 2, 2 * EACH),
            Case(events_of("name1", behind=(NOW - timedelta(seconds=4), f"event4-{tenant}")), "inbox_name", 1),
            Case(events_of("name1", before=(NOW - timedelta(seconds=4), f"event4-{tenant}")), "inbox_name", EACH - 2),
            Case(events_of("name2", heard=[f"event{i}-{tenant}" for i in range(6)]), "inbox_name", EACH - 2),
        ],
        "find_ended": [
            Case(statements.find_ended(None, ["failed"], NOW, None, 5), "runs_page", 5, ALL),
            Case(
                statements.find_ended("flow", ["done", "failed"], NOW, None, 50), "runs_page_by_workflow", 2 * EACH, ALL
            ),
            Case(statements.find_ended(None, ["done"], NOW, (NOW, "zzzz"), 5), "runs_page", 0),
        ],
        "find_expired": [Case(statements.find_expired(ROUTES, NOW, 10), "runs_lease", 10)],
        "find_definitions": [Case(statements.find_definitions(), "_id", 2)],
        "find_draft": [Case(statements.find_draft(full_key("kin", tenant, "d")), "runs_debounce")],
        "find_due_schedules": [Case(statements.find_due_schedules(["flow", "kin"], NOW, 5), "schedules_due", 5)],
        "find_gate": [Case(statements.find_gate("gate"), "_id")],
        "find_gated": [Case(statements.find_gated(due), "_id", 2)],
        "find_fitting": [
            Case(statements.find_fitting(run["_id"], {"input.n": 1}), "_id"),
            Case(statements.find_fitting(run["_id"], {"$or": [{"input.n": 2}, {"state.n": 1}]}), "_id", 0),
        ],
        "find_hook": [Case(statements.find_hook(f"hash5-{tenant}"), "runs_hooks")],
        "find_keeper": [Case(statements.find_keeper(tenant, "kin", "kept"), "runs_kept_key")],
        "find_leases": [Case(statements.find_leases(all_held), "_id", EACH)],
        "find_log": [Case(statements.find_log(5, 20), "_id", 20)],
        "find_log_of_run": [Case(statements.find_log_of_run(run["_id"], 3, 230, 5), "log_run", 5)],
        "find_log_since": [Case(statements.find_log_since(NOW - timedelta(minutes=59)), "log_time")],
        "find_log_tail": [Case(statements.find_log_tail(), "_id")],
        "find_lost": [Case(statements.find_lost(ROUTES, NOW, 10), "runs_lease", 10, 2 * EACH)],
        "find_marked": [Case(statements.find_marked(5), "runs_outbox", 5)],
        "find_listeners": [
            Case(statements.find_listeners("paid", None, NOW, "", 50), "runs_listens", EACH),
            Case(statements.find_listeners("paid", {"input.n": 1}, NOW, "wait4-", 50), "runs_listens", 6),
            Case(statements.find_listeners("only3", {"input.n": 2}, NOW, "", 50), "runs_listens", 0),
        ],
        "find_marks": [Case(statements.find_marks(due), "_id", 2)],
        "find_memo_owners": [Case(statements.find_memo_owners(f"held0-{tenant}", 5), "memo_run", 5)],
        "find_memo": [Case(statements.find_memo(place_of_memo), "memo_place", EACH)],
        "find_meta": [
            Case(statements.find_meta("secret"), "_id"),
            Case(statements.find_meta(sub, "subscribers"), "_id"),
        ],
        "find_next_due": [Case(statements.find_next_due(ROUTES, NOW, NOW + timedelta(seconds=20)), "runs_due")],
        "find_owed_events": [Case(statements.find_owed_events(NOW, 5), "inbox_owed", 5)],
        "find_next_schedule": [Case(statements.find_next_schedule(["flow", "kin"]), "schedules_due")],
        "find_offspring": [
            Case(statements.find_offspring({parent: "b", f"held0-{tenant}": "c"}), "runs_children", EACH)
        ],
        "find_overdue": [Case(statements.find_overdue(ROUTES, [0, 1, 2], NOW, 10), "runs_due", 10, 4 * EACH)],
        "find_owing": [
            Case(statements.find_owing(NOW, 10), "runs_owing", 10),
            Case(statements.find_owing(NOW - timedelta(seconds=EACH), 10), "runs_owing", 0),
        ],
        "find_page": [
            Case(statements.find_page({}, NEWEST, 10), "runs_page", 10),
            Case(statements.find_page({}, sort_of("created_at"), 10), "runs_page", 10),
            Case(statements.find_page({"$and": [{}, behind(place, "-created_at")]}, NEWEST, 5), "runs_page", 5),
            Case(statements.find_page(workflow, NEWEST, 10), "runs_page_by_workflow", 10),
            Case(
                statements.find_page({"$and": [workflow, behind(place, "-created_at")]}, NEWEST, 5),
                "runs_page_by_workflow",
                5,
            ),
            Case(statements.find_page(RunQuery(status="done").filter(), NEWEST, 10), "runs_page", 10, ALL),
            Case(statements.find_page(failed, NEWEST, 10), "runs_failed", 10),
            Case(statements.find_page(failed, sort_of("created_at"), 5, ["status"]), "runs_failed", 5),
            Case(statements.find_page(RunQuery("flow", status="failed").filter(), NEWEST, 10), "runs_failed", 10),
            Case(statements.find_page({"$and": [failed, behind(place, "-created_at")]}, NEWEST, 5), "runs_failed", 5),
        ],
        "find_paused": [Case(statements.find_paused(NOW, 50), "runs_paused", EACH)],
        "find_queue": [Case(statements.find_queue(full_key("kin", tenant, "")), "runs_queue")],
        "find_queued": [Case(statements.find_queued(slot_key, 5), "runs_queue", 5)],
        "find_route": [
            Case(statements.find_route("kin@1.0.0", f"wait4-{tenant}", 50), "runs_live", 5),
            Case(statements.find_route(LATER.route, "", 50), "runs_live", 0),
        ],
        "find_run": [
            Case(statements.find_run(run["_id"]), "_id"),
            Case(statements.find_run(run["_id"], {"status": 1}), "_id"),
        ],
        "find_runs_after": [Case(statements.find_runs_after("held", 5), "_id", 5)],
        "find_unlogged": [Case(statements.find_unlogged(run["_id"]), "_id")],
        "find_schedules": [
            Case(statements.find_schedules({}, "", 5), "schedules_page", 5),
            Case(statements.find_schedules({"workflow": "kin"}, f"daily1-{tenant}", 5), "schedules_page", 5),
        ],
        "find_slots": [Case(statements.find_slots(slot_key), "runs_slots", EACH // 2)],
        "find_tenants": [Case(statements.find_tenants(), "runs_page")],
        "find_triggered": [Case(statements.find_triggered([f"wf-{tenant}", "more"], 50), "inbox_triggers", EACH)],
        "find_waiting": [
            Case(statements.find_waiting({}, 5), "runs_waiting", 5),
            Case(statements.find_waiting(waits, 50), "runs_waiting", EACH),
        ],
        "find_webhooks": [Case(statements.find_webhooks(), "subscribers_webhooks", 2 * EACH)],
        "find_winner": [Case(statements.find_winner(tenant, "flow", "k7"), "runs_active_key")],
        "find_workers": [Case(statements.find_workers(NOW), "_id")],
        "insert_definition": [Case(statements.insert_definition({"_id": FLOW.route, "steps": []}), "_id")],
        "insert_gate": [Case(statements.insert_gate({"_id": "gate", "rev": 1}), "_id")],
        "insert_event": [Case(statements.insert_event(events(tenant)[0]), "_id")],
        "insert_memo": [Case(statements.insert_memo([memo[0], memo[1] | {"_id": "new"}]), "_id")],
        "insert_meta": [
            Case(statements.insert_meta({"_id": "secret", "value": "other"}), "_id"),
            Case(statements.insert_meta({"_id": sub}, "subscribers"), "_id"),
        ],
        "insert_run": [Case(statements.insert_run(draft(f"new-{tenant}", tenant_id=tenant), "m3", 0), "_id")],
        "mark_runs": [Case(statements.mark_runs(due, NOW), "_id", 2)],
        "note_logged": [
            Case(statements.note_logged([{"run_id": run_id, "seq": 1} for run_id in telling]), "_id", EACH),
            Case(statements.note_logged([{"run_id": run["_id"], "seq": 1, "rev": 9, "put": {}}]), "_id", 0),
        ],
        "note_relayed": [Case(statements.note_relayed([{"run_id": run_id, "seq": 2} for run_id in due]), "_id", 2)],
        "put_definition": [Case(statements.put_definition(FLOW.route, {"steps": []}), "_id")],
        "put_worker": [
            Case(statements.put_worker("there", {"seen_at": NOW}), "_id"),
            Case(statements.put_worker("new", {"seen_at": NOW}), "_id"),
        ],
        "release_lease": [Case(statements.release_lease(sub, f"token-{tenant}", "subscribers"), "_id")],
        "remove_log": [Case(statements.remove_log(10), "_id", 10)],
        "remove_memo": [
            Case(statements.remove_memo(run["_id"], "b", NOW), "memo_run", 2 * EACH),
            Case(statements.remove_memo(run["_id"], "b", NOW - timedelta(seconds=EACH)), "memo_run", 0),
        ],
        "remove_ended": [
            Case(statements.remove_ended([f"done0-{tenant}", f"v2-1-{tenant}", f"due0-{tenant}"], NOW), "_id", 2),
            Case(statements.remove_ended([f"done0-{tenant}"], NOW - timedelta(seconds=1)), "_id", 0),
        ],
        "remove_run": [
            Case(statements.remove_run(ended(f"done0-{tenant}")), "_id"),
            Case(statements.remove_run(ended(f"done1-{tenant}") | {"rev": 9}), "_id", 0),
            Case(statements.remove_run(ended(f"done2-{tenant}", "failed")), "_id", 0),
            Case(statements.remove_run(ended(f"done3-{tenant}") | {"removed_at": NOW}), "_id", 0),
        ],
        "remove_subscriber": [Case(statements.remove_subscriber(sub), "_id")],
        "retry_dead": [
            Case(statements.retry_dead(sub, None), "subscribers_dead", EACH),
            Case(statements.retry_dead(sub, [3]), "subscribers_dead", 1),
        ],
        "rotate_secret": [
            Case(statements.rotate_secret(enabled, "s", [{"secret": "t"}], NOW), "_id"),
            Case(statements.rotate_secret(enabled, "other", [{"secret": "t"}], NOW), "_id", 0),
        ],
        "save_subscriber": [
            Case(statements.save_subscriber(sub, f"token-{tenant}", 3, {"position": 5}, NOW), "_id"),
            Case(statements.save_subscriber(sub, f"token-{tenant}", 2, {"position": 5}, NOW), "_id", 0),
            Case(statements.save_subscriber(sub, "stale", 3, {"position": 5}, NOW), "_id", 0),
        ],
        "settle_dead": [Case(statements.settle_dead(f"{sub}/1", {"attempts": 2}), "_id")],
        "take_lease": [
            Case(statements.take_lease(sub, LEASE, NOW + timedelta(seconds=1), "subscribers"), "_id"),
            Case(statements.take_lease(sub, LEASE, NOW - timedelta(seconds=1), "subscribers"), "_id", 0),
            Case(statements.take_lease(enabled, LEASE, NOW, "subscribers"), "_id"),
            Case(statements.take_lease(disabled, LEASE, NOW, "subscribers"), "_id", 0),
        ],
        "settle_event": [
            Case(statements.settle_event(f"event0-{tenant}", 3), "_id"),
            Case(statements.settle_event(f"event1-{tenant}", 3), "_id", 0),
        ],
        "settle_trigger": [
            Case(statements.settle_trigger(f"event0-{tenant}", f"wf-{tenant}", None, reached=1), "_id"),
            Case(statements.settle_trigger(f"event0-{tenant}", "other", {"code": "c"}, reached=0), "_id", 0),
        ],
        "remove_schedule": [Case(statements.remove_schedule(f"daily2-{tenant}"), "_id")],
        "remove_worker": [Case(statements.remove_worker("there"), "_id")],
    }


def events_of(name: str, *, since: Any = NOW - timedelta(days=1), **more: Any) -> Any:
    asked = {"behind": None, "before": None, "heard": (), **more}
    return statements.find_events(name, since, NOW - timedelta(days=1), limit=50, **asked)


@pytest.fixture
async def filled(store: Store, runs: Any) -> Store:
    for tenant in ("ours", "theirs"):
        await runs.insert_many(documents(tenant))
        await runs.database["streamline.memo"].insert_many(entries(tenant))
        await runs.database["streamline.log"].insert_many(log_entries(tenant))
        await runs.database["streamline.subscribers"].insert_many(subscribers(tenant))
        await runs.database["streamline.inbox"].insert_many(events(tenant))
        await runs.database["streamline.schedules"].insert_many(schedules(tenant))
    await runs.database["streamline.gates"].insert_one({"_id": "gate", "rev": 3})
    await runs.database["streamline.definitions"].insert_many([{"_id": FLOW.route}, {"_id": LATER.route}])
    seen = [{"_id": "there", "seen_at": NOW}, {"_id": "dead", "seen_at": NOW - timedelta(minutes=1)}]
    await runs.database["streamline.workers"].insert_many(seen)
    await runs.database["streamline.meta"].insert_many([{"_id": "secret", "value": "v"}, {"_id": "more"}])
    return store


def statement_functions() -> dict[str, Callable[..., Any]]:
    made = inspect.getmembers(statements, inspect.isfunction)
    ours = {name: function for name, function in made if function.__module__.startswith(statements.__name__)}
    return {name: function for name, function in ours.items() if not name.startswith("_") and name != "list_statuses"}


def test_every_statement_has_a_case() -> None:
    assert statement_functions().keys() == cases("ours").keys()


def test_every_statement_says_in_a_sentence_what_it_does_and_what_serves_it() -> None:
    for name, function in statement_functions().items():
        text = inspect.getdoc(function) or ""
        first, _, rest = text.partition("\n")
        assert re.fullmatch(r"[A-Z].*\.", first), name
        assert re.search(r"^Index: .+\.$", rest, re.MULTILINE | re.DOTALL), name
        if not name.startswith(("find_", "count_")):
            assert "Guard: " in rest, name


def test_a_statement_bears_the_name_of_its_function() -> None:
    for name, of_this_name in cases("ours").items():
        assert {case.statement.name for case in of_this_name} == {name}


def test_an_index_serves_statements_that_exist() -> None:
    served = {name for indexes in INDEXES.values() for index in indexes for name in index.serves if " " not in name}
    assert served <= statement_functions().keys()


NUMBERED = [(name, i) for name, of_this_name in cases("ours").items() for i in range(len(of_this_name))]
UNEXPLAINED = Insert | Keep | Extend | WriteEach
EXPLAINED = [(name, i) for name, i in NUMBERED if not isinstance(cases("ours")[name][i].statement, UNEXPLAINED)]
# What lies beside the runs belongs to a run, and is asked for by the run's id.
BESIDE = [name for name, made in cases("ours").items() if getattr(made[0].statement, "collection", "runs") != "runs"]


# The worker's own statements are about runs of all tenants; what callers ask for stays within one.
WITHIN_A_TENANT = (
    "advance_run", "count_routes", "count_runs", "count_workflows", "disable_webhook", "enable_webhook",
    "find_addressed", "find_ended", "find_events", "find_fitting", "find_hook", "find_listeners", "find_page",
    "find_run", "find_schedules", "find_waiting", "find_winner", "remove_ended", "remove_run",
    "remove_schedule", "rotate_secret", "settle_event", "settle_trigger",
)  # fmt: skip

PAGES = ("find_page", "find_route")  # the other tenant's run in them is but a place in an order


@pytest.mark.parametrize(("name", "i"), EXPLAINED)
async def test_the_index_in_its_docstring_serves_a_statement(filled: Store, database: Any, name: str, i: int) -> None:
    case = cases("ours")[name][i]
    serving = re.split(r"Index:", inspect.getdoc(statement_functions()[name]) or "")[-1]
    assert re.search(rf"\b{case.index}\b", serving)
    plan = await explain(database, case.statement, Scope("ours") if name in WITHIN_A_TENANT else EVERYTHING)
    assert plan.indexes == {case.index}
    assert not plan.stages & {"COLLSCAN", "SORT"} or name == "find_next_due"
    assert plan.documents <= (case.looks or 4 * max(case.touches, 10))


@pytest.mark.parametrize(("name", "i"), NUMBERED)
async def test_a_statement_is_about_its_own_tenants_runs(filled: Store, runs: Any, name: str, i: int) -> None:
    case = cases("ours")[name][i]
    scope = Scope("ours") if name not in BESIDE or name in WITHIN_A_TENANT else EVERYTHING
    assert await size_of(filled, case.statement, scope) == case.touches


@pytest.mark.parametrize(("name", "i"), [(name, i) for name, i in EXPLAINED if name not in BESIDE])
async def test_a_statement_does_not_reach_another_tenants_runs(filled: Store, runs: Any, name: str, i: int) -> None:
    theirs = cases("theirs")[name][i].statement
    names_their_runs = isinstance(theirs, Write | WriteMany) or (name not in PAGES and "theirs" in str(theirs.filter))
    before = [document async for document in runs.find({}).sort("_id")]
    for scope in (Scope("ours"), Scope(None), Scope("")):
        if names_their_runs or scope.tenant_id != "ours":
            assert await size_of(filled, theirs, scope) == 0
    assert [document async for document in runs.find({}).sort("_id")] == before


async def theirs_in(database: Any) -> dict[str, list[Any]]:
    """All that is the other tenant's, by collection."""
    found = {}
    for name in INDEXES:
        documents = [each async for each in database[f"streamline.{name}"].find({}).sort("_id")]
        found[name] = [each for each in documents if "theirs" in str(each)]
    return found


async def test_no_statement_within_a_tenant_shows_or_changes_what_is_anothers(filled: Store, database: Any) -> None:
    before = await theirs_in(database)
    assert sum(map(len, before.values())) > ALL
    shown = []
    for name, i in NUMBERED:
        try:
            answer = await filled.run(cases("theirs")[name][i].statement, Scope("ours"))
        except AssertionError as refused:
            answer = [str(refused)]
        shown += [(name, i)] if "theirs" in str(answer) else []
        if i == 0 and not name.startswith(("count_", "find_")):
            assert await theirs_in(database) == before, name
    assert not shown
    assert await theirs_in(database) == before


async def test_a_run_is_only_inserted_within_its_tenants_scope(store: Store, runs: Any) -> None:
    insert = statements.insert_run(draft("new", tenant_id="theirs"), "m", 0)
    with pytest.raises(AssertionError):
        await store.run(insert, Scope("ours"))
    assert await runs.count_documents({}) == 0


@pytest.mark.parametrize(
    "wider", [{}, {"tenant_id": "theirs"}, {"tenant_id": {"$ne": None}}, {"$or": [{"tenant_id": "theirs"}, {}]}]
)
async def test_a_condition_on_the_tenant_can_narrow_and_never_widen(filled: Store, wider: dict[str, Any]) -> None:
    found = await filled.run(statements.find_page(wider, NEWEST, 1000), Scope("ours"))
    assert {document["tenant_id"] for document in found} <= {"ours"}
    counted = await filled.run(statements.count_runs(wider), Scope("ours"))
    assert sum(each["n"] for each in counted) == len(found)


async def test_a_webhook_endpoint_is_its_tenants(filled: Store, database: Any) -> None:
    found = await filled.run(statements.find_webhooks(), Scope("ours"))
    assert [each["webhook"]["id"] for each in found] == sorted(f"w{i}" for i in range(EACH))
    assert {each["tenant_id"] for each in found} == {"ours"}
    before = [each async for each in database["streamline.subscribers"].find({}).sort("_id")]
    for name in ("disable_webhook", "enable_webhook", "rotate_secret"):
        for case in cases("theirs")[name]:
            assert await filled.run(case.statement, Scope("ours")) == 0
    assert [each async for each in database["streamline.subscribers"].find({}).sort("_id")] == before


async def test_runs_without_a_tenant_are_a_scope_of_their_own(filled: Store, runs: Any) -> None:
    await runs.insert_one(draft("free"))
    found = await filled.run(statements.find_page({}, NEWEST, 1000), Scope(None))
    assert [document["_id"] for document in found] == ["free"]


async def size_of(store: Store, statement: Any, scope: Scope) -> int:
    """How many runs the statement is about: written, found or counted."""
    answer = await store.run(statement, scope)
    if isinstance(answer, list):
        return sum(each.get("n", 1) for each in answer) if statement.name.startswith("count_") else len(answer)
    if isinstance(answer, Extended):
        return answer.count
    return {"inserted": 1, "id_taken": 0, "key_taken": 0}[answer] if isinstance(answer, str) else int(answer)


async def test_what_lies_beside_the_runs_is_stored_once_and_the_first_wins(filled: Store, database: Any) -> None:
    first = entries("ours")[0]
    late = first | {"entry": {"kind": "call", "output": "late"}}
    assert await filled.run(statements.insert_memo([late, late | {"_id": "new"}])) == [first]
    assert await database["streamline.memo"].find_one({"_id": first["_id"]}) == first
    assert await filled.run(statements.insert_memo([late | {"_id": "newer"}])) == []
    assert await filled.run(statements.insert_meta({"_id": "secret", "value": "late"})) == [
        {"_id": "secret", "value": "v"}
    ]


async def test_the_memo_of_one_run_goes_and_no_other(filled: Store, database: Any) -> None:
    memo = database["streamline.memo"]
    before = await memo.count_documents({})
    await filled.run(statements.expire_memo("held1-ours", "b", NOW + timedelta(days=1)))
    assert await memo.distinct("run_id", {"expire_at": {"$exists": True}}) == ["held1-ours"]
    await filled.run(statements.expire_memo("held1-ours", "b", None))
    assert await memo.count_documents({"expire_at": {"$exists": True}}) == 0
    assert await filled.run(statements.remove_memo("held1-ours", "b", NOW)) == 2 * EACH
    assert await memo.count_documents({}) == before - 2 * EACH
    assert await memo.count_documents({"run_id": "held1-ours"}) == 0


async def test_due_runs_that_are_being_compensated_are_found_beside_the_others_and_taken_apart(
    filled: Store, runs: Any
) -> None:
    found = await filled.run(statements.find_due(ROUTES, NOW, 1000), Scope("ours"))
    assert {each["status"] for each in found} == {"draft", "compensating"}
    ids = [each["_id"] for each in found]
    assert await filled.run(statements.claim_runs(ids, take_due(ROUTES, NOW, LEASE, by=NOW))) == EACH
    assert await filled.run(statements.claim_runs(ids, take_undoing(ROUTES, NOW, LEASE, by=NOW))) == EACH
    taken = [document async for document in runs.find({"lease.token": "mine"})]
    assert {(run["_id"][:4] == "undo", run["status"]) for run in taken} == {(True, "compensating"), (False, "running")}
    assert not any("due_at" in run for run in taken)


async def test_the_oldest_wait_comes_first(filled: Store) -> None:
    found = await filled.run(statements.find_waiting({}, 3), Scope("ours"))
    assert [run["_id"] for run in found] == ["wait11-ours", "wait10-ours", "wait9-ours"]
