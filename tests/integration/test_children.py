"""Child runs: started once, waited for without cost; whatever becomes of one, its parent hears of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from streamline import Context, NonRetriableError, Workflow
from streamline.errors import InvalidInput, WorkflowNotFound
from tests.clocks import MovableClock
from tests.integration.kin import Held, child_of, leaf, parent_of
from tests.waiting import eventually, status_of


class Parcel(BaseModel):
    weight: int


async def test_a_childs_output_comes_back_in_its_type(make_app: Any) -> None:
    child: Workflow[Any, Any, Any] = Workflow("child", input=int)
    wf: Workflow[Any, Any, Any] = Workflow("parent")
    seen: list[Any] = []

    @child.step
    async def weigh(ctx: Context[int]) -> Parcel:
        return Parcel(weight=ctx.input)

    @wf.step
    async def ask(ctx: Context[Any]) -> int:
        parcel = await ctx.start_child(child, 7)
        seen.append(parcel)
        return int(parcel.weight)

    async with make_app(wf, child) as app:
        assert await app.run(wf, timeout="20s") == 7
    assert seen == [Parcel(weight=7)]


async def test_a_childs_large_output_comes_back(make_app: Any, runs: Any) -> None:
    child: Workflow[Any, Any, Any] = Workflow("child")
    wf: Workflow[Any, Any, Any] = Workflow("parent")

    @child.step
    async def write(ctx: Context[Any]) -> str:
        return "x" * 200_000

    @wf.step
    async def ask(ctx: Context[Any]) -> int:
        text = await ctx.start_child(child)
        await ctx.sleep(0.01)
        return len(text)

    async with make_app(wf, child) as app:
        handle = await app.start(wf)
        assert await handle.result("5s") == 200_000
        assert (await handle.get()).rev < 20


async def test_a_child_can_be_named_and_must_be_known(make_app: Any, runs: Any) -> None:
    child = leaf()
    async with make_app(parent_of("leaf", 3), child) as app:
        assert await app.run("parent", timeout="20s") == ["done", 3]
    wf: Workflow[Any, Any, Any] = Workflow("astray")

    @wf.step
    async def ask(ctx: Context[Any]) -> None:
        await ctx.start_child("nobody")

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.status == "failed"
    assert run.error.type == WorkflowNotFound.__name__


async def test_an_input_that_does_not_fit_starts_no_child(make_app: Any, runs: Any) -> None:
    child = leaf(input=int)
    async with make_app(wf := parent_of(child, "many"), child) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.status == "failed"
    assert run.error.type == InvalidInput.__name__
    assert await runs.count_documents({"workflow": "leaf"}) == 0


async def test_a_parent_costs_no_worker_while_its_child_works(make_app: Any, runs: Any) -> None:
    held = Held()
    async with make_app(wf := parent_of(held.workflow), held.workflow) as app:
        handle = await app.start(wf)
        run = await status_of(handle, "waiting")
        await eventually(lambda: held.entered)
        stored = await runs.find_one({"_id": handle.id})
        held.gate.set()
        assert await handle.result("20s") == ["done", "let go"]
    assert [wait.kind for wait in run.waits] == ["child"]
    assert "lease" not in stored
    assert "due_at" not in stored


async def test_a_child_knows_where_it_comes_from(make_app: Any, runs: Any) -> None:
    last, middle = leaf("last"), Workflow("middle")

    @middle.step
    async def pass_on(ctx: Context[Any]) -> Any:
        return await ctx.start_child(last, ctx.input)

    async with make_app(wf := parent_of(middle, "x"), middle, last) as app:
        handle = await app.start(wf, priority=7)
        assert await handle.result("20s") == ["done", "x"]
        one = await child_of(runs, handle.id)
        two = await child_of(runs, one["_id"])
        run = await app.get(two["_id"])
    assert (one["parent"]["step"], two["parent"]["step"]) == ("ask", "pass_on")
    assert one["root_run_id"] == two["root_run_id"] == handle.id
    assert (one["priority"], two["priority"]) == (7, 7)
    assert run.parent["run_id"] == one["_id"]
    assert run.root_run_id == handle.id


async def test_a_detached_child_is_not_waited_for_and_outlives_its_parents_good_end(make_app: Any, runs: Any) -> None:
    held = Held()
    wf: Workflow[Any, Any, Any] = Workflow("parent")

    @wf.step
    async def send_off(ctx: Context[Any]) -> str:
        return str(await ctx.start_child(held.workflow, wait=False))

    async with make_app(wf, held.workflow) as app:
        child_id = await app.run(wf, timeout="20s")
        await eventually(lambda: held.entered)
        assert await app.handle(child_id).status() == "running"
        held.gate.set()
        assert await app.handle(child_id).result("20s") == "let go"


async def test_reentering_starts_no_second_child(make_app: Any, runs: Any) -> None:
    child, entered = leaf(), []
    wf: Workflow[Any, Any, Any] = Workflow("parent")

    @wf.step
    async def several(ctx: Context[Any]) -> Any:
        entered.append(1)
        one = await ctx.start_child(child, 1)
        off = await ctx.start_child(child, 2, wait=False)
        await ctx.sleep(0.02)
        two = await ctx.start_child(child, 3, key="last")
        return [one, two, off]

    async with make_app(wf, child) as app:
        handle = await app.start(wf)
        one, two, off = await handle.result("20s")
        await app.handle(off).result("20s")
    assert (one, two) == (1, 3)
    assert len(entered) == 4
    assert await runs.count_documents({"parent.run_id": handle.id}) == 3


def ending_as(status: str) -> Workflow[Any, Any, Any]:
    """A child that ends with this status; a cancelled one has to be cancelled."""
    child: Workflow[Any, Any, Any] = Workflow("child")

    @child.step
    async def begin(ctx: Context[Any]) -> str:
        return "begun"

    if status in ("compensated", "compensation_failed"):

        @begin.compensate(max_attempts=1)
        async def undo(ctx: Context[Any], output: str) -> None:
            if status == "compensation_failed":
                raise ValueError("cannot be undone")

    @child.step
    async def end(ctx: Context[Any]) -> str:
        if status == "cancelled":
            await ctx.wait("nothing")
        if status != "done":
            raise NonRetriableError("bad")
        return "well"

    return child


ENDS = {
    "done": ["done", "well"],
    "failed": ["failed", "NonRetriableError"],
    "cancelled": ["cancelled", "RunCancelled"],
    "compensated": ["compensated", "NonRetriableError"],
    "compensation_failed": ["compensation_failed", "NonRetriableError"],
}


@pytest.mark.parametrize("status", list(ENDS))
async def test_every_end_of_a_child_wakes_its_parent(make_app: Any, runs: Any, status: str) -> None:
    child = ending_as(status)
    async with make_app(wf := parent_of(child), child) as app:
        handle = await app.start(wf)
        if status == "cancelled":
            await app.cancel((await child_of(runs, handle.id))["_id"])
        assert await handle.result("20s") == ENDS[status]
        assert (await child_of(runs, handle.id))["status"] == status
        await eventually(lambda: runs.find_one({"parent.run_id": handle.id, "owes_at": {"$exists": False}}))


async def test_a_child_that_was_given_up_wakes_its_parent(make_app: Any, runs: Any) -> None:
    clock, child = MovableClock(), leaf()
    async with make_app(wf := parent_of(child), child, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        await app.tick(max_runs=1)
        found = await child_of(runs, handle.id)
        at = clock.now() - timedelta(hours=1)
        lease = {"worker": "dead", "token": "dead", "at": at, "until": at}
        lost = {"status": "running", "lease": lease, "attempt": 1, "started_at": at, "recovery_count": 1000}
        await runs.update_one({"_id": found["_id"]}, {"$set": lost, "$unset": {"due_at": ""}})
        await app.tick()
        assert (await app.get(found["_id"])).error.code == "dead_lettered"
        await eventually(lambda: ticked(app, handle))
        assert await handle.result("20s") == ["failed", "DeadLettered"]


async def ticked(app: Any, handle: Any) -> bool:
    await app.tick()
    return bool((await handle.get()).ended)


async def test_a_childs_failure_fails_its_parent_where_nobody_catches_it(make_app: Any, runs: Any) -> None:
    child, entered = ending_as("failed"), []
    wf: Workflow[Any, Any, Any] = Workflow("parent")

    @wf.step
    async def ask(ctx: Context[Any]) -> None:
        entered.append(1)
        await ctx.start_child(child)

    @wf.step
    async def after(ctx: Context[Any]) -> None:
        entered.append("after")

    async with make_app(wf, child) as app:
        handle = await app.start(wf)
        run = await handle.wait("20s")
        found = await child_of(runs, handle.id)
    assert run.status == "failed"
    assert (run.error.code, run.error.type, run.error.step) == ("child.failed", "ChildFailed", "ask")
    assert found["_id"] in run.error.message
    assert entered == [1, 1]


async def test_a_childs_end_is_kept_while_its_parent_is_paused(make_app: Any, runs: Any) -> None:
    held = Held()
    async with make_app(wf := parent_of(held.workflow), held.workflow) as app:
        handle = await app.start(wf)
        await eventually(lambda: held.entered)
        await handle.pause()
        held.gate.set()
        child_id = (await child_of(runs, handle.id))["_id"]
        await app.handle(child_id).wait("20s")
        await eventually(lambda: runs.find_one({"_id": child_id, "owes_at": {"$exists": False}}))
        run = await handle.get()
        assert (run.status, run.paused) == ("waiting", True)
        await handle.unpause()
        assert await handle.result("20s") == ["done", "let go"]


async def test_branches_and_members_of_a_group_start_children_of_their_own(make_app: Any, runs: Any) -> None:
    child = leaf()
    wf: Workflow[Any, Any, Any] = Workflow("parent")

    @wf.step(group="g")
    async def one(ctx: Context[Any]) -> Any:
        return await ctx.start_child(child, "one")

    @wf.step(group="g")
    async def two(ctx: Context[Any]) -> Any:
        return list(await ctx.each("items", [1, 2, 3], lambda item, _: ctx.start_child(child, item)))

    @wf.step
    async def both(ctx: Context[Any]) -> Any:
        return [ctx.output(one), ctx.output(two)]

    async with make_app(wf, child) as app:
        handle = await app.start(wf)
        assert await handle.result("20s") == ["one", [1, 2, 3]]
        found = [each["parent"]["step"] async for each in runs.find({"parent.run_id": handle.id})]
    assert sorted(found) == ["one", "two", "two", "two"]
