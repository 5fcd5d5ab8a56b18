"""The poll for due runs costs what is due, however many runs sleep, wait or have ended."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streamline.store import Store, statements
from tests.conformance.documents import FLOW, NOW, draft, ended, held
from tests.conformance.plans import explain

ASLEEP = 20_000
ROUTES = [FLOW.route, "other@1.0.0"]


@pytest.fixture
async def crowd(store: Store, runs: Any) -> Any:
    """Many runs that are not due: asleep over three priorities, and some that wait without a time or have ended."""
    made: list[dict[str, Any]] = []
    for i in range(ASLEEP):
        made.append(
            draft(f"asleep{i}", NOW + timedelta(hours=1, seconds=i), priority=(0, 0, 5, -5)[i % 4]) | {"events": []}
        )
    made += [ended(f"done{i}") | {"events": []} for i in range(500)]
    made += [held(f"held{i}") | {"events": []} for i in range(500)]
    for waiting in (draft(f"waiting{i}") | {"events": []} for i in range(500)):
        del waiting["due_at"]
        made.append(waiting)
    await runs.insert_many(made, ordered=False)
    return runs


async def test_an_empty_poll_looks_at_few_keys(crowd: Any, database: Any) -> None:
    for statement in (
        statements.find_due(ROUTES, NOW, 100),
        statements.find_expired(ROUTES, NOW, 100),
        statements.find_next_due(ROUTES, NOW, NOW + timedelta(seconds=5)),
    ):
        plan = await explain(database, statement)
        assert plan.found == 0
        assert plan.keys <= 20
        assert plan.documents == 0

    for i, priority in enumerate((0, 5, -5, 2)):
        await crowd.insert_one(draft(f"due{i}", NOW - timedelta(seconds=i), priority=priority))
    due = statements.find_due(ROUTES, NOW, 100)
    plan = await explain(database, due)
    assert plan.found == 4
    assert plan.keys <= 40
    assert [each["_id"] async for each in crowd.find(due.filter).sort(list(due.sort))] == [
        "due1",
        "due3",
        "due0",
        "due2",
    ]

    plan = await explain(database, statements.find_due(ROUTES, NOW + timedelta(days=1), 10))
    assert plan.found == 10
    assert plan.keys <= 60
    plan = await explain(database, statements.find_next_due(ROUTES, NOW, NOW + timedelta(hours=1, seconds=3)))
    assert plan.found == 1
    assert plan.keys <= 40
