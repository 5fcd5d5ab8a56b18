"""Joins of children: how many a parent waits for, which of them decide, and what becomes of the others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from streamline import Context, NonRetriableError, Settled, Workflow
from streamline.errors import ChildFailed, InvalidInput, InvalidPolicy
from tests.waiting import eventually, status_of


class Kids:
    """Children that end when and how the test says: by their input's name."""

    def __init__(self) -> None:
        self.gates: dict[str, asyncio.Event] = {}
        self.entered: list[str] = []
        self.cancelled: list[str] = []
        self.workflow: Workflow[Any, Any, Any] = Workflow("kid", input=str)

        @self.workflow.step
        async def grow(ctx: Context[str]) -> str:
            name = ctx.input
            self.entered.append(name)
            try:
                if not name.startswith("now"):
                    await self.gate(name).wait()
            except asyncio.CancelledError:
                self.cancelled.append(name)
                raise
            if "bad" in name:
                raise NonRetriableError(name)
            return name.upper()

    def gate(self, name: str) -> asyncio.Event:
        return self.gates.setdefault(name, asyncio.Event())

    def parent(self, *names: str, policy: Any = "all") -> Workflow[Any, Any, Any]:
        wf: Workflow[Any, Any, Any] = Workflow("parent")

        @wf.step
        async def join(ctx: Context[Any]) -> Any:
            children = {name: (self.workflow, name) for name in names}
            try:
                found = await ctx.join(children, policy=policy)
            except ChildFailed as error:
                return ["failed", error.status, error.error.get("message")]
            return {name: told(value) for name, value in found.items()}

        return wf


def told(value: Any) -> Any:
    return [value.status, value.value, (value.error or {}).get("message")] if isinstance(value, Settled) else value


async def begun(kids: Kids, *names: str) -> None:
    await eventually(lambda: set(names) <= set(kids.entered))


async def test_all_waits_for_every_child_and_returns_them_in_the_order_of_the_join(make_app: Any) -> None:
    kids = Kids()
    async with make_app(wf := kids.parent("c", "a", "b"), kids.workflow) as app:
        handle = await app.start(wf)
        for name in ("a", "b", "c"):
            await begun(kids, name)
            assert await handle.status() in ("running", "waiting")
            kids.gate(name).set()
        output = await handle.result("20s")
    assert list(output.items()) == [("c", "C"), ("a", "A"), ("b", "B")]
    assert sorted(kids.entered) == ["a", "b", "c"]


async def test_all_fails_with_the_first_failure_and_ends_the_others(make_app: Any) -> None:
    kids = Kids()
    async with make_app(wf := kids.parent("slow", "bad", "now"), kids.workflow) as app:
        handle = await app.start(wf)
        await begun(kids, "slow", "bad", "now")
        kids.gate("bad").set()
        assert await handle.result("20s") == ["failed", "failed", "bad"]
        await eventually(lambda: kids.cancelled == ["slow"])


async def test_a_join_that_fails_fails_its_step(make_app: Any) -> None:
    kids = Kids()
    wf: Workflow[Any, Any, Any] = Workflow("parent")

    @wf.step
    async def begin(ctx: Context[Any]) -> str:
        return "begun"

    undone = []

    @begin.compensate
    async def undo(ctx: Context[Any], output: str) -> None:
        undone.append(output)

    @wf.step
    async def join(ctx: Context[Any]) -> Any:
        return await ctx.join({"good": (kids.workflow, "now"), "bad": (kids.workflow, "now-bad")})

    async with make_app(wf, kids.workflow) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.status == "compensated"
    assert (run.error.type, run.error.step) == ("ChildFailed", "join")
    assert undone == ["begun"]


async def test_any_returns_the_first_good_end_and_ends_the_others(make_app: Any) -> None:
    kids = Kids()
    async with make_app(wf := kids.parent("slow", "now-bad", "quick", policy="any"), kids.workflow) as app:
        handle = await app.start(wf)
        await begun(kids, "slow", "now-bad", "quick")
        await status_of(handle, "waiting")
        kids.gate("quick").set()
        assert await handle.result("20s") == {"quick": "QUICK"}
        await eventually(lambda: kids.cancelled == ["slow"])


async def test_any_fails_once_every_child_has(make_app: Any) -> None:
    kids = Kids()
    async with make_app(wf := kids.parent("now-bad", "bad-last", policy="any"), kids.workflow) as app:
        handle = await app.start(wf)
        await begun(kids, "bad-last")
        assert not (await handle.get()).ended
        kids.gate("bad-last").set()
        assert await handle.result("20s") == ["failed", "failed", "now-bad"]


