"""``rewind``: a run is done again from a step on, in place, whatever it was doing and however it ended."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from streamline import Context, NonRetriableError, Worker, Workflow
from streamline.errors import HookNotFound, IdempotencyConflict, IllegalTransition, RunNotFound, StepNotFound
from tests.clocks import MovableClock
from tests.waiting import eventually, status_of


class Three:
    """Three steps; what the last one does is for the test to say."""

    def __init__(self, **options: Any) -> None:
        self.log: list[str] = []
        self.mode = "done"
        self.gate, self.entered, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.workflow: Workflow[Any, Any, Any] = Workflow("three", **options)

        @self.workflow.step
        async def one(ctx: Context[Any]) -> str:
            self.log.append("one")
            return f"one-{self.log.count('one')}"

        @self.workflow.step
        async def two(ctx: Context[Any]) -> str:
            self.log.append("two")
            paid = await ctx.call("pay", lambda: f"paid-{self.log.count('two')}")
            return f"{ctx.output(one)} {paid}"

        @self.workflow.step(max_attempts=1)
        async def three(ctx: Context[Any]) -> str:
            self.log.append("three")
            await self._third(ctx)
            return f"{ctx.output(two)} end"

    async def _third(self, ctx: Context[Any]) -> None:
        if self.mode == "failed":
            raise NonRetriableError("no")
        if self.mode == "waiting":
            await ctx.wait("go on", key=f"w{self.log.count('two')}")
        if self.mode == "running":
            self.entered.set()
            try:
                await self.gate.wait()
            finally:
                self.ended.set()

    async def at(self, app: Any, status: str) -> Any:
        """Start a run and bring it to this status."""
        self.mode = "waiting" if status == "cancelled" else status
        handle = await app.start(self.workflow, idempotency_key="key")
        if status == "cancelled":
            await status_of(handle, "waiting")
            await handle.cancel(reason="wrong one")
        await status_of(handle, status)
        if status == "running":
            await asyncio.wait_for(self.entered.wait(), 10)
        self.mode = "done"
        return handle


STATUSES = ["done", "failed", "cancelled", "waiting", "running"]


@pytest.mark.parametrize("status", STATUSES)
async def test_a_run_is_done_again_from_the_step_on(make_app: Any, runs: Any, status: str) -> None:
    three = Three(retention="1d")
    async with make_app(three.workflow) as app:
        handle = await three.at(app, status)
        await handle.rewind("two", by="ann")
        assert await handle.result("20s") == "one-1 paid-2 end"
        run = await handle.get()
        events = [event async for event in handle.events()]
    assert three.log.count("one") == 1
    assert three.log.count("two") == 2
    assert (run.error, run.cancel) == (None, None)
    assert [step.generation for step in run.steps] == [0, 1, 1]
    (told,) = [event for event in events if event.type == "run.rewound"]
    assert (told.step, told.data["by"]) == ("two", "ann")
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


@pytest.mark.parametrize("status", ["done", "failed", "cancelled"])
async def test_a_rewound_run_has_not_ended_and_shows_nothing_of_its_end(make_app: Any, runs: Any, status: str) -> None:
    three = Three(retention="1d")
    async with make_app(three.workflow) as app:
        handle = await three.at(app, status)
    async with make_app(three.workflow, worker=False) as app:
        handle = app.handle(handle.id)
        before = await handle.get()
        await handle.rewind("two")
        run = await handle.get()
    assert run.status == "waiting"
    assert not run.ended
    assert (run.output, run.error, run.cancel, run.ended_at, run.expire_at) == (None,) * 5
    assert run.due_at is not None
    assert run.step("one") == before.step("one")
    for step in (run.step("two"), run.step("three")):
        assert (step.status, step.output, step.error, step.started_at, step.ended_at, step.waits) == (
            "pending",
            None,
            None,
            None,
            None,
            (),
        )


async def test_rewinding_to_the_first_step_does_everything_again(make_app: Any) -> None:
    three = Three()
    async with make_app(three.workflow) as app:
        handle = await three.at(app, "done")
        await handle.rewind("one")
        assert await handle.result("20s") == "one-2 paid-2 end"
    assert three.log == ["one", "two", "three"] * 2


async def test_the_handler_that_is_at_work_is_told_and_what_it_writes_is_refused(make_app: Any, runs: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("deaf")
    speak, spoken, log = asyncio.Event(), asyncio.Event(), []

    @wf.step
    async def work(ctx: Context[Any]) -> str:
        log.append(len(log))
        mine = log[-1]
        while mine == 0 and not speak.is_set():
            try:
                await speak.wait()
            except asyncio.CancelledError:
                log.append("told")
        if mine == 0:
            spoken.set()
        return f"by {mine}"

    async with make_app(wf, worker=Worker(lease="30s", cancel_grace="10s")) as app:
        handle = await app.start(wf)
        await eventually(lambda: log)
        await handle.rewind(work)
        assert await handle.result("20s") == "by 2"
        before = await runs.find_one({"_id": handle.id})
        speak.set()
        await asyncio.wait_for(spoken.wait(), 10)
    assert await runs.find_one({"_id": handle.id}) == before
    assert log == [0, "told", 2]


async def test_the_handler_in_another_process_is_told_too(make_app: Any, runs: Any) -> None:
    three = Three()
    async with make_app(three.workflow) as app, make_app(three.workflow, worker=False) as other:
        handle = await three.at(app, "running")
        await other.rewind(handle.id, "two")
        await asyncio.wait_for(three.ended.wait(), 5)
        assert await handle.result("20s") == "one-1 paid-2 end"


@pytest.mark.parametrize("status", ["waiting", "done"])
async def test_a_step_that_the_run_has_not_come_to_is_refused(make_app: Any, runs: Any, status: str) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("w")

    @wf.step
    async def first(ctx: Context[Any]) -> None:
        await ctx.wait("go on")

    @wf.step
    async def second(ctx: Context[Any]) -> None: ...

    async with make_app(wf) as app:
        handle = await app.start(wf)
        await status_of(handle, "waiting")
        if status == "done":
            await handle.resume()
            await handle.result("20s")
            await handle.rewind(second)
            return
        before = await runs.find_one({"_id": handle.id})
        with pytest.raises(IllegalTransition) as caught:
            await handle.rewind(second)
        assert await runs.find_one({"_id": handle.id}) == before
    assert caught.value.field == "to_step"


async def test_a_step_or_run_that_is_not_there_is_refused(make_app: Any) -> None:
    three = Three()
    async with make_app(three.workflow) as app:
        handle = await three.at(app, "done")
        with pytest.raises(StepNotFound):
            await handle.rewind("four")
        with pytest.raises(RunNotFound):
            await app.rewind("nobody", "one")
        assert await handle.status() == "done"


async def test_a_rewound_run_takes_its_idempotency_key_back(make_app: Any) -> None:
    three = Three()
    async with make_app(three.workflow) as app:
        handle = await three.at(app, "done")
        three.mode = "waiting"
        await handle.rewind("three")
        await status_of(handle, "waiting")
        assert not (await app.start(three.workflow, idempotency_key="key")).created


async def test_a_run_whose_key_somebody_else_holds_is_left_as_it_is(make_app: Any, runs: Any) -> None:
    three = Three()
    async with make_app(three.workflow) as app:
        handle = await three.at(app, "done")
        other = await three.at(app, "waiting")
        assert other.id != handle.id
        before = await runs.find_one({"_id": handle.id})
        with pytest.raises(IdempotencyConflict):
            await handle.rewind("one")
        assert await runs.find_one({"_id": handle.id}) == before


async def test_what_was_awaited_before_the_rewind_is_awaited_again(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("w")
    sent: list[str] = []

    @wf.step
    async def ask(ctx: Context[Any]) -> Any:
        hook = await ctx.create_hook("pay")
        sent.append(hook.token)
        return await hook.wait()

    async with make_app(wf) as app:
        handle = await app.start(wf)
        await status_of(handle, "waiting")
        await handle.rewind(ask)
        await eventually(lambda: len(set(sent)) == 2)
        await status_of(handle, "waiting")
        with pytest.raises(HookNotFound):
            await app.resume_hook(sent[0], "old")
        await app.resume_hook(sent[-1], "new")
        assert await handle.result("20s") == "new"


async def test_a_paused_run_is_rewound_and_goes_on_when_unpaused(make_app: Any) -> None:
    three = Three()
    async with make_app(three.workflow) as app:
        handle = await three.at(app, "waiting")
        await handle.pause()
        await handle.rewind("one")
        run = await handle.get()
        assert (run.status, run.paused, run.step("one").status) == ("waiting", True, "pending")
        assert three.log.count("one") == 1
        await handle.unpause()
        assert await handle.result("20s") == "one-2 paid-2 end"


async def test_a_deadline_that_has_passed_does_not_end_a_rewound_run(make_app: Any) -> None:
    three = Three(run_timeout="300ms")
    async with make_app(three.workflow) as app:
        three.mode = "running"
        handle = await app.start(three.workflow)
        assert (await handle.wait("20s")).error.code == "run.timeout"
        three.mode = "done"
        await handle.rewind("two")
        assert await handle.result("20s") == "one-1 paid-2 end"


async def test_a_run_that_was_given_up_is_rewound_with_fresh_recoveries(make_app: Any, runs: Any) -> None:
    three, clock = Three(), MovableClock()
    async with make_app(three.workflow, worker=Worker(max_recoveries=0, lease="400ms"), clock=clock) as app:
        handle = await app.start(three.workflow, delay="1h")
        at = clock.now() - timedelta(hours=1)
        lease = {"worker": "dead", "token": "dead", "at": at, "until": at}
        await runs.update_one(
            {"_id": handle.id}, {"$set": {"status": "running", "lease": lease, "attempt": 1}, "$unset": {"due_at": ""}}
        )
        assert (await handle.wait("20s")).error.code == "dead_lettered"
        await handle.rewind("one")
        assert await handle.result("20s") == "one-1 paid-1 end"
        assert (await handle.get()).recovery_count == 0


async def test_of_many_rewinds_at_once_each_takes_effect_or_none_is_lost(make_app: Any) -> None:
    three = Three()
    async with make_app(three.workflow) as app:
        handle = await three.at(app, "done")
        await asyncio.gather(*(handle.rewind("two") for _ in range(5)))
        await handle.result("20s")
        run = await handle.get()
        events = [event async for event in handle.events()]
    assert run.step("two").generation == 5
    assert sum(event.type == "run.rewound" for event in events) == 5
    assert three.log.count("one") == 1


async def test_rewinding_into_a_group_does_the_whole_group_again(make_app: Any) -> None:
    log: list[str] = []
    wf: Workflow[Any, Any, Any] = Workflow("w")

    def member(name: str, **rules: Any) -> None:
        @wf.step(name, **rules)
        async def work(ctx: Context[Any]) -> str:
            log.append(name)
            return name

    member("before")
    member("a", group="g")
    member("b", group="g")
    member("after")
    async with make_app(wf) as app:
        handle = await app.start(wf)
        await handle.result("20s")
        await handle.rewind("b")
        assert await handle.result("20s") == "after"
    assert sorted(log) == sorted(["before", *(["a", "b", "after"] * 2)])
