"""Groups: steps at work at the same time, each stored when it ends, and what follows when not all go well."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from streamline import Context, NonRetriableError, RetryAfter, RetryPolicy, Worker, Workflow
from tests.clocks import MovableClock
from tests.waiting import eventually, status_of


class Members:
    """A group whose members end when the test lets them, and a step after it."""

    def __init__(self, *names: str, **options: Any) -> None:
        self.entered: list[tuple[str, int]] = []
        self.gates = {name: asyncio.Event() for name in names}
        self.errors: dict[str, Exception] = {}
        self.workflow: Workflow[Any, Any, Any] = Workflow("grouped", **options)
        for name in names:
            self._declare(name)

        @self.workflow.step
        async def after(ctx: Context[Any]) -> Any:
            self.entered.append(("after", ctx.attempt))
            return {name: ctx.outputs.get(name) for name in names}

    def _declare(self, name: str) -> None:
        on_error: Any = "skip" if name.startswith("optional") else "fail"

        @self.workflow.step(name, group="g", on_error=on_error, retry=RetryPolicy(max_attempts=2, delay=0.01))
        async def member(ctx: Context[Any]) -> str:
            self.entered.append((name, ctx.attempt))
            await self.gates[name].wait()
            if name in self.errors:
                raise self.errors[name]
            return name.upper()

    def open(self, *names: str) -> None:
        for name in names:
            self.gates[name].set()


async def stored(runs: Any, handle: Any, step: int, status: str) -> Any:
    return await eventually(lambda: runs.find_one({"_id": handle.id, f"steps.{step}.status": status}))


async def test_members_are_at_work_at_the_same_time_and_stored_one_by_one(make_app: Any, runs: Any) -> None:
    group = Members("a", "b", "c")
    async with make_app(group.workflow) as app:
        handle = await app.start(group.workflow)
        await eventually(lambda: len(group.entered) == 3)
        run = await handle.get()
        assert [step.status for step in run.steps] == ["running", "running", "running", "pending"]
        group.open("b")
        found = await stored(runs, handle, 1, "done")
        assert found["steps"][1]["output"] == "B"
        assert [step["status"] for step in found["steps"]] == ["running", "done", "running", "pending"]
        group.open("a", "c")
        assert await handle.result("20s") == {"a": "A", "b": "B", "c": "C"}
    assert sorted(group.entered) == [("a", 1), ("after", 1), ("b", 1), ("c", 1)]


async def test_members_of_a_claimed_run_are_at_work_at_the_same_time_too(make_app: Any) -> None:
    group = Members("a", "b")
    async with make_app(group.workflow) as app:
        handle = await app.start(group.workflow, delay=0.02)
        await eventually(lambda: len(group.entered) == 2)
        group.open("a", "b")
        assert await handle.result("20s") == {"a": "A", "b": "B"}


async def test_two_groups_next_to_each_other_follow_one_another(make_app: Any) -> None:
    log: list[str] = []
    wf: Workflow[Any, Any, Any] = Workflow("w")

    def member(name: str, group: str) -> None:
        @wf.step(name, group=group)
        async def work(ctx: Context[Any]) -> str:
            log.append(f"{name} begins")
            await asyncio.sleep(0.02)
            log.append(f"{name} ends")
            return name

    for name, group in (("a1", "a"), ("a2", "a"), ("b1", "b"), ("b2", "b")):
        member(name, group)
    async with make_app(wf) as app:
        assert await app.run(wf, timeout="20s") == "b2"
    assert set(log[:4]) == {"a1 begins", "a2 begins", "a1 ends", "a2 ends"}
    assert log.index("a2 begins") < log.index("a1 ends")
    assert log.index("b2 begins") < log.index("b1 ends")


async def test_the_last_members_output_is_the_runs_whoever_ends_last(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("w")

    @wf.step(group="g")
    async def slow(ctx: Context[Any]) -> str:
        await asyncio.sleep(0.05)
        return "slow"

    @wf.step(group="g")
    async def quick(ctx: Context[Any]) -> str:
        return "quick"

    async with make_app(wf) as app:
        assert await app.run(wf, timeout="20s") == "quick"


async def test_one_failing_member_lets_the_others_finish_then_the_run_fails(make_app: Any, runs: Any) -> None:
    group = Members("bad", "good")
    group.errors["bad"] = NonRetriableError("no")
    async with make_app(group.workflow) as app:
        handle = await app.start(group.workflow)
        group.open("bad")
        found = await stored(runs, handle, 0, "failed")
        assert found["status"] == "running"
        assert found["steps"][1]["status"] == "running"
        group.open("good")
        run = await handle.wait("20s")
    assert run.status == "failed"
    assert (run.error.step, run.error.message) == ("bad", "no")
    assert [(step.id, step.status) for step in run.steps] == [("bad", "failed"), ("good", "done"), ("after", "pending")]
    assert run.step("good").output == "GOOD"


async def test_a_member_whose_failure_is_tolerated_is_skipped(make_app: Any) -> None:
    group = Members("optional", "good")
    group.errors["optional"] = NonRetriableError("no")
    group.open("optional", "good")
    async with make_app(group.workflow) as app:
        handle = await app.start(group.workflow)
        assert await handle.result("20s") == {"optional": None, "good": "GOOD"}
        run = await handle.get()
    assert run.step("optional").status == "skipped"
    assert run.step("optional").error.message == "no"


async def test_predicates_of_members_are_asked(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("w")
    entered: list[str] = []

    @wf.step(group="g", skip_if=lambda ctx: True)
    async def unwanted(ctx: Context[Any]) -> None:
        entered.append("unwanted")

    @wf.step(group="g", run_if=lambda ctx: True)
    async def wanted(ctx: Context[Any]) -> str:
        entered.append("wanted")
        return "w"

    async with make_app(wf) as app:
        handle = await app.start(wf)
        assert await handle.result("20s") == "w"
        run = await handle.get()
    assert entered == ["wanted"]
    assert run.step("unwanted").status == "skipped"


async def test_a_member_is_tried_again_while_another_is_at_work(make_app: Any, runs: Any) -> None:
    group = Members("flaky", "steady")
    group.errors["flaky"] = RetryAfter(0.01)
    async with make_app(group.workflow) as app:
        handle = await app.start(group.workflow)
        group.open("flaky")
        await stored(runs, handle, 0, "failed")
        assert sorted(group.entered) == [("flaky", 1), ("flaky", 2), ("steady", 1)]
        group.open("steady")
        run = await handle.wait("20s")
    assert run.status == "failed"
    assert run.step("flaky").attempt == 2
    assert run.step("steady").attempt == 1


async def test_the_run_is_parked_while_all_unfinished_members_wait(make_app: Any, runs: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("w")
    entered: list[str] = []

    @wf.step(group="g")
    async def asks(ctx: Context[Any]) -> Any:
        entered.append("asks")
        return await ctx.wait("name")

    @wf.step(group="g")
    async def sleeps(ctx: Context[Any]) -> str:
        entered.append("sleeps")
        await ctx.sleep(0.15)
        return "rested"

    @wf.step(group="g")
    async def works(ctx: Context[Any]) -> str:
        entered.append("works")
        return "worked"

    @wf.step
    async def after(ctx: Context[Any]) -> Any:
        return [ctx.output(asks), ctx.output(sleeps), ctx.output(works)]

    async with make_app(wf) as app:
        handle = await app.start(wf)
        await status_of(handle, "waiting")
        run = await handle.get()
        assert {wait.kind for wait in run.waits} >= {"wait"}
        assert await runs.find_one({"_id": handle.id, "lease": {"$exists": False}})
        await stored(runs, handle, 1, "done")
        await status_of(handle, "waiting")
        await handle.resume("ann")
        assert await handle.result("20s") == ["ann", "rested", "worked"]
    assert entered.count("works") == 1


async def test_a_member_that_waits_is_answered_while_another_is_at_work(make_app: Any, runs: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("w")
    gate = asyncio.Event()

    @wf.step(group="g")
    async def asks(ctx: Context[Any]) -> Any:
        return await ctx.wait("name")

    @wf.step(group="g")
    async def works(ctx: Context[Any]) -> None:
        await gate.wait()

    async with make_app(wf) as app:
        handle = await app.start(wf)
        await eventually(app.pending_waits)
        await handle.resume("ann")
        found = await stored(runs, handle, 0, "done")
        assert found["steps"][1]["status"] == "running"
        gate.set()
        await handle.result("20s")


async def test_a_death_in_the_middle_repeats_no_member_that_is_done(make_app: Any, runs: Any) -> None:
    group, clock = Members("a", "b", "c"), MovableClock()
    group.open("a", "b", "c")
    async with make_app(group.workflow, worker=False, clock=clock) as app:
        handle = await app.start(group.workflow)
        at = clock.now() - timedelta(hours=1)
        lost = {
            "status": "running",
            "attempt": 1,
            "lease": {"worker": "dead", "token": "dead", "at": at, "until": at},
            "steps.0.status": "running",
            "steps.1.status": "done",
            "steps.1.output": "kept",
            "steps.2.status": "running",
        }
        await runs.update_one({"_id": handle.id}, {"$set": lost, "$unset": {"due_at": ""}, "$inc": {"rev": 1}})
        assert await app.tick() == 1
        run = await handle.get()
    assert run.output == {"a": "A", "b": "kept", "c": "C"}
    assert sorted(group.entered) == [("a", 2), ("after", 1), ("c", 2)]


async def test_a_stopping_worker_hands_over_what_is_not_done(make_app: Any, runs: Any) -> None:
    group = Members("a", "b")
    async with make_app(group.workflow, worker=Worker(lease="30s", drain=0, cancel_grace="1s")) as app:
        handle = await app.start(group.workflow)
        group.open("a")
        await stored(runs, handle, 0, "done")
    group.open("b")
    async with make_app(group.workflow) as app:
        assert await app.handle(handle.id).result("20s") == {"a": "A", "b": "B"}
    assert sorted(group.entered) == [("a", 1), ("after", 1), ("b", 1), ("b", 1)]


async def test_cancelling_ends_every_member(make_app: Any, runs: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("w")
    entered, ended = [], []

    def member(name: str) -> None:
        @wf.step(name, group="g")
        async def work(ctx: Context[Any]) -> None:
            entered.append(name)
            try:
                await asyncio.sleep(60)
            finally:
                ended.append(name)

    member("a")
    member("b")
    async with make_app(wf) as app:
        handle = await app.start(wf)
        await eventually(lambda: len(entered) == 2)
        await handle.cancel()
        await eventually(lambda: sorted(ended) == ["a", "b"])
        run = await handle.get()
    assert [step.status for step in run.steps] == ["pending", "pending"]


async def test_members_change_different_parts_of_the_state(make_app: Any) -> None:
    wf: Workflow[Any, dict[str, Any], Any] = Workflow("w", state=dict)

    @wf.step
    async def before(ctx: Context[Any, dict[str, Any]]) -> None:
        ctx.state["both"] = "old"

    def member(name: str, pause: float) -> None:
        @wf.step(name, group="g")
        async def work(ctx: Context[Any, dict[str, Any]]) -> None:
            await asyncio.sleep(pause)
            ctx.state[name] = True
            await ctx.inc("n", 1)

    member("a", 0.03)
    member("b", 0)
    async with make_app(wf) as app:
        handle = await app.start(wf)
        await handle.result("20s")
        run = await handle.get()
    assert run.state == {"both": "old", "a": True, "b": True, "n": 2}


async def test_a_retried_run_does_only_its_failed_members_again(make_app: Any) -> None:
    group = Members("bad", "good")
    group.errors["bad"] = NonRetriableError("no")
    group.open("bad", "good")
    async with make_app(group.workflow) as app:
        handle = await app.start(group.workflow)
        assert (await handle.wait("20s")).status == "failed"
        group.errors.clear()
        await handle.retry()
        assert await handle.result("20s") == {"bad": "BAD", "good": "GOOD"}
    assert [name for name, _ in group.entered].count("good") == 1


async def test_a_step_of_a_group_cannot_jump(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("w")
    entered: list[str] = []

    @wf.step(group="g")
    async def jumps(ctx: Context[Any]) -> None:
        entered.append("jumps")
        ctx.goto("after")

    @wf.step(group="g")
    async def stays(ctx: Context[Any]) -> str:
        return "stays"

    @wf.step
    async def after(ctx: Context[Any]) -> None:
        entered.append("after")

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.status == "failed"
    assert "group" in run.error.message
    assert run.step("stays").status == "done"
    assert entered == ["jumps"]


async def test_a_paused_group_finishes_and_the_step_after_it_does_not_begin(make_app: Any, runs: Any) -> None:
    group = Members("a", "b")
    async with make_app(group.workflow) as app:
        handle = await app.start(group.workflow)
        await eventually(lambda: len(group.entered) == 2)
        await handle.pause()
        group.open("a", "b")
        await eventually(lambda: runs.find_one({"_id": handle.id, "lease": {"$exists": False}}))
        run = await handle.get()
        assert [step.status for step in run.steps] == ["done", "done", "pending"]
        await handle.unpause()
        assert await handle.result("20s") == {"a": "A", "b": "B"}