@pytest.mark.parametrize("first", ["good", "bad"])
async def test_race_goes_by_the_first_end_whichever_it_is(make_app: Any, first: str) -> None:
    kids = Kids()
    async with make_app(wf := kids.parent("slow", first, policy="race"), kids.workflow) as app:
        handle = await app.start(wf)
        await begun(kids, "slow", first)
        kids.gate(first).set()
        expected = {"good": "GOOD"} if first == "good" else ["failed", "failed", "bad"]
        assert await handle.result("20s") == expected
        await eventually(lambda: kids.cancelled == ["slow"])


async def test_settled_returns_how_each_ended(make_app: Any, runs: Any) -> None:
    kids = Kids()
    async with make_app(wf := kids.parent("now", "now-bad", "lost", policy="settled"), kids.workflow) as app:
        handle = await app.start(wf)
        await begun(kids, "now", "now-bad", "lost")
        lost = await runs.find_one({"input": "lost"})
        await app.cancel(lost["_id"], reason="not wanted")
        output = await handle.result("20s")
    assert list(output) == ["now", "now-bad", "lost"]
    assert output["now"] == ["done", "NOW", None]
    assert output["now-bad"] == ["failed", None, "now-bad"]
    assert output["lost"] == ["cancelled", None, "not wanted"]


async def test_a_number_waits_for_so_many_good_ends_and_ends_the_others(make_app: Any) -> None:
    kids = Kids()
    async with make_app(wf := kids.parent("a", "now-bad", "b", "slow", policy=2), kids.workflow) as app:
        handle = await app.start(wf)
        await begun(kids, "a", "b", "slow", "now-bad")
        kids.gate("b").set()
        await status_of(handle, "waiting")
        kids.gate("a").set()
        assert await handle.result("20s") == {"a": "A", "b": "B"}
        await eventually(lambda: kids.cancelled == ["slow"])


async def test_a_number_fails_as_soon_as_it_cannot_be_met(make_app: Any) -> None:
    kids = Kids()
    async with make_app(wf := kids.parent("slow", "bad-1", "bad-2", policy=2), kids.workflow) as app:
        handle = await app.start(wf)
        await begun(kids, "slow", "bad-1", "bad-2")
        await status_of(handle, "waiting")
        kids.gate("bad-1").set()
        await eventually(lambda: ended(app, kids, "bad-1"))
        kids.gate("bad-2").set()
        assert (await handle.result("5s"))[0] == "failed"
        await eventually(lambda: kids.cancelled == ["slow"])


async def ended(app: Any, kids: Kids, name: str) -> bool:
    page = await app.runs("kid", match={"input": name})
    return bool(page.items and page.items[0].ended)


@pytest.mark.parametrize("policy", [0, 3, -1, True, "most", None, 1.0])
async def test_a_policy_that_cannot_be_met_starts_no_child(make_app: Any, runs: Any, policy: Any) -> None:
    kids = Kids()
    wf: Workflow[Any, Any, Any] = Workflow("parent")

    @wf.step
    async def join(ctx: Context[Any]) -> Any:
        return await ctx.join({"a": (kids.workflow, "now-a"), "b": (kids.workflow, "now-b")}, policy=policy)

    async with make_app(wf, kids.workflow) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.error.type == InvalidPolicy.__name__
    assert await runs.count_documents({"workflow": "kid"}) == 0


@pytest.mark.parametrize("children", [{}, [], {"a.b": "dot"}])
async def test_children_that_are_not_named_properly_are_refused(make_app: Any, runs: Any, children: Any) -> None:
    kids = Kids()
    wf: Workflow[Any, Any, Any] = Workflow("parent")

    @wf.step
    async def join(ctx: Context[Any]) -> Any:
        named = {name: (kids.workflow, value) for name, value in children.items()} if children else children
        return await ctx.join(named)

    async with make_app(wf, kids.workflow) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.status == "failed"
    assert run.error.type in (InvalidInput.__name__, "InvalidKey")
    assert await runs.count_documents({"workflow": "kid"}) == 0


async def test_one_bad_input_starts_none_of_the_children(make_app: Any, runs: Any) -> None:
    kids = Kids()
    wf: Workflow[Any, Any, Any] = Workflow("parent")

    @wf.step
    async def join(ctx: Context[Any]) -> Any:
        return await ctx.join({"a": (kids.workflow, "now-a"), "b": (kids.workflow, {"no": "text"})})

    async with make_app(wf, kids.workflow) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.error.type == InvalidInput.__name__
    assert await runs.count_documents({"workflow": "kid"}) == 0


