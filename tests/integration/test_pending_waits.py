"""``app.pending_waits``: who waits for what, the oldest first, and nothing that opens a wait."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamline import Context, Streamline, Workflow
from streamline.errors import InvalidQuery
from tests.clocks import MovableClock
from tests.waiting import eventually

TOKENS: list[str] = []


def asking(name: str, kind: str) -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow(name)

    @wf.step
    async def work(ctx: Context[Any]) -> None:
        if kind == "wait":
            await ctx.wait("a wait", data={"n": 1}, timeout="1d")
        elif kind == "event":
            await ctx.wait_for("paid", match={"id": 1})
        elif kind == "hook":
            hook = await ctx.create_hook("pay", expires="1d")
            TOKENS.append(hook.token)
            await hook.wait()
        elif kind == "approval":
            await ctx.approve("sure?", approvers=["ann"], on_token=TOKENS.append)
        elif kind == "question":
            await ctx.ask("how many?", on_token=TOKENS.append)
        elif kind == "sleep":
            await ctx.sleep("1d")

    return wf


KINDS = ("wait", "event", "hook", "approval", "question")


async def parked(app: Streamline, workflow: Workflow[Any, Any, Any]) -> Any:
    handle = await app.start(workflow)
    await app.tick()
    assert await handle.status() == "waiting"
    return handle


async def test_everything_that_somebody_can_answer_is_listed_the_oldest_first(make_app: Any) -> None:
    flows = [asking(f"flow-{kind}", kind) for kind in ("approval", "wait", "sleep", "hook", "event", "question")]
    clock = MovableClock()
    async with make_app(*flows, worker=False, clock=clock) as app, make_app(worker=False) as other:
        ids = {}
        for flow in flows:
            ids[flow.name] = (await parked(app, flow)).id
            clock.move(seconds=5)
        waits = await other.pending_waits()
        assert [wait.kind for wait in waits] == ["approval", "wait", "hook", "event", "question"]
        assert [wait.run_id for wait in waits] == [ids[wait.workflow] for wait in waits]
        assert [wait.opened_at for wait in waits] == sorted(wait.opened_at for wait in waits)
        assert {wait.step for wait in waits} == {"work"}
        approval, wait, hook, event, question = waits
    assert (approval.reason, approval.approvers) == ("sure?", ("ann",))
    assert (wait.reason, wait.data, wait.due_at > wait.opened_at) == ("a wait", {"n": 1}, True)
    assert (hook.key, event.name, question.reason) == ("pay", "paid", "how many?")


async def test_no_token_and_no_hash_of_one_is_listed(make_app: Any, runs: Any) -> None:
    TOKENS.clear()
    flows = [asking(f"flow-{kind}", kind) for kind in KINDS]
    async with make_app(*flows, worker=False) as app:
        for flow in flows:
            await parked(app, flow)
        said = repr(await app.pending_waits()) + repr([await app.get(run.id) for run in (await app.runs()).items])
    hashes = [each async for run in runs.find({"hooks": {"$exists": True}}) for each in run["hooks"]]
    assert (len(TOKENS), len(hashes)) == (3, 3)
    assert not [secret for secret in TOKENS + hashes if secret in said]


@pytest.mark.parametrize("kind", KINDS)
async def test_one_kind_can_be_asked_for(make_app: Any, kind: str) -> None:
    flows = [asking(f"flow-{each}", each) for each in KINDS]
    async with make_app(*flows, worker=False) as app:
        for flow in flows:
            await parked(app, flow)
        assert [wait.kind for wait in await app.pending_waits(kind)] == [kind]


async def test_one_workflow_or_run_can_be_asked_for(make_app: Any) -> None:
    one, two = asking("one", "wait"), asking("two", "wait")
    async with make_app(one, two, worker=False) as app:
        handles = [await parked(app, flow) for flow in (one, two, one)]
        ids = [handle.id for handle in handles]
        assert [wait.run_id for wait in await app.pending_waits(workflow=one)] == [ids[0], ids[2]]
        assert [wait.run_id for wait in await app.pending_waits(workflow="two")] == [ids[1]]
        assert [wait.run_id for wait in await app.pending_waits(run_id=ids[2])] == [ids[2]]
        assert await app.pending_waits("hook", run_id=ids[2]) == []
        assert await app.pending_waits(run_id="nobody") == []


async def test_a_limit_bounds_the_waits_of_the_kind_asked_for(make_app: Any) -> None:
    old, new = asking("old", "event"), asking("new", "approval")
    clock = MovableClock()
    async with make_app(old, new, worker=False, clock=clock) as app:
        for flow in (old, old, old, new):
            handle = await parked(app, flow)
            clock.move(seconds=1)
        assert len(await app.pending_waits(limit=2)) == 2
        assert [wait.run_id for wait in await app.pending_waits("approval", limit=2)] == [handle.id]


@pytest.mark.parametrize("arguments", [{"kind": "sleep"}, {"limit": 0}, {"limit": 1001}, {"limit": True}], ids=repr)
async def test_a_question_that_makes_no_sense_is_refused(make_app: Any, arguments: Any) -> None:
    async with make_app(worker=False) as app:
        with pytest.raises(InvalidQuery):
            await app.pending_waits(**arguments)


@pytest.mark.parametrize("arguments", [{"run_id": {"$gt": ""}}, {"workflow": {"$ne": ""}}], ids=repr)
async def test_operators_from_outside_do_not_reach_the_database(make_app: Any, arguments: Any) -> None:
    flow = asking("one", "wait")
    async with make_app(flow, worker=False) as app:
        await parked(app, flow)
        with pytest.raises(InvalidQuery):
            await app.pending_waits(**arguments)


@pytest.mark.parametrize("end", ["answered", "cancelled", "expired", "rewound"])
async def test_a_wait_that_is_over_is_no_longer_listed(make_app: Any, runs: Any, end: str) -> None:
    flow, clock = asking("one", "wait"), MovableClock()
    async with make_app(flow, worker=False, clock=clock) as app:
        handle = await parked(app, flow)
        if end == "answered":
            await handle.resume()
        elif end == "cancelled":
            await handle.cancel()
        elif end == "expired":
            clock.move(days=2)
            await app.tick()
        else:
            await handle.rewind("work")
        assert await app.pending_waits() == []
        assert "waiting_since" not in await runs.find_one({"_id": handle.id})


async def test_a_paused_run_is_listed(make_app: Any) -> None:
    flow = asking("one", "wait")
    async with make_app(flow, worker=False) as app:
        handle = await parked(app, flow)
        await handle.pause()
        assert [wait.run_id for wait in await app.pending_waits()] == [handle.id]


async def test_a_run_that_was_cancelled_and_is_tried_again_is_listed_and_can_be_answered(make_app: Any) -> None:
    flow = asking("one", "question")
    async with make_app(flow, worker=False) as app:
        handle = await parked(app, flow)
        await handle.cancel()
        await handle.retry()
        await app.tick()
        assert [wait.run_id for wait in await app.pending_waits()] == [handle.id]
        await app.answer(handle.id, 1)
        await app.tick()
        assert await handle.status() == "done"


async def test_waits_of_several_branches_are_listed_one_by_one(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("branches")

    @wf.step
    async def work(ctx: Context[Any]) -> Any:
        async def item(_: int, i: int) -> Any:
            return (await ctx.ask(f"item {i}")).data

        return list(await ctx.each("items", range(3), item))

    async with make_app(wf, worker=False) as app:
        handle = await parked(app, wf)
        waits = await app.pending_waits()
        assert sorted(str(wait.reason) for wait in waits) == ["item 0", "item 1", "item 2"]
        assert len({wait.key for wait in waits}) == 3
        for wait in waits:
            await app.answer(handle.id, wait.reason, key=wait.key)
        await app.tick()
        assert await handle.result("5s") == ["item 0", "item 1", "item 2"]


async def test_what_a_run_asked_before_it_is_undone_is_not_listed(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("undone", compensate_on={"cancelled"})

    @wf.step
    async def book(ctx: Context[Any]) -> str:
        return "booked"

    @book.compensate
    async def unbook(ctx: Context[Any], _: str) -> None:
        await ctx.approve("unbook?")

    @wf.step
    async def pay(ctx: Context[Any]) -> None:
        await ctx.approve("pay?")

    async with make_app(wf, worker=False) as app:
        handle = await parked(app, wf)
        await handle.cancel()
        assert await app.pending_waits() == []
        await app.tick()
        assert [wait.reason for wait in await app.pending_waits()] == ["unbook?"]
        await app.approve(handle.id)
        assert await app.pending_waits() == []
        await app.tick()
        assert await handle.status() == "compensated"


async def test_many_waits_are_listed_once_each(make_app: Any) -> None:
    flow = asking("one", "wait")
    async with make_app(flow) as app, make_app(worker=False) as other:
        handles = await app.start_many(flow, [None] * 40)

        async def all_there() -> bool:
            return len(await other.pending_waits()) == 40

        await eventually(all_there)
        waits = await other.pending_waits()
        assert {wait.run_id for wait in waits} == {handle.id for handle in handles}
        await asyncio.gather(*(handle.resume() for handle in handles[:15]))
        assert {wait.run_id for wait in await other.pending_waits()} == {handle.id for handle in handles[15:]}
