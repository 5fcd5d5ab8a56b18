"""``send_event(..., start_if_missing=...)``: the event for those who are there, or for one that is started with it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from streamline import CancelOn, Context, Debounce, Tenancy, Workflow
from streamline.errors import IdempotencyConflict, InvalidInput, InvalidPolicy, InvalidQuery, WorkflowNotFound
from tests.waiting import eventually, status_of


class Cart(BaseModel):
    shop: str = "x"


def cart(name: str = "cart", **options: Any) -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow(name, **options)

    @wf.step
    async def collect(ctx: Context[Any]) -> list[Any]:
        items = list[Any]()
        while (item := await ctx.wait_for("item", key=f"item{len(items)}")) != "pay":
            items.append(item)
        return items

    return wf


async def test_a_run_is_started_with_the_event_and_gets_the_next_ones(make_app: Any, runs: Any) -> None:
    wf = cart(input=Cart)
    async with make_app(wf) as app:
        for item in ("a", "b", "pay"):
            asked = {"match": {"input.shop": "y"}, "start_if_missing": (wf, Cart(shop="y"))}
            assert await app.send_event("item", item, **asked) == 1
        run = await eventually(lambda: runs.find_one({"status": "done"}))
        assert run["output"] == ["a", "b"]
        assert (
            await app.send_event("item", "c", match={"input.shop": "y"}, start_if_missing=("cart", {"shop": "y"})) == 1
        )
        assert await runs.count_documents({}) == 2


async def test_a_run_of_a_chosen_id_is_started_once(make_app: Any, runs: Any) -> None:
    wf = cart()
    async with make_app(wf) as app:
        for item in ("a", "b", "pay"):
            assert await app.send_event("item", item, run_id="cart-7", start_if_missing=(wf, None)) == 1
        assert await app.handle("cart-7").result("10s") == ["a", "b"]
        with pytest.raises(IdempotencyConflict):
            await app.send_event("item", "late", run_id="cart-7", start_if_missing=wf)
    assert await runs.count_documents({}) == 1


@pytest.mark.parametrize("by", ["run_id", "match", "nothing", "key"])
async def test_of_many_senders_at_once_one_starts_the_run_and_no_event_is_lost(
    make_app: Any, runs: Any, by: str
) -> None:
    wf = cart(idempotency_key=(lambda value: "one") if by == "key" else None)
    asked = {"run_id": {"run_id": "cart"}, "match": {"match": {"input.shop": "y"}}}.get(by, {})
    async with make_app(wf) as app, make_app(wf, worker=False) as other:
        senders = [app, other]
        reached = await asyncio.gather(
            *(senders[n % 2].send_event("item", n, **asked, start_if_missing=(wf, {"shop": "y"})) for n in range(8))
        )
        assert reached == [1] * 8
        assert await app.send_event("item", "pay", **asked, start_if_missing=(wf, {"shop": "y"})) == 1
        run = await eventually(lambda: runs.find_one({"status": "done"}))
    assert sorted(run["output"]) == list(range(8))
    assert await runs.count_documents({}) == 1


async def test_runs_that_are_there_get_it_even_where_they_do_not_wait_yet(make_app: Any, runs: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("late")

    @wf.step
    async def late(ctx: Context[Any]) -> Any:
        await ctx.wait("begin")
        return await ctx.wait_for("item")

    async with make_app(wf) as app:
        handles = [await app.start(wf, n) for n in range(2)]
        for handle in handles:
            await status_of(handle, "waiting")
        assert await app.send_event("item", "x", start_if_missing=wf) == 2
        for handle in handles:
            await handle.resume()
        assert [await handle.result("10s") for handle in handles] == ["x", "x"]
    assert await runs.count_documents({}) == 2


async def test_without_an_input_the_payload_is_the_input(make_app: Any, runs: Any) -> None:
    wf = cart(input=Cart)
    async with make_app(wf) as app:
        assert await app.send_event("item", {"shop": "z"}, start_if_missing="cart") == 1
    assert (await runs.find_one({}))["input"] == {"shop": "z"}


async def test_a_run_of_another_workflow_does_not_count(make_app: Any, runs: Any) -> None:
    wf, other = cart(), cart("other")
    async with make_app(wf, other) as app:
        stranger = await app.start(other, run_id="x")
        assert await app.send_event("item", 1, start_if_missing=wf) == 1
        with pytest.raises(IdempotencyConflict) as refused:
            await app.send_event("item", 1, run_id="x", start_if_missing=wf)
        assert refused.value.field == "run_id"
        assert "inbox" not in await runs.find_one({"_id": stranger.id})
    assert await runs.count_documents({}) == 2


async def test_an_event_that_cancels_is_no_event_to_be_kept(make_app: Any, runs: Any) -> None:
    wf = cart(cancel_on=[CancelOn("stop")])
    async with make_app(wf) as app:
        handle = await app.start(wf)
        assert await app.send_event("stop", start_if_missing=wf) == 1
        assert await handle.status() == "cancelled"


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"start_if_missing": 5}, InvalidPolicy),
        ({"start_if_missing": ("cart", 1, 2)}, InvalidPolicy),
        ({"start_if_missing": "nobody"}, WorkflowNotFound),
        ({"start_if_missing": ("cart", "no cart")}, InvalidInput),
        ({"start_if_missing": "cart", "run_id": "a", "match": {"input.a": 1}}, InvalidQuery),
        ({"start_if_missing": "cart", "match": {"$where": "1"}}, InvalidQuery),
    ],
)
async def test_what_cannot_be_started_is_refused(make_app: Any, database: Any, asked: Any, error: Any) -> None:
    async with make_app(cart(input=Cart)) as app:
        with pytest.raises(error):
            await app.send_event("item", {"shop": 5}, **asked)
    assert await database["streamline.runs"].count_documents({}) == 0
    assert await database["streamline.inbox"].count_documents({}) == 0


async def test_an_event_that_is_merged_into_a_draft_is_taken_once(make_app: Any, runs: Any) -> None:
    wf = cart(debounce=Debounce("300ms"))
    async with make_app(wf) as app:
        assert await app.send_event("item", "a", run_id="one", start_if_missing=wf) == 1
        assert await app.send_event("item", "b", run_id="two", start_if_missing=wf) == 1
        assert await app.send_event("item", "pay", run_id="three", start_if_missing=wf) == 1
        assert await app.handle("one").result("10s") == ["a", "b"]
    assert await runs.count_documents({}) == 1


async def test_an_id_that_another_tenant_has_is_refused_at_once(make_app: Any) -> None:
    async with make_app(cart(), tenancy=Tenancy(), worker=False) as app:
        await app.tenant("other").start("cart", run_id="taken")
        with pytest.raises(IdempotencyConflict):
            await app.tenant("acme").send_event("item", 1, run_id="taken", start_if_missing="cart")