async def test_outputs_of_different_workflows_come_back_in_their_types(make_app: Any) -> None:
    class Box(BaseModel):
        size: int

    boxes, numbers = Workflow("box", input=int), Workflow("number", input=int)
    wf: Workflow[Any, Any, Any] = Workflow("parent")
    seen: list[Any] = []

    @boxes.step
    async def box(ctx: Context[int]) -> Box:
        return Box(size=ctx.input)

    @numbers.step
    async def number(ctx: Context[int]) -> int:
        return ctx.input

    @wf.step
    async def join(ctx: Context[Any]) -> None:
        seen.append(await ctx.join({"box": (boxes, 1), "number": (numbers, 2)}))
        seen.append((await ctx.join({"box": (boxes, 3)}, policy="settled"))["box"].value)

    async with make_app(wf, boxes, numbers) as app:
        await app.run(wf, timeout="20s")
    assert seen[-2:] == [{"box": Box(size=1), "number": 2}, Box(size=3)]


async def test_reentering_reads_the_join_as_it_was_decided(make_app: Any, runs: Any) -> None:
    kids, entered = Kids(), []
    wf: Workflow[Any, Any, Any] = Workflow("parent")

    @wf.step
    async def joins(ctx: Context[Any]) -> Any:
        first = await ctx.join({name: (kids.workflow, name) for name in ("now-a", "now-b")}, policy="race")
        entered.append(first)
        await ctx.sleep(0.05)
        second = await ctx.join({name: (kids.workflow, name) for name in ("now-c", "now-d")}, key="second")
        return [first, second]

    async with make_app(wf, kids.workflow) as app:
        handle = await app.start(wf)
        first, second = await handle.result("20s")
    assert second == {"now-c": "NOW-C", "now-d": "NOW-D"}
    assert entered == [first] * len(entered)
    assert len(entered) >= 2
    assert await runs.count_documents({"workflow": "kid"}) == 4


async def test_a_crash_in_the_middle_of_the_fan_out_starts_only_the_missing_children(make_app: Any, runs: Any) -> None:
    kids = Kids()
    names = ("a", "b", "c")
    async with make_app(wf := kids.parent(*names), kids.workflow, worker=False) as app:
        handle = await app.start(wf)
        await app.tick(max_runs=1)
        born = {each["input"]: each["created_at"] async for each in runs.find({"workflow": "kid"})}
        assert set(born) == set(names)
        # As if the process had died when two of the three were there.
        await runs.delete_one({"input": "b"})
        stale = {"worker": "dead", "token": "dead", "at": born["a"], "until": born["a"]}
        parked = {"status": "running", "lease": stale, "attempt": 1}
        await runs.update_one({"_id": handle.id}, {"$set": parked, "$unset": {"due_at": ""}})
        for name in names:
            kids.gate(name).set()
        await eventually(lambda: ticked(app, handle))
        assert await handle.result("20s") == {"a": "A", "b": "B", "c": "C"}
        again = {each["input"]: each["created_at"] async for each in runs.find({"workflow": "kid"})}
    assert (again["a"], again["c"]) == (born["a"], born["c"])
    assert again["b"] > born["b"]
    assert sorted(kids.entered) == ["a", "b", "c"]


async def ticked(app: Any, handle: Any) -> bool:
    await app.tick()
    return bool((await handle.get()).ended)


async def test_a_join_ends_its_children_with_the_parent_unless_they_are_abandoned(make_app: Any, runs: Any) -> None:
    kids = Kids()
    wf: Workflow[Any, Any, Any] = Workflow("parent")

    @wf.step
    async def joins(ctx: Context[Any]) -> Any:
        async def kept() -> Any:
            return await ctx.join({"kept": (kids.workflow, "kept")}, on_parent_close="abandon")

        async def ended() -> Any:
            return await ctx.join({"ended": (kids.workflow, "ended")})

        return await ctx.gather("both", {"kept": kept, "ended": ended})

    async with make_app(wf, kids.workflow) as app:
        handle = await app.start(wf)
        await begun(kids, "kept", "ended")
        await status_of(handle, "waiting")
        await handle.cancel()
        await eventually(lambda: kids.cancelled == ["ended"])
        kept = await runs.find_one({"input": "kept"})
        kids.gate("kept").set()
        assert await app.handle(kept["_id"]).result("20s") == "KEPT"
