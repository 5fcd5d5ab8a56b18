"""``ctx.wait`` and ``app.resume``: the run is parked until somebody answers, and then the handler goes on with it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from streamline import Context, Streamline, Workflow
from streamline.errors import (
    InvalidKey,
    NotWaiting,
    RunNotFound,
    WaitTimeout,
)
from tests.clocks import MovableClock
from tests.waiting import eventually, status_of


class Waiter:
    """A workflow whose first step waits, and what its handlers saw."""

    def __init__(self, **rules: Any) -> None:
        self.entered: list[int] = []
        self.got: list[Any] = []
        self.workflow: Workflow[Any, Any, Any] = Workflow("waiter")

        @self.workflow.step(max_attempts=1)
        async def ask(ctx: Context[Any]) -> Any:
            self.entered.append(ctx.attempt)
            self.got.append(await ctx.wait("the address", **rules))
            return None if "model" in rules else self.got[-1]

        @self.workflow.step
        async def after(ctx: Context[Any]) -> Any:
            return ctx.output(ask)


async def parked(app: Streamline, workflow: Workflow[Any, Any, Any]) -> Any:
    handle = await app.start(workflow)
    assert await app.tick() == 1
    assert await handle.status() == "waiting"
    return handle


async def test_a_wait_parks_the_run_and_its_answer_is_what_the_handler_goes_on_with(make_app: Any, runs: Any) -> None:
    waiter = Waiter(data={"order": 7})
    async with make_app(waiter.workflow, worker=False) as app:
        handle = await parked(app, waiter.workflow)
        run = await handle.get()
        assert [step.status for step in run.steps] == ["waiting", "pending"]
        assert (run.due_at, run.worker) == (None, None)
        (wait,) = run.waits
        assert (wait.kind, wait.reason, wait.data, wait.step) == ("wait", "the address", {"order": 7}, "ask")
        assert await app.tick() == 0
        await app.resume(handle.id, {"street": "Elm"}, by="ann")
        stored = await runs.find_one({"_id": handle.id})
        assert stored["due_at"] is not None
        assert stored["events"][-1]["type"] == "wait.answered"
        assert stored["events"][-1]["by"] == "ann"
        assert waiter.got == []
        assert await app.tick() == 1
        run = await handle.get()
    assert run.output == {"street": "Elm"}
    assert waiter.entered == [1, 1]
    assert waiter.got == [{"street": "Elm"}]
    assert run.waits == ()
    assert run.step("ask").attempt == 1


async def test_nothing_of_a_wait_is_left_in_the_run_once_it_is_over(make_app: Any, runs: Any) -> None:
    waiter = Waiter(timeout="1h")
    async with make_app(waiter.workflow, worker=False) as app:
        handle = await parked(app, waiter.workflow)
        await handle.resume("x")
        await app.tick()
    stored = await runs.find_one({"_id": handle.id})
    assert stored["status"] == "done"
    assert not {"waiting_since", "hooks", "due_at", "nudged", "lease", "inbox"} & stored.keys()
    assert not {"memo", "waits"} & stored["steps"][0].keys()


async def test_of_two_answers_the_first_stands(make_app: Any, runs: Any) -> None:
    waiter = Waiter()
    async with make_app(waiter.workflow, worker=False) as app, make_app(worker=False) as other:
        handle = await parked(app, waiter.workflow)
        await app.resume(handle.id, "first")
        before = await runs.find_one({"_id": handle.id})
        for late in (app, other):
            with pytest.raises(NotWaiting) as caught:
                await late.resume(handle.id, "second")
            assert caught.value.http_status == 409
        assert await runs.find_one({"_id": handle.id}) == before
        await app.tick()
        assert await handle.result("5s") == "first"


@pytest.mark.parametrize("end", ["done", "failed", "cancelled"])
async def test_a_run_that_has_ended_cannot_be_resumed(make_app: Any, runs: Any, end: str) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("ends")

    @wf.step(max_attempts=1)
    async def work(ctx: Context[Any]) -> None:
        await ctx.wait("once")
        if end == "failed":
            raise ValueError

    async with make_app(wf, worker=False) as app:
        handle = await parked(app, wf)
        await (handle.cancel() if end == "cancelled" else handle.resume())
        await app.tick()
        before = await runs.find_one({"_id": handle.id})
        assert before["status"] == end
        with pytest.raises(NotWaiting):
            await app.resume(handle.id, "late")
        assert await runs.find_one({"_id": handle.id}) == before


@pytest.mark.parametrize("status", ["draft", "sleeping", "at another wait"])
async def test_a_run_that_does_not_wait_for_it_cannot_be_resumed(make_app: Any, runs: Any, status: str) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("else")

    @wf.step
    async def work(ctx: Context[Any]) -> None:
        await (ctx.sleep("1h") if status == "sleeping" else ctx.wait_for("event"))

    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        if status != "draft":
            await app.tick()
        before = await runs.find_one({"_id": handle.id})
        with pytest.raises(NotWaiting):
            await app.resume(handle.id)
        assert await runs.find_one({"_id": handle.id}) == before


@pytest.mark.parametrize("run_id", ["nobody", "", {"$gt": ""}, None, "a\0"], ids=repr)
async def test_there_is_no_resuming_a_run_that_is_not_there(make_app: Any, run_id: Any) -> None:
    waiter = Waiter()
    async with make_app(waiter.workflow, worker=False) as app:
        handle = await parked(app, waiter.workflow)
        with pytest.raises(RunNotFound):
            await app.resume(run_id, 1)
        assert len((await handle.get()).waits) == 1


async def test_a_wait_that_nobody_answers_ends_with_its_default(make_app: Any) -> None:
    clock, waiter = MovableClock(), Waiter(timeout="1h", default="nobody")
    async with make_app(waiter.workflow, worker=False, clock=clock) as app:
        handle = await parked(app, waiter.workflow)
        run = await handle.get()
        assert run.due_at == run.waits[0].due_at
        assert abs(run.due_at - run.waits[0].opened_at - timedelta(hours=1)) < timedelta(seconds=1)
        clock.move(minutes=59)
        assert await app.tick() == 0
        clock.move(minutes=2)
        assert await app.tick() == 1
        assert await handle.result("5s") == "nobody"
    assert waiter.entered == [1, 1]


async def test_a_wait_that_nobody_answers_and_that_has_no_default_raises_in_the_handler(make_app: Any) -> None:
    clock, caught = MovableClock(), []
    wf: Workflow[Any, Any, Any] = Workflow("waiter")

    @wf.step(max_attempts=1)
    async def ask(ctx: Context[Any]) -> str:
        try:
            await ctx.wait("the address", timeout=1)
        except WaitTimeout as error:
            caught.append(error)
            await ctx.sleep("1h")  # a wait that is over stays over when the handler is entered again
        return await ctx.wait("the phone", timeout=1)

    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        for _ in range(5):
            await app.tick()
            clock.move(hours=2)
        run = await handle.get()
    assert run.status == "failed"
    assert run.error.code == "wait.timeout"
    assert "phone" in run.error.message
    assert len(caught) == 3
    assert isinstance(caught[0], TimeoutError)


async def test_an_answer_after_the_time_is_refused_even_before_anybody_has_noticed(make_app: Any, runs: Any) -> None:
    clock, waiter = MovableClock(), Waiter(timeout="1h", default="nobody")
    async with make_app(waiter.workflow, worker=False, clock=clock) as app:
        handle = await parked(app, waiter.workflow)
        before = await runs.find_one({"_id": handle.id})
        clock.move(hours=1, seconds=30)
        with pytest.raises(NotWaiting):
            await app.resume(handle.id, "late")
        assert await runs.find_one({"_id": handle.id}) == before
        await app.tick()
        assert await handle.result("5s") == "nobody"


async def test_an_untimed_wait_stays_for_years(make_app: Any) -> None:
    clock, waiter = MovableClock(), Waiter()
    async with make_app(waiter.workflow, worker=False, clock=clock) as app:
        handle = await parked(app, waiter.workflow)
        clock.move(days=4000)
        assert await app.tick() == 0
        await handle.resume("at last")
        await app.tick()
        assert await handle.result("5s") == "at last"


async def test_a_wait_can_be_answered_while_no_worker_is_up(make_app: Any) -> None:
    waiter = Waiter()
    async with make_app(waiter.workflow) as app:
        handle = await app.start(waiter.workflow)
        await status_of(handle, "waiting")
    async with make_app(worker=False) as asking:
        await asking.resume(handle.id, "between")
        assert await asking.handle(handle.id).status() == "waiting"
    assert waiter.got == []
    async with make_app(waiter.workflow) as app:
        assert await app.handle(handle.id).result("20s") == "between"
    assert waiter.entered == [1, 1]


async def test_a_resume_from_another_process_wakes_the_worker_at_once(make_app: Any) -> None:
    from streamline import Worker

    waiter = Waiter()
    patient = Worker(poll_interval="60s")
    async with make_app(waiter.workflow, worker=patient) as app, make_app(worker=False) as asking:
        handle = await app.start(waiter.workflow)
        await status_of(handle, "waiting")
        await asking.resume(handle.id, "from afar")
        assert await handle.result("10s") == "from afar"


async def test_several_waits_are_answered_by_key_else_the_oldest_first(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("three")

    @wf.step
    async def ask(ctx: Context[Any]) -> dict[str, Any]:
        async def one(name: str) -> Any:
            return await ctx.wait(name, key="answer")

        return await ctx.gather("all", {name: lambda name=name: one(name) for name in ("a", "b", "c")})

    async with make_app(wf, worker=False) as app:
        handle = await parked(app, wf)
        waits = (await handle.get()).waits
        assert sorted(wait.reason for wait in waits) == ["a", "b", "c"]
        second = next(wait for wait in waits if wait.reason == "b")
        await app.resume(handle.id, "for b", key=second.key)
        with pytest.raises(NotWaiting):
            await app.resume(handle.id, "again", key=second.key)
        await app.tick()
        assert await handle.status() == "waiting"
        await app.resume(handle.id, "rest")
        await app.resume(handle.id, "rest")
        with pytest.raises(NotWaiting):
            await app.resume(handle.id, "too many")
        await app.tick()
        assert await handle.result("5s") == {"a": "rest", "b": "for b", "c": "rest"}


async def test_waits_one_after_the_other_each_take_an_answer_of_their_own(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("turns")
    between = []

    @wf.step
    async def ask(ctx: Context[Any]) -> list[Any]:
        answers = []
        for turn in range(4):
            answers.append(await ctx.wait(f"turn {turn}"))
            await ctx.call(f"note {turn}", between.append, answers[-1])
        return answers

    async with make_app(wf, worker=False) as app:
        handle = await parked(app, wf)
        for turn in range(4):
            (wait,) = (await handle.get()).waits
            assert wait.reason == f"turn {turn}"
            await handle.resume(turn)
            await app.tick()
        assert await handle.result("5s") == [0, 1, 2, 3]
    assert between == [0, 1, 2, 3]


async def test_a_handler_that_catches_every_exception_still_waits(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("greedy")

    @wf.step
    async def ask(ctx: Context[Any]) -> str:
        try:
            return str(await ctx.wait("it"))
        except Exception:  # noqa: BLE001 - what users write
            return "swallowed"

    async with make_app(wf) as app:
        handle = await app.start(wf)
        await status_of(handle, "waiting")
        await handle.resume("it")
        assert await handle.result("20s") == "it"


async def test_a_failure_after_an_answer_does_not_ask_again(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("flaky")
    got = []

    @wf.step(max_attempts=3)
    async def ask(ctx: Context[Any]) -> int:
        got.append(await ctx.wait("it"))
        if ctx.attempt < 2:
            raise ValueError
        return ctx.attempt

    clock = MovableClock()
    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await parked(app, wf)
        await handle.resume("once")
        await app.tick()
        clock.move(minutes=5)
        await app.tick()
        assert await handle.result("5s") == 2
    assert got == ["once", "once"]


async def test_waits_of_many_runs_do_not_mix(make_app: Any) -> None:
    waiter = Waiter()
    async with make_app(waiter.workflow) as app:
        handles = await app.start_many(waiter.workflow, [None] * 30)
        await asyncio.gather(*(status_of(handle, "waiting") for handle in handles))
        await asyncio.gather(*(handle.resume(i) for i, handle in enumerate(handles)))
        assert await asyncio.gather(*(handle.result("20s") for handle in handles)) == list(range(30))


@pytest.mark.parametrize("reason", [None, 5, "x" * 4097, "\ud800"], ids=lambda value: repr(value)[:10])
async def test_a_reason_that_cannot_be_stored_fails_the_step_at_once(make_app: Any, reason: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("odd")

    @wf.step
    async def ask(ctx: Context[Any]) -> None:
        await ctx.wait(reason)

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert (run.status, run.error.code) == ("failed", InvalidKey.code)


async def test_an_answer_is_seen_by_a_handler_that_is_at_work_in_another_branch(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("busy")
    gate, entered = asyncio.Event(), []

    @wf.step
    async def ask(ctx: Context[Any]) -> dict[str, Any]:
        entered.append(1)

        async def busy() -> str:
            await gate.wait()
            return "worked"

        async def waits() -> Any:
            answer = await ctx.wait("it")
            gate.set()
            return answer

        return await ctx.gather("both", {"busy": busy, "waits": waits})

    async with make_app(wf) as app, make_app(worker=False) as asking:
        handle = await app.start(wf)
        await eventually(lambda: asking.pending_waits(run_id=handle.id))
        assert await handle.status() == "running"
        await asking.resume(handle.id, "meanwhile")
        assert await handle.result("20s") == {"busy": "worked", "waits": "meanwhile"}
    assert entered == [1]
