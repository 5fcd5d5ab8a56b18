"""Looking for runs: pages, filters, counts; and what is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from streamline import Context, NonRetriableError, Workflow
from streamline.errors import InvalidQuery, StreamlineError
from tests.clocks import MovableClock


class Order(BaseModel):
    customer: str
    amount: int


def orders() -> Workflow[Order, Any, Any]:
    wf = Workflow("order", input=Order)

    @wf.step
    async def charge(ctx: Context[Order]) -> dict[str, int]:
        if ctx.input.amount < 0:
            raise NonRetriableError
        return {"charged": ctx.input.amount}

    return wf


def other() -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow("other")

    @wf.step
    async def nothing(ctx: Context[Any]) -> None: ...

    return wf


async def ids_of(app: Any, **query: Any) -> list[str]:
    return [run.id async for run in app.iter_runs(**query)]


@pytest.fixture
async def shop(make_app: Any) -> Any:
    """Eleven runs, one a second: a0..a7 of order (a7 failed), b0, b1 of other and c0, a draft."""
    clock = MovableClock()
    wf, another = orders(), other()
    async with make_app(wf, another, worker=False, clock=clock) as app:
        for i in range(8):
            order = Order(customer="ann" if i % 2 else "bob", amount=-1 if i == 7 else i)
            tags = ["even" if i % 2 == 0 else "odd", *(["big"] if i > 4 else [])]
            await app.start(wf, order, run_id=f"a{i}", tags=tags, metadata={"i": i})
            clock.move(seconds=1)
        for i in range(2):
            await app.start(another, {"i": i}, run_id=f"b{i}")
            clock.move(seconds=1)
        await app.tick()
        await app.start(another, run_id="c0", delay="1h")
        app.clock = clock
        yield app


NEWEST_FIRST = ["c0", "b1", "b0", "a7", "a6", "a5", "a4", "a3", "a2", "a1", "a0"]


async def test_runs_come_newest_first(shop: Any) -> None:
    page = await shop.runs()
    assert [run.id for run in page.items] == NEWEST_FIRST
    assert page.next is None


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 10, 11, 12, 500])
@pytest.mark.parametrize("order", ["-created_at", "created_at"])
async def test_pages_follow_one_another_without_gap_or_repeat(shop: Any, limit: int, order: str) -> None:
    expected = NEWEST_FIRST if order == "-created_at" else NEWEST_FIRST[::-1]
    found, pages, after = [], 0, None
    while True:
        page = await shop.runs(limit=limit, order=order, after=after)
        assert len(page.items) <= limit
        found += [run.id for run in page.items]
        pages += 1
        if (after := page.next) is None:
            break
    assert found == expected
    assert pages == -(-len(expected) // limit)
    assert await ids_of(shop, limit=limit, order=order) == expected


async def test_pages_are_stable_while_runs_are_added(shop: Any) -> None:
    first = await shop.runs(limit=4)
    await shop.start("other", run_id="new")
    second = await shop.runs(limit=500, after=first.next)
    assert [run.id for run in (*first.items, *second.items)] == NEWEST_FIRST


async def test_runs_created_at_the_same_instant_are_told_apart(make_app: Any, runs: Any) -> None:
    async with make_app(other(), worker=False) as app:
        await app.start_many("other", [None] * 25)
        await runs.update_many({}, {"$set": {"created_at": datetime(2024, 1, 1, tzinfo=UTC)}})
        for order in ("created_at", "-created_at"):
            found = await ids_of(app, limit=4, order=order)
            assert found == sorted(found, reverse=order.startswith("-"))
            assert len(set(found)) == 25


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"workflow": "other"}, ["c0", "b1", "b0"]),
        ({"workflow": "nobody"}, []),
        ({"status": "failed"}, ["a7"]),
        ({"status": ["failed", "draft"]}, ["c0", "a7"]),
        ({"status": "compensated"}, []),
        ({"tags": "big"}, ["a7", "a6", "a5"]),
        ({"tags": ["big", "even"]}, ["a6"]),
        ({"tags": ("big", "even"), "status": "failed"}, []),
        ({"match": {"input.customer": "ann"}}, ["a7", "a5", "a3", "a1"]),
        ({"match": {"input.amount": {"$gte": 2, "$lt": 5}}}, ["a4", "a3", "a2"]),
        ({"match": {"metadata.i": {"$in": [1, 2]}}}, ["a2", "a1"]),
        ({"match": {"output.charged": 3}}, ["a3"]),
        ({"match": {"output": {"charged": 3}}}, ["a3"]),
        (
            {"match": {"$or": [{"input.amount": 1}, {"$and": [{"metadata.i": 4}, {"input.customer": "bob"}]}]}},
            ["a4", "a1"],
        ),
        ({"match": {"input.amount": {"$not": {"$gte": 1}}, "metadata.i": {"$exists": True}}}, ["a7", "a0"]),
        ({"match": {"$nor": [{"input.customer": {"$in": ["ann", "bob"]}}]}, "workflow": "other"}, ["c0", "b1", "b0"]),
        ({"match": {}}, NEWEST_FIRST),
    ],
    ids=repr,
)
async def test_filters_find_what_they_say(shop: Any, query: dict[str, Any], expected: list[str]) -> None:
    assert await ids_of(shop, **query) == expected
    assert sum((await shop.count_runs(**query)).values()) == len(expected)


async def test_a_workflow_object_stands_for_its_name(shop: Any) -> None:
    assert await ids_of(shop, workflow=other()) == ["c0", "b1", "b0"]


async def test_the_time_of_creation_bounds_runs(shop: Any) -> None:
    made = [(await shop.get(f"a{i}")).created_at for i in range(4)]
    assert await ids_of(shop, created_after=made[1], created_before=made[3]) == ["a2", "a1"]
    assert await ids_of(shop, created_before=made[1]) == ["a0"]
    assert await ids_of(shop, created_after=shop.clock.now() + timedelta(days=1)) == []
    assert await ids_of(shop, created_after=made[2], workflow="order", status="done", order="created_at") == [
        "a2",
        "a3",
        "a4",
        "a5",
        "a6",
    ]


async def test_runs_are_counted_by_status(shop: Any) -> None:
    assert await shop.count_runs() == {"done": 9, "failed": 1, "draft": 1}
    assert await shop.count_runs("other") == {"done": 2, "draft": 1}
    assert await shop.count_runs("nobody") == {}


async def test_runs_of_a_known_workflow_have_their_types_and_others_are_as_stored(shop: Any, make_app: Any) -> None:
    (run,) = (await shop.runs(match={"metadata.i": 3})).items
    assert run.input == Order(customer="ann", amount=3)
    async with make_app(worker=False) as stranger:
        (run,) = (await stranger.runs(match={"metadata.i": 3})).items
        assert run.input == {"customer": "ann", "amount": 3}
        assert run.output == {"charged": 3}


def forged(*parts: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


BAD: list[dict[str, Any]] = [
    {"workflow": 5},
    {"workflow": {"$ne": "x"}},
    {"status": "weird"},
    {"status": []},
    {"status": ["done", "weird"]},
    {"status": 5},
    {"status": {"$ne": "done"}},
    {"tags": []},
    {"tags": [5]},
    {"tags": {"$exists": True}},
    {"match": []},
    {"match": "x"},
    {"match": {"$where": "1"}},
    {"match": {"$expr": {"$eq": ["$tenant_id", "x"]}}},
    {"match": {"$jsonSchema": {}}},
    {"match": {"$text": {"$search": "x"}}},
    {"match": {"$comment": "x"}},
    {"match": {"tenant_id": "x"}},
    {"match": {"_id": "x"}},
    {"match": {"lease.token": {"$exists": True}}},
    {"match": {"steps.0.output": 1}},
    {"match": {"state": {}}},
    {"match": {"inputs": 1}},
    {"match": {"": 1}},
    {"match": {5: 1}},
    {"match": {"input.a": {"$regex": "(a+)+$"}}},
    {"match": {"input.a": {"$where": "1"}}},
    {"match": {"input.a": {"$not": {"$regex": "x"}}}},
    {"match": {"input.a": {"$elemMatch": {"$where": "1"}}}},
    {"match": {"input.a": {"$in": [{"$function": {}}]}}},
    {"match": {"input.a": {"$type": "string"}}},
    {"match": {"input.a": {"$mod": [2, 1]}}},
    {"match": {"$or": []}},
    {"match": {"$or": {}}},
    {"match": {"$or": [{"$where": "1"}]}},
    {"match": {"$and": [{"input.a": 1}, {"tenant_id": "x"}]}},
    {"match": {"$or": ["x"]}},
    {"match": {"input.a": "a\0b", "input\0": 1}},
    {"match": {"input.a": object()}},
    {"match": {"input.a": 2**64}},
    {"match": {"input.a": {"$in": 5}}},
    {"match": {"input.a": {"$size": "x"}}},
    {"match": {"input.a": {"$gt": 1, "b": 2}}},
    {"created_after": "2024-01-01"},
    {"created_after": datetime(2024, 1, 1)},
    {"created_before": 5},
]
BAD_PAGES: list[dict[str, Any]] = [
    {"order": "$natural"},
    {"order": "priority"},
    {"order": None},
    {"order": ["created_at"]},
    {"limit": 0},
    {"limit": -1},
    {"limit": 501},
    {"limit": 10**9},
    {"limit": "10"},
    {"limit": True},
    {"limit": 1.5},
    {"limit": None},
    {"after": ""},
    {"after": "x"},
    {"after": 5},
    {"after": "a0"},
    {"after": "é"},
    {"after": forged(1)},
    {"after": forged(1, 2)},
    {"after": forged(1, {"$gt": ""})},
    {"after": forged("x", "a0")},
    {"after": forged(10**30, "a0")},
    {"after": forged(None, None)},
    {"after": forged(1, "a0", "more")},
    {"after": base64.urlsafe_b64encode(b"\xff\xfe").decode()},
    {"after": base64.urlsafe_b64encode(b'[1e999,"a"]').decode()},
    {"after": base64.urlsafe_b64encode(b"[" * 100_000).decode()},
]


async def refusals(ask: Callable[..., Any], queries: list[dict[str, Any]]) -> list[str]:
    """What came of the queries that were not refused as they should have been."""
    wrong = []
    for query in queries:
        try:
            answer = await ask(**query)
        except InvalidQuery as error:
            if error.field not in query or error.http_status != 422:
                wrong.append(f"{query!r:.80}: field {error.field}")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not the error that is promised
            wrong.append(f"{query!r:.80}: {type(error).__name__}: {error}"[:200])
        else:
            wrong.append(f"{query!r:.80}: answered {answer!r:.40}")
    return wrong


async def test_a_query_that_is_not_allowed_is_refused(make_app: Any) -> None:
    async with make_app(worker=False) as app:
        assert await refusals(app.runs, [*BAD, *BAD_PAGES]) == []
        assert await refusals(app.count_runs, BAD) == []


@pytest.mark.parametrize(
    "verb", ["get", "cancel", "retry", "pause", "unpause", "wait_for_run", "result_of", "events_of"]
)
async def test_a_run_id_that_is_no_text_finds_nothing(make_app: Any, runs: Any, verb: str) -> None:
    async with make_app(other(), worker=False) as app:
        await app.start("other", run_id="a0")
        await app.tick()
        await app.start("other", run_id="a1")
        before = [document async for document in runs.find({})]
        for run_id in ({"$gt": ""}, {"$exists": True}, None, 5, ["a0"], "", "a0\0", b"a0"):
            with pytest.raises(StreamlineError) as caught:
                await (anext(app.events_of(run_id)) if verb == "events_of" else getattr(app, verb)(run_id))
            assert caught.value.http_status in (404, 422), run_id
        assert [document async for document in runs.find({})] == before


async def test_a_filter_larger_than_a_command_is_refused(make_app: Any) -> None:
    async with make_app(worker=False) as app:
        with pytest.raises(InvalidQuery) as refused:
            await app.runs(match={"input.x": b"x" * (17 * 1024 * 1024)})
        assert refused.value.field == "match"
