"""What the app asks for is served by an index, however many runs there are."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from streamline import Streamline
from streamline.store import Scope, Store
from tests.conformance.documents import NOW, definition_of, draft, ended
from tests.conformance.plans import explain

OTHER = definition_of("other")


@pytest.fixture
async def asked(database: Any, store: Store, runs: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An app over many runs, which notes what it sends."""
    made = [ended(f"done{i:03}", definition=OTHER) for i in range(600)]
    await runs.insert_many([*made, *(draft(f"due{i}") for i in range(20))])
    sent: list[tuple[Any, Scope]] = []
    real = Store.run

    async def run(self: Store, statement: Any, scope: Scope = Scope(everything=True)) -> Any:  # noqa: B008
        sent.append((statement, scope))
        return await real(self, statement, scope)

    monkeypatch.setattr(Store, "run", run)
    async with Streamline(database, worker=False) as app:
        sent.clear()
        yield app, sent


@pytest.mark.parametrize(
    "ask",
    [
        lambda app: app.runs(limit=10),
        lambda app: app.runs(limit=10, order="created_at"),
        lambda app: app.runs("flow", limit=10),
        lambda app: app.runs("flow", limit=10, created_after=NOW),
        lambda app: app.runs(limit=10, created_before=NOW),
        lambda app: app.get("due3"),
        lambda app: app.cancel("due3"),
        lambda app: app.count_runs("flow"),
    ],
    ids=["page", "oldest first", "page of a workflow", "since", "until", "get", "cancel", "count"],
)
async def test_a_question_is_answered_from_an_index(asked: Any, database: Any, ask: Callable[[Any], Any]) -> None:
    app, sent = asked
    await ask(app)
    assert sent
    for statement, scope in sent:
        plan = await explain(database, statement, scope)
        assert not plan.stages & {"COLLSCAN", "SORT"}
        assert plan.documents <= 30


async def test_a_second_page_begins_where_the_first_ended(asked: Any, database: Any) -> None:
    app, sent = asked
    page = await app.runs(limit=10)
    for _ in range(20):
        page = await app.runs(limit=10, after=page.next)
    statement, scope = sent[-1]
    plan = await explain(database, statement, scope)
    assert not plan.stages & {"COLLSCAN", "SORT"}


@pytest.mark.parametrize("of_one_tenant", [True, False])
async def test_live_runs_are_counted_from_their_index_alone(asked: Any, database: Any, of_one_tenant: bool) -> None:
    app, sent = asked
    view = app if of_one_tenant else app.all_tenants()
    assert [info.live for info in await view.versions()] == [20]
    (counting,) = [each for each in sent if each[0].name == "count_routes"]
    plan = await explain(database, *counting)
    assert plan.indexes == {"runs_live"}
    assert plan.keys <= 21
    # An index cannot tell a tenant of null from one that is missing: it takes the document for that.
    assert plan.documents == (20 if of_one_tenant else 0)


@pytest.mark.parametrize("status", ["draft", "waiting", "failed", ["failed", "cancelled"], ["running", "compensating"]])
@pytest.mark.parametrize("ask", ["runs", "count_runs"])
@pytest.mark.parametrize("of_one_tenant", [True, False])
async def test_few_runs_of_a_status_are_found_among_many_others(
    asked: Any, database: Any, runs: Any, status: Any, ask: str, of_one_tenant: bool
) -> None:
    app, sent = asked
    await runs.insert_many([ended(f"failed{i}", "failed") for i in range(10)])
    view = app if of_one_tenant else app.all_tenants()
    found = await getattr(view, ask)(status=status)
    count = sum(found.values()) if ask == "count_runs" else len(found.items)
    assert count == (20 if status == "draft" else 10 if "failed" in status else 0)
    for statement, scope in (each for each in sent if each[0].name in ("count_runs", "find_page", "find_tenants")):
        plan = await explain(database, statement, scope)
        assert "COLLSCAN" not in plan.stages
        assert plan.documents <= 20


@pytest.mark.parametrize("order", ["created_at", "-created_at"])
@pytest.mark.parametrize("workflow", [None, "other"])
async def test_pages_over_all_tenants_are_merged_from_the_index(
    asked: Any, database: Any, runs: Any, order: str, workflow: str | None
) -> None:
    app, sent = asked
    made = [ended(f"more{i}", tenant_id=f"tenant{i % 7}", definition=OTHER) for i in range(200)]
    made += [run | {"_id": f"{run['_id']}-{i}", "created_at": NOW - timedelta(seconds=i)} for i, run in enumerate(made)]
    await runs.insert_many(made)
    page = await app.all_tenants().runs(workflow, limit=10, order=order)
    for _ in range(30 if order == "created_at" else 2):
        page = await app.all_tenants().runs(workflow, limit=10, order=order, after=page.next)
    asking = [each for each in sent if each[0].name in ("find_page", "find_tenants")]
    assert {statement.name for statement, _ in asking} == {"find_tenants", "find_page"}
    for statement, scope in asking:
        plan = await explain(database, statement, scope)
        assert not plan.stages & {"COLLSCAN", "SORT"}
        assert plan.documents <= 11
        assert plan.keys <= 40
