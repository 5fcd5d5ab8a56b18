"""What becomes of children whose parent ends first, and of those of a parent that begins again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamline import Context, NonRetriableError, Workflow
from tests.integration.kin import Held, child_of, leaf, parent_of
from tests.waiting import eventually, status_of


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("on_parent_close", ["cancel", "abandon"])
async def test_a_parents_cancel_reaches_its_children_unless_they_are_abandoned(
    make_app: Any, runs: Any, wait: bool, on_parent_close: str
) -> None:
    held = Held()
    wf: Workflow[Any, Any, Any] = Workflow("parent")

    @wf.step
    async def ask(ctx: Context[Any]) -> None:
        await ctx.start_child(held.workflow, wait=wait, on_parent_close=on_parent_close)
        await ctx.wait("for ever")

    async with make_app(wf, held.workflow) as app:
        handle = await app.start(wf)
        await eventually(lambda: held.entered)
        await status_of(handle, "waiting")
        child = app.handle(held.entered[0])
        await handle.cancel(reason="enough")
        await eventually(lambda: runs.find_one({"_id": handle.id, "owes_at": {"$exists": False}}))
        if on_parent_close == "abandon":
            assert await child.status() == "running"
            held.gate.set()
            assert await child.result("20s") == "let go"
            return
        run = await status_of(child, "cancelled")
        await eventually(lambda: held.cancelled == [child.id])
    assert run.cancel["reason"] == "its parent is cancelled"


async def test_a_failing_parent_ends_its_detached_children_and_theirs(make_app: Any, runs: Any) -> None:
    held, entered = Held(), asyncio.Event()
    middle: Workflow[Any, Any, Any] = Workflow("middle")
    wf: Workflow[Any, Any, Any] = Workflow("parent")

    @middle.step
    async def pass_on(ctx: Context[Any]) -> None:
        await ctx.start_child(held.workflow)

    @wf.step
    async def fail(ctx: Context[Any]) -> None:
        await ctx.start_child(middle, wait=False)
        await entered.wait()
        raise NonRetriableError("no")

    async with make_app(wf, middle, held.workflow) as app:
        handle = await app.start(wf)
        await eventually(lambda: held.entered)
        entered.set()
        assert (await handle.wait("20s")).status == "failed"
        await status_of(app.handle(held.entered[0]), "cancelled")
        await eventually(lambda: held.cancelled)
        assert (await child_of(runs, handle.id))["status"] == "cancelled"


async def test_a_parent_whose_time_is_over_ends_its_child(make_app: Any, runs: Any) -> None:
    held = Held()
    async with make_app(wf := parent_of(held.workflow), held.workflow) as app:
        handle = await app.start(wf, timeout="400ms")
        assert (await handle.wait("20s")).error.code == "run.timeout"
        found = await child_of(runs, handle.id)
        await status_of(app.handle(found["_id"]), "cancelled")


@pytest.mark.parametrize("how", ["failed", "cancelled"])
async def test_a_compensated_parent_ends_its_children_before_it_is_undone(make_app: Any, runs: Any, how: str) -> None:
    held, seen = Held(), []
    wf: Workflow[Any, Any, Any] = Workflow("parent", compensate_on={"failed", "cancelled"})

    @wf.step
    async def begin(ctx: Context[Any]) -> str:
        return str(await ctx.start_child(held.workflow, wait=False))

    @begin.compensate
    async def undo(ctx: Context[Any], child_id: str) -> None:
        # While this undoes what was done, a child that still does more would undo the undoing.
        await status_of(app.handle(child_id), "cancelled")
        seen.append(child_id)

    @wf.step
    async def end(ctx: Context[Any]) -> None:
        await eventually(lambda: held.entered)
        if how == "failed":
            raise NonRetriableError("no")
        await ctx.wait("for ever")

    async with make_app(wf, held.workflow) as app:
        handle = await app.start(wf)
        if how == "cancelled":
            await status_of(handle, "waiting")
            await handle.cancel()
        run = await handle.wait("10s")
    assert run.status == "compensated"
    assert seen == held.entered


@pytest.mark.parametrize("on_parent_close", ["cancel", "abandon"])
async def test_a_rewound_parent_ends_the_child_it_waited_for(make_app: Any, runs: Any, on_parent_close: str) -> None:
    held = Held()
    async with make_app(wf := parent_of(held.workflow, on_parent_close=on_parent_close), held.workflow) as app:
        handle = await app.start(wf)
        await eventually(lambda: held.entered)
        await status_of(handle, "waiting")
        await handle.rewind("ask")
        await eventually(lambda: len(held.entered) == 2)
        old, new = held.entered
        if on_parent_close == "cancel":
            await status_of(app.handle(old), "cancelled")
        held.gate.set()
        assert await handle.result("20s") == ["done", "let go"]
        assert await app.handle(new).status() == "done"
        assert await app.handle(old).wait("10s")
    assert held.cancelled == ([old] if on_parent_close == "cancel" else [])


async def test_a_rewound_parent_starts_new_children(make_app: Any, runs: Any) -> None:
    child, done = leaf(), []
    wf: Workflow[Any, Any, Any] = Workflow("parent")

    @wf.step
    async def ask(ctx: Context[Any]) -> Any:
        return await ctx.start_child(child, len(done), key="k")

    @wf.step
    async def after(ctx: Context[Any]) -> Any:
        done.append(ctx.output(ask))
        return ctx.output(ask)

    async with make_app(wf, child) as app:
        handle = await app.start(wf)
        assert await handle.result("20s") == 0
        await handle.rewind(ask)
        assert await handle.result("20s") == 1
        await handle.rewind(after)
        assert await handle.result("20s") == 1
    assert done == [0, 1, 1]
    assert await runs.count_documents({"parent.run_id": handle.id}) == 2


async def test_a_jump_back_starts_new_children(make_app: Any, runs: Any) -> None:
    child, turns = leaf(), []
    wf: Workflow[Any, Any, Any] = Workflow("parent")

    @wf.step
    async def ask(ctx: Context[Any]) -> Any:
        return await ctx.start_child(child, len(turns))

    @wf.step
    async def again(ctx: Context[Any]) -> Any:
        turns.append(ctx.output(ask))
        if len(turns) < 3:
            ctx.goto(ask)
        return turns

    async with make_app(wf, child) as app:
        handle = await app.start(wf)
        assert await handle.result("20s") == [0, 1, 2]
    assert await runs.count_documents({"parent.run_id": handle.id}) == 3


async def test_a_retried_parent_starts_its_failed_child_anew_and_keeps_the_others(make_app: Any, runs: Any) -> None:
    mended: list[int] = []
    good, bad = leaf("good"), Workflow("bad")
    wf: Workflow[Any, Any, Any] = Workflow("parent")

    @bad.step
    async def fail(ctx: Context[Any]) -> str:
        if not mended:
            raise NonRetriableError("not yet")
        return "mended"

    @wf.step
    async def ask(ctx: Context[Any]) -> Any:
        return [await ctx.start_child(good, 1), await ctx.start_child(bad)]

    async with make_app(wf, good, bad) as app:
        handle = await app.start(wf)
        assert (await handle.wait("20s")).status == "failed"
        mended.append(1)
        await handle.retry()
        assert await handle.result("20s") == [1, "mended"]
    assert await runs.count_documents({"workflow": "good"}) == 1
    assert await runs.count_documents({"workflow": "bad"}) == 2


@pytest.mark.parametrize("ended_by", ["cancel", "timeout"])
async def test_a_parent_retried_after_its_own_end_starts_its_ended_child_anew(
    make_app: Any, runs: Any, ended_by: str
) -> None:
    held = Held()
    async with make_app(wf := parent_of(held.workflow), held.workflow) as app:
        handle = await app.start(wf, timeout="400ms" if ended_by == "timeout" else None)
        await eventually(lambda: held.entered)
        if ended_by == "cancel":
            await handle.cancel()
        await handle.wait("20s")
        await status_of(app.handle(held.entered[0]), "cancelled")
        await eventually(lambda: runs.find_one({"_id": handle.id, "owes_at": {"$exists": False}}))
        await handle.retry()
        held.gate.set()
        assert await handle.result("20s") == ["done", "let go"]
