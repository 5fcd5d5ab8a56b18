"""Removing runs that have ended, with everything that belongs to them; and what must not be removed."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from streamline import Context, NonRetriableError, Worker, Workflow
from streamline.errors import IllegalTransition, InvalidPolicy, RunNotFound
from tests.integration.kin import Held
from tests.waiting import PATIENCE, eventually, status_of


def flow(name: str = "flow", **options: Any) -> Workflow[Any, Any, Any]:
    """A workflow whose run ends as its input says; with a number, after so many calls."""
    wf: Workflow[Any, Any, Any] = Workflow(name, **options)

    @wf.step(max_attempts=1)
    async def end(ctx: Context[Any]) -> Any:
        async def call(n: int) -> int:
            return n

        if isinstance(ctx.input, int):
            for n in range(ctx.input):
                await ctx.call(f"c{n}", call, n)
        if ctx.input == "wait":
            await ctx.wait("for ever")
        if ctx.input != "done":
            raise NonRetriableError("as told")

    return wf


async def ended(app: Any, how: Any = "done", **options: Any) -> Any:
    handle = await app.start("flow", how, **options)
    await handle.wait(PATIENCE)
    return handle


async def all_of(database: Any, run_id: str) -> dict[str, int]:
    """How many documents mention a run, by collection; the log, and what was sent to others, apart."""
    found = {}
    for name in await database.list_collection_names():
        documents = [each async for each in database[name].find({})]
        found[name] = sum(run_id in str(each) for each in documents)
    return {name: n for name, n in found.items() if n and name not in ("streamline.log", "streamline.wakes")}


@pytest.mark.parametrize("how", ["done", "failed", 150])
async def test_nothing_is_left_of_a_run_that_was_deleted(make_app: Any, database: Any, how: Any) -> None:
    async with make_app(flow(retention="30d"), worker=Worker(poll_interval="1h")) as app:
        other, handle = await ended(app), await ended(app, how, tags=["t"])
        if how == 150:
            assert await database["streamline.memo"].count_documents({"run_id": handle.id}) > 40
        assert await app.delete(handle.id) == 1
        assert await all_of(database, handle.id) == {}
        with pytest.raises(RunNotFound):
            await handle.get()
        with pytest.raises(RunNotFound):
            await handle.delete()
        assert (await other.get()).status == "done"


@pytest.mark.parametrize("how", ["draft", "wait", "paused"])
async def test_a_run_that_has_not_ended_is_not_deleted(make_app: Any, runs: Any, how: str) -> None:
    async with make_app(flow()) as app:
        handle = await app.start("flow", how, delay="1h" if how != "wait" else None)
        if how == "wait":
            await status_of(handle, "waiting")
        if how == "paused":
            await handle.pause()
        before = await runs.find_one({"_id": handle.id})
        with pytest.raises(IllegalTransition, match="cancel it first") as refused:
            await handle.delete()
        assert refused.value.field == "status"
        assert await runs.find_one({"_id": handle.id}) == before
        await handle.cancel()
        assert await handle.delete() == 1


async def test_what_is_no_run_is_not_found(make_app: Any) -> None:
    async with make_app(flow()) as app:
        for wrong in ("none", "", {"$ne": None}):
            with pytest.raises(RunNotFound):
                await app.delete(wrong)
        with pytest.raises(InvalidPolicy):
            await app.delete("none", children=1)


async def test_whoever_waits_for_a_run_hears_that_it_is_gone(make_app: Any) -> None:
    async with make_app(flow()) as app:
        handle = await app.start("flow", "done", delay="1h")
        waiting = asyncio.ensure_future(handle.wait(PATIENCE))
        events = asyncio.ensure_future(anext(handle.events(after=5)))
        await asyncio.sleep(0.05)
        # As if its end was not heard of here.
        await app.database["streamline.runs"].update_one(
            {"_id": handle.id}, {"$set": {"status": "weird"}, "$unset": {"due_at": ""}}
        )
        await handle.delete()
        for asking in (waiting, events):
            with pytest.raises(RunNotFound):
                await asyncio.wait_for(asking, 5)


async def test_a_key_that_was_kept_is_free_again(make_app: Any) -> None:
    async with make_app(flow()) as app:
        first = await ended(app, idempotency_key="k", idempotency="forever")
        assert not (await app.start("flow", "done", idempotency_key="k", idempotency="forever")).created
        await first.delete()
        assert (await app.start("flow", "done", idempotency_key="k", idempotency="forever")).created


async def test_a_damaged_run_can_be_deleted(make_app: Any, runs: Any) -> None:
    async with make_app(flow()) as app:
        handle = await ended(app)
        for damage in ({"$set": {"status": "weird"}}, {"$unset": {"rev": "", "event_seq": "", "events": ""}}):
            await runs.update_one({"_id": handle.id}, damage)
        await handle.delete()
        assert await runs.count_documents({}) == 0


def family(held: Held) -> list[Workflow[Any, Any, Any]]:
    """A workflow that starts two of its kind, down to some depth, and at the end one that can be held."""
    wf: Workflow[Any, Any, Any] = Workflow("family")

    @wf.step
    async def beget(ctx: Context[Any]) -> None:
        if ctx.input > 0:
            await ctx.join(dict.fromkeys("ab", (wf, ctx.input - 1)))
        if ctx.input == -1:
            await ctx.start_child(held.workflow, wait=False, on_parent_close="abandon")

    return [wf, held.workflow]


async def test_children_stay_unless_they_are_to_go_too(make_app: Any, runs: Any) -> None:
    async with make_app(*family(Held())) as app:
        for children, left in ((False, 6), (True, 0)):
            handle = await app.start("family", 2)
            await handle.wait(PATIENCE)
            await eventually(lambda: _owe_nothing(runs))
            assert await handle.delete(children=children) == 7 - left
            assert await runs.count_documents({}) == left
            await runs.delete_many({})


async def _owe_nothing(runs: Any) -> bool:
    return not await runs.count_documents({"owes_at": {"$exists": True}})


async def test_where_a_child_goes_on_nothing_is_deleted(make_app: Any, runs: Any) -> None:
    held = Held()
    async with make_app(*family(held)) as app:
        handle = await app.start("family", -1)
        await handle.wait(PATIENCE)
        await eventually(lambda: held.entered)
        with pytest.raises(IllegalTransition, match="its child") as refused:
            await handle.delete(children=True)
        assert refused.value.field == "children"
        assert await runs.count_documents({}) == 2
        held.gate.set()
        await app.wait_for_run(held.entered[0], PATIENCE)
        assert await handle.delete(children=True) == 2


def waiting_family(child: Workflow[Any, Any, Any], other: Workflow[Any, Any, Any]) -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow("parent")

    @wf.step
    async def both(ctx: Context[Any]) -> Any:
        return await ctx.join({"quick": (child, "done"), "slow": (other, None)})

    return wf


async def test_a_child_that_its_parent_has_yet_to_read_is_not_deleted(make_app: Any, runs: Any) -> None:
    held, child = Held(), flow()
    wf = waiting_family(child, held.workflow)
    async with make_app(wf, child, held.workflow) as app:
        handle = await app.start(wf)
        await eventually(lambda: held.entered)
        done = await eventually(lambda: runs.find_one({"workflow": "flow", "status": "done"}))
        with pytest.raises(IllegalTransition) as refused:
            await app.delete(done["_id"])
        assert refused.value.field == "parent"
        held.gate.set()
        await handle.result(PATIENCE)
        assert await app.delete(done["_id"]) == 1


async def test_a_childs_time_is_not_over_before_its_parent_has_read_it(make_app: Any, runs: Any) -> None:
    """Else the parent would take it for one that was never started, and it would be done again."""
    held, began = Held(), list[str]()
    child: Workflow[Any, Any, Any] = Workflow("quick", retention=0.1)

    @child.step
    async def work(ctx: Context[Any]) -> str:
        began.append(ctx.run_id)
        return "worked"

    wf = waiting_family(child, held.workflow)
    async with make_app(wf, child, held.workflow, worker=Worker(lease="400ms")) as app:
        handle = await app.start(wf)
        await eventually(lambda: held.entered)
        told = await eventually(lambda: runs.find_one({"workflow": "quick", "told_at": {"$exists": True}}))
        await runs.update_one({"_id": told["_id"]}, [{"$set": {"owes_at": {"$subtract": ["$$NOW", 5000]}}}])
        # Its time would be over, and the sweep looks at it.
        stored = await eventually(lambda: runs.find_one({"workflow": "quick", "rev": {"$gt": told["rev"]}}))
        assert "expire_at" not in stored
        assert stored["owes_at"] - stored["updated_at"] >= timedelta(seconds=5)
        held.gate.set()
        assert await handle.result(PATIENCE) == {"quick": "worked", "slow": "let go"}
        assert len(began) == 1
        await runs.update_one({"workflow": "quick"}, [{"$set": {"owes_at": {"$subtract": ["$$NOW", 5000]}}}])
        await eventually(lambda: _has_an_end(runs, began[0]))


async def _has_an_end(runs: Any, run_id: str) -> bool:
    found = await runs.find_one({"_id": run_id})
    return found is None or "expire_at" in found
