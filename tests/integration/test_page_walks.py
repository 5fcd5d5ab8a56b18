"""A walk over pages meets every run that stays as it is exactly once, whatever happens to the others meanwhile."""

from __future__ import annotations

import random
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from streamline import Tenancy
from tests.conformance.documents import NOW, definition_of, draft, ended

OTHER = definition_of("other")
FILTERS: list[dict[str, Any]] = [
    {},
    {"workflow": "flow"},
    {"status": "failed"},
    {"status": ["failed", "cancelled"], "workflow": "flow"},
    {"status": ["done", "failed"]},
    {"tags": "a"},
    {"match": {"input.n": 1, "metadata.m": {"$lt": 3}}},
    {"created_after": NOW + timedelta(milliseconds=1)},
    {"created_before": NOW + timedelta(milliseconds=2), "status": "failed"},
]


def some_run(chance: random.Random, run_id: str, tenant: str | None) -> dict[str, Any]:
    """A run of some kind, created within three milliseconds."""
    order: dict[str, Any] = {"tenant_id": tenant, "tags": chance.choice([(), ("a",), ("a", "b")])}
    order["metadata"] = {"m": chance.randrange(5)}
    order |= {} if chance.random() < 0.7 else {"definition": OTHER}
    kind = chance.choice(["draft", "done", "failed", "cancelled"])
    made = draft(run_id, **order) if kind == "draft" else ended(run_id, kind, **order)
    made["created_at"] = NOW + timedelta(milliseconds=chance.randrange(3))
    return made


def is_wanted(run: dict[str, Any], asked: dict[str, Any]) -> bool:
    """Whether a run fits, told by plain Python."""
    statuses = asked.get("status", run["status"])
    return (
        asked.get("workflow", run["workflow"]) == run["workflow"]
        and run["status"] in ([statuses] if isinstance(statuses, str) else statuses)
        and ("tags" not in asked or asked["tags"] in run.get("tags", ()))
        and ("match" not in asked or run["metadata"]["m"] < 3)
        and run["created_at"] >= asked.get("created_after", NOW)
        and run["created_at"] < asked.get("created_before", NOW + timedelta(days=1))
    )


def random_id(chance: random.Random) -> str:
    return f"{chance.randrange(16**6):06x}"


@pytest.mark.parametrize("asked", FILTERS, ids=repr)
@pytest.mark.parametrize("order", ["created_at", "-created_at"])
@pytest.mark.parametrize("scope", ["one tenant", "all tenants"])
async def test_what_stays_is_met_once(make_app: Any, runs: Any, asked: dict[str, Any], order: str, scope: str) -> None:
    chance = random.Random(f"{asked}{order}{scope}")
    tenants = ["ours"] if scope == "one tenant" else [None, "ours", "theirs"]
    async with make_app(worker=False, tenancy=Tenancy()) as app:
        verbs = app.tenant("ours") if scope == "one tenant" else app.all_tenants()
        steady = [some_run(chance, f"s{random_id(chance)}", chance.choice(tenants)) for _ in range(60)]
        passing = [some_run(chance, f"p{random_id(chance)}", chance.choice(tenants)) for _ in range(30)]
        foreign = [some_run(chance, f"f{random_id(chance)}", "zoo") for _ in range(20 if len(tenants) == 1 else 0)]
        await runs.insert_many([*steady, *passing, *foreign])
        met, after = Counter[str](), None
        while True:
            page = await verbs.summaries(**asked, order=order, limit=chance.randint(1, 9), after=after)
            met.update(each.id for each in page.items)
            places = [(each.created_at, each.id) for each in page.items]
            assert places == sorted(places, reverse=order.startswith("-"))
            if (after := page.next) is None:
                break
            if passing:
                await runs.delete_one({"_id": passing.pop()["_id"]})
            await runs.insert_one(some_run(chance, f"n{random_id(chance)}", chance.choice(tenants)))
    wanted = {run["_id"] for run in steady if is_wanted(run, asked)}
    assert wanted
    assert {run_id for run_id in met if run_id.startswith("s")} == wanted
    assert set(met.values()) == {1}
    assert not any(run_id.startswith("f") for run_id in met)


@pytest.mark.parametrize("order", ["created_at", "-created_at"])
async def test_pages_of_more_tenants_than_the_server_merges(make_app: Any, runs: Any, order: str) -> None:
    chance = random.Random(order)
    made = [some_run(chance, f"s{i:04}", f"tenant{i % 230}") for i in range(500)]
    async with make_app(worker=False, tenancy=Tenancy()) as app:
        await runs.insert_many(made)
        met = [each.id async for each in app.all_tenants().iter_summaries(order=order, limit=90)]
        places = sorted(((run["created_at"], run["_id"]) for run in made), reverse=order.startswith("-"))
        assert met == [run_id for _, run_id in places]
        counted = await app.all_tenants().count_runs(status="failed", created_after=NOW)
        assert counted == {"failed": sum(run["status"] == "failed" for run in made)}
