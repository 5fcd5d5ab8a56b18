"""Answers that arrive while an operator holds the run: kept, and applied once the hold is over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from streamline import Context, Streamline, Worker, Workflow
from streamline.errors import HookNotFound, NotWaiting
from tests.clocks import MovableClock
from tests.waiting import eventually, status_of

Answer = Callable[[Streamline, str, str], Awaitable[Any]]

ANSWERS: dict[str, Answer] = {
    "wait": lambda app, run_id, _: app.resume(run_id, "given"),
    "event": lambda app, run_id, _: app.send_event("paid", "given", run_id=run_id),
    "hook": lambda app, _, token: app.resume_hook(token, "given"),
    "approval": lambda app, run_id, _: app.approve(run_id, "given"),
    "approval by token": lambda app, _, token: app.approve(token, "given"),
    "question": lambda app, run_id, _: app.answer(run_id, "given"),
}


class Asking:
    """A workflow that waits for an answer of one kind, and what was seen of it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind.split(maxsplit=1)[0]
        self.entered = 0
        self.tokens: list[str] = [""]
        self.workflow: Workflow[Any, Any, Any] = Workflow("asking")

        @self.workflow.step(max_attempts=1)
        async def work(ctx: Context[Any]) -> Any:
            self.entered += 1
            return await self._ask(ctx)

    async def _ask(self, ctx: Context[Any]) -> Any:
        if self.kind == "wait":
            return await ctx.wait("it", timeout="1h", default="nobody")
        if self.kind == "event":
            return await ctx.wait_for("paid", timeout="1h", default="nobody")
        if self.kind == "hook":
            hook = await ctx.create_hook("it", expires="1h")
            self.tokens.append(hook.token)
            return await hook.wait(default="nobody")
        if self.kind == "approval":
            decision = await ctx.approve("it", timeout="1h", on_token=self.tokens.append)
            return decision.data or "nobody"
        return (await ctx.ask("it", timeout="1h")).data or "nobody"


async def held(app: Streamline, asking: Asking) -> Any:
    handle = await app.start(asking.workflow)
    await app.tick()
    assert await handle.status() == "waiting"
    await handle.pause(reason="look closer")
    return handle


@pytest.mark.parametrize("kind", list(ANSWERS))
async def test_an_answer_to_a_held_run_is_kept_and_applied_after_the_hold(make_app: Any, runs: Any, kind: str) -> None:
    asking = Asking(kind)
    async with make_app(asking.workflow, worker=False) as app, make_app(worker=False) as other:
        handle = await held(app, asking)
        await ANSWERS[kind](other, handle.id, asking.tokens[-1])
        run = await handle.get()
        assert (run.status, run.paused, run.due_at) == ("waiting", True, None)
        assert await app.tick() == 0
        assert asking.entered == 1
        assert await app.pending_waits() == []
        if kind != "event":
            with pytest.raises((NotWaiting, HookNotFound)):
                await ANSWERS[kind](app, handle.id, asking.tokens[-1])
        await handle.unpause()
        assert await app.tick() == 1
        assert await handle.result("5s") == "given"
    assert asking.entered == 2
    stored = await runs.find_one({"_id": handle.id})
    assert "paused" not in stored
    assert [event["type"] for event in stored["events"]].count("wait.answered") == 1


@pytest.mark.parametrize("kind", list(ANSWERS))
async def test_an_answer_that_was_given_before_the_hold_waits_for_its_end(make_app: Any, kind: str) -> None:
    asking = Asking(kind)
    async with make_app(asking.workflow, worker=False) as app:
        handle = await app.start(asking.workflow)
        await app.tick()
        await ANSWERS[kind](app, handle.id, asking.tokens[-1])
        await handle.pause()
        assert await app.tick() == 0
        await handle.unpause()
        await app.tick()
        assert await handle.result("5s") == "given"


@pytest.mark.parametrize("kind", list(ANSWERS))
async def test_time_runs_out_during_a_hold_but_is_noticed_after_it(make_app: Any, kind: str) -> None:
    asking, clock = Asking(kind), MovableClock()
    async with make_app(asking.workflow, worker=False, clock=clock) as app:
        handle = await held(app, asking)
        clock.move(hours=2)
        assert await app.tick() == 0
        if kind != "event":
            with pytest.raises((NotWaiting, HookNotFound)):
                await ANSWERS[kind](app, handle.id, asking.tokens[-1])
        assert asking.entered == 1
        await handle.unpause()
        await app.tick()
        assert await handle.result("5s") == "nobody"


