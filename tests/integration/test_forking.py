"""``fork``: a new run that goes on from a step of an old one, which is left as it is."""

from __future__ import annotations

from typing import Any

import pytest

from streamline import Context, NonRetriableError, Workflow
from streamline.errors import IdempotencyConflict, IllegalTransition, InvalidInput, RunNotFound, StepNotFound
from tests.waiting import status_of

State = dict[str, int]


class Counted:
    """Three steps with a typed state; the last one fails until it is mended."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.undone: list[str] = []
        self.mended = False
        self.workflow: Workflow[Any, State, Any] = Workflow("counted", state=State)

        @self.workflow.step
        async def one(ctx: Context[Any, State]) -> str:
            self.log.append("one")
            ctx.state["n"] = 1
            return f"one of {ctx.input}"

        @one.compensate
        async def undo(ctx: Context[Any], output: str) -> None:
            self.undone.append(ctx.run_id)

        @self.workflow.step
        async def two(ctx: Context[Any, State]) -> int:
            self.log.append("two")
            ctx.state["n"] += 10
            return ctx.state["n"]

        @self.workflow.step(max_attempts=1)
        async def three(ctx: Context[Any, State]) -> list[Any]:
            self.log.append("three")
            if not self.mended:
                raise NonRetriableError("broken")
            return [ctx.output(one), ctx.output(two), ctx.state["n"]]


async def ended(app: Any, counted: Counted) -> Any:
    handle = await app.start(counted.workflow, "x", tags=["daily"], metadata={"by": "ann"}, idempotency_key="k")
    await handle.wait("20s")
    return handle


async def test_a_fork_goes_on_with_the_outputs_of_the_steps_before(make_app: Any, runs: Any) -> None:
    counted = Counted()
    counted.mended = True
    async with make_app(counted.workflow) as app:
        handle = await ended(app, counted)
        before = await runs.find_one({"_id": handle.id})
        fork = await app.fork(handle.id, "three")
        assert await fork.result("20s") == ["one of x", 11, 11]
        run = await fork.get()
        assert await runs.find_one({"_id": handle.id}) == before
    assert counted.log == ["one", "two", "three", "three"]
    assert fork.created
    assert fork.id != handle.id
    assert (run.forked_from, run.input, run.tags, run.metadata) == (handle.id, "x", ("daily",), {"by": "ann"})
    assert [step.status for step in run.steps] == ["done"] * 3
    assert run.idempotency_key is None


async def test_a_fork_from_an_earlier_step_does_the_later_ones_again(make_app: Any) -> None:
    counted = Counted()
    counted.mended = True
    async with make_app(counted.workflow) as app:
        handle = await ended(app, counted)
        fork = await app.fork(handle.id, "one")
        assert await fork.result("20s") == ["one of x", 11, 11]
    assert counted.log == ["one", "two", "three"] * 2


async def test_a_forks_state_can_be_another(make_app: Any, runs: Any) -> None:
    counted = Counted()
    counted.mended = True
    async with make_app(counted.workflow) as app:
        handle = await ended(app, counted)
        fork = await app.fork(handle.id, "two", state={"n": 100}, new_run_id="mine")
        assert fork.id == "mine"
        assert await fork.result("20s") == ["one of x", 110, 110]
        assert (await handle.get()).state == {"n": 11}
        with pytest.raises(InvalidInput):
            await app.fork(handle.id, "two", state={"n": "many"})
        with pytest.raises(IdempotencyConflict):
            await app.fork(handle.id, "two", new_run_id="mine")
    assert await runs.count_documents({}) == 2


async def test_a_fork_of_a_failed_run_undoes_nothing_that_the_old_run_did(make_app: Any) -> None:
    counted = Counted()
    async with make_app(counted.workflow) as app:
        handle = await ended(app, counted)
        assert await handle.status() == "compensated"
        fork = await app.fork(handle.id, "three")
        run = await fork.wait("20s")
        assert run.status == "failed"
        again = await app.fork(handle.id, "one")
        assert (await again.wait("20s")).status == "compensated"
    assert counted.undone == [handle.id, again.id]


async def test_a_run_that_is_at_work_or_waits_can_be_forked(make_app: Any, runs: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("w")

    @wf.step
    async def first(ctx: Context[Any]) -> str:
        return "first"

    @wf.step
    async def ask(ctx: Context[Any]) -> Any:
        return [ctx.output(first), await ctx.wait("name")]

    async with make_app(wf) as app:
        handle = await app.start(wf)
        await status_of(handle, "waiting")
        fork = await app.fork(handle.id, ask)
        await status_of(fork, "waiting")
        await fork.resume("fork")
        assert await fork.result("20s") == ["first", "fork"]
        assert await handle.status() == "waiting"
        await handle.resume("old")
        assert await handle.result("20s") == ["first", "old"]


async def test_what_cannot_be_forked_is_refused_and_starts_nothing(make_app: Any, runs: Any) -> None:
    counted = Counted()
    wf: Workflow[Any, Any, Any] = Workflow("w")

    @wf.step
    async def ask(ctx: Context[Any]) -> Any:
        return await ctx.wait("name")

    @wf.step
    async def after(ctx: Context[Any]) -> None: ...

    async with make_app(wf, counted.workflow) as app:
        handle = await app.start(wf)
        await status_of(handle, "waiting")
        with pytest.raises(IllegalTransition) as caught:
            await app.fork(handle.id, after)
        assert caught.value.field == "from_step"
        with pytest.raises(StepNotFound):
            await app.fork(handle.id, "nowhere")
        with pytest.raises(RunNotFound):
            await app.fork("nobody", "ask")
    assert await runs.count_documents({}) == 1