@pytest.mark.parametrize("kind", list(ANSWERS))
async def test_an_answer_during_a_hold_stands_although_the_time_runs_out_before_its_end(
    make_app: Any, kind: str
) -> None:
    asking, clock = Asking(kind), MovableClock()
    async with make_app(asking.workflow, worker=False, clock=clock) as app:
        handle = await held(app, asking)
        await ANSWERS[kind](app, handle.id, asking.tokens[-1])
        clock.move(hours=2)
        await handle.unpause()
        await app.tick()
        assert await handle.result("5s") == "given"


@pytest.mark.parametrize("kind", list(ANSWERS))
async def test_cancelling_a_held_run_that_was_answered_ends_it(make_app: Any, kind: str) -> None:
    asking = Asking(kind)
    async with make_app(asking.workflow, worker=False) as app:
        handle = await held(app, asking)
        await ANSWERS[kind](app, handle.id, asking.tokens[-1])
        await handle.cancel()
        run = await handle.get()
        assert (run.status, run.paused, run.due_at) == ("cancelled", False, None)
        assert await app.tick() == 0
    assert asking.entered == 1


async def test_a_worker_in_the_background_leaves_an_answered_run_alone_until_the_hold_is_over(
    make_app: Any, runs: Any
) -> None:
    asking = Asking("wait")
    async with make_app(asking.workflow, worker=Worker(poll_interval="20ms")) as app:
        handle = await app.start(asking.workflow)
        await status_of(handle, "waiting")
        await handle.pause()
        await handle.resume("given")
        before = await runs.find_one({"_id": handle.id})
        # Others come and go meanwhile: the worker looks for due runs all the time.
        for _ in range(5):
            other = await app.start(asking.workflow)
            await eventually(lambda other=other: app.pending_waits(run_id=other.id))
            await other.resume("x")
            assert await other.result("20s") == "x"
        assert await runs.find_one({"_id": handle.id}) == before
        await handle.unpause()
        assert await handle.result("20s") == "given"


async def test_a_hold_that_is_set_while_the_handler_is_at_work_keeps_the_answer_that_comes_after(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("slow")
    entered, apps = [], []

    async def hold_and_answer(run_id: str, token: str) -> None:
        await apps[0].pause(run_id)
        await apps[0].resume_hook(token, "given")

    @wf.step
    async def work(ctx: Context[Any]) -> Any:
        hook = await ctx.create_hook("it")
        await ctx.call("meanwhile", hold_and_answer, ctx.run_id, hook.token)
        await ctx.sleep("1h")
        entered.append(1)
        return await hook.wait()

    clock = MovableClock()
    async with make_app(wf, worker=False, clock=clock) as app, make_app(worker=False) as other:
        apps.append(other)
        handle = await app.start(wf)
        await app.tick()
        clock.move(hours=2)
        run = await handle.get()
        assert (run.status, run.paused, run.due_at) == ("waiting", True, None)
        assert await app.tick() == 0
        await handle.unpause()
        for _ in range(3):
            await app.tick()
            clock.move(hours=2)
        assert await handle.result("5s") == "given"
    assert entered == [1]


async def test_of_two_waits_of_a_held_run_each_keeps_its_answer(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("two")

    @wf.step
    async def work(ctx: Context[Any]) -> dict[str, Any]:
        return await ctx.gather("both", {"a": lambda: ctx.wait("a", key="w"), "b": lambda: ctx.wait_for("b", key="w")})

    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        await app.tick()
        await handle.pause()
        await app.send_event("b", 2, run_id=handle.id)
        await app.resume(handle.id, 1)
        assert await app.tick() == 0
        await handle.unpause()
        await app.tick()
        assert await handle.result("5s") == {"a": 1, "b": 2}


async def test_an_event_for_a_later_wait_of_a_held_run_is_kept(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("later")

    @wf.step
    async def work(ctx: Context[Any]) -> list[Any]:
        return [await ctx.wait("first"), await ctx.wait_for("second")]

    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        await app.tick()
        await handle.pause()
        await app.send_event("second", 2, run_id=handle.id)
        await handle.unpause()
        await app.tick()
        assert await handle.status() == "waiting"
        await handle.resume(1)
        await app.tick()
        assert await handle.result("5s") == [1, 2]
