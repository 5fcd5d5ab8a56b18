"""Runs whose worker died: taken over, counted, given up in the end; and zombies that speak too late."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from streamline import Context, RetryPolicy, Worker, Workflow
from streamline.errors import RunFailed
from tests.clocks import MovableClock
from tests.waiting import eventually

HOUR = timedelta(hours=1)


def two_steps(calls: list[Any]) -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow("two")

    @wf.step
    async def first(ctx: Context[Any]) -> str:
        calls.append(("first", ctx.attempt))
        return "one"

    @wf.step
    async def second(ctx: Context[Any]) -> str:
        calls.append(("second", ctx.attempt))
        return f"{ctx.output(first)}, two"

    return wf


async def abandon(runs: Any, run_id: str, clock: MovableClock, **put: Any) -> None:
    """Make a run look as if its worker had died in the middle of its present step."""
    at = clock.now() - HOUR
    lease = {"worker": "dead", "token": "dead", "at": at, "until": at + timedelta(seconds=30)}
    change = {"status": "running", "lease": lease, "attempt": 1, "started_at": at, **put}
    await runs.update_one({"_id": run_id}, {"$set": change, "$unset": {"due_at": ""}, "$inc": {"rev": 1}})


async def test_a_run_whose_worker_died_is_taken_over(make_app: Any, runs: Any) -> None:
    calls: list[Any] = []
    wf, clock = two_steps(calls), MovableClock()
    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        await abandon(runs, handle.id, clock)
        assert await app.tick() == 1
        run = await handle.get()
        events = [event async for event in handle.events()]
    assert run.output == "one, two"
    assert calls == [("first", 2), ("second", 1)]
    assert run.recovery_count == 1
    assert run.step("first").attempt == 2
    assert run.step("first").started_at > run.started_at
    assert [event.type for event in events][:3] == ["run.created", "run.recovered", "step.started"]
    assert events[1].data["recovery_count"] == 1


async def test_a_background_worker_recovers_too(make_app: Any, runs: Any) -> None:
    calls: list[Any] = []
    wf, clock = two_steps(calls), MovableClock()
    async with make_app(wf, worker=Worker(lease="400ms", poll_interval="1h"), clock=clock) as app:
        handle = await app.start(wf, delay="1h")
        await abandon(runs, handle.id, clock)
        assert await handle.result("20s") == "one, two"


async def test_finished_steps_are_not_carried_out_again(make_app: Any, runs: Any) -> None:
    calls: list[Any] = []
    wf, clock = two_steps(calls), MovableClock()
    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        done = {"steps.0.status": "done", "steps.0.output": "kept", "cursor": 1, "steps.1.status": "running"}
        await abandon(runs, handle.id, clock, **done)
        await app.tick()
        run = await handle.get()
    assert run.output == "kept, two"
    assert calls == [("second", 2)]


async def test_settled_calls_survive_the_worker(make_app: Any, runs: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("caller")
    clock, calls = MovableClock(), []

    @wf.step
    async def caller(ctx: Context[Any]) -> list[Any]:
        async def fetch(name: str) -> str:
            calls.append(name)
            return name

        return [await ctx.call("a", fetch, "a"), await ctx.call("b", fetch, "b")]

    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        await abandon(runs, handle.id, clock, **{"steps.0.memo": {"a": {"kind": "call", "output": "kept"}}})
        await app.tick()
        run = await handle.get()
    assert run.output == ["kept", "b"]
    assert calls == ["b"]


async def test_a_run_with_a_live_lease_is_left_alone(make_app: Any, runs: Any) -> None:
    calls: list[Any] = []
    wf, clock = two_steps(calls), MovableClock()
    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        alive = {"worker": "alive", "token": "t", "at": clock.now(), "until": clock.now() + timedelta(seconds=20)}
        await abandon(runs, handle.id, clock, lease=alive)
        assert await app.tick() == 0
        clock.move(seconds=21)
        assert await app.tick() == 1
    assert calls == [("first", 2), ("second", 1)]


async def test_a_run_that_nobody_has_taken_yet_is_never_recovered(make_app: Any) -> None:
    calls: list[Any] = []
    wf, clock = two_steps(calls), MovableClock()
    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        clock.move(days=30)
        assert (await handle.get()).status == "draft"
        await app.tick()
        run = await handle.get()
    assert run.status == "done"
    assert run.recovery_count == 0
    assert calls == [("first", 1), ("second", 1)]


@pytest.mark.parametrize("allowed", [0, 2])
async def test_a_run_that_kills_its_workers_is_given_up(make_app: Any, runs: Any, allowed: int) -> None:
    calls: list[Any] = []
    wf: Workflow[Any, Any, Any] = Workflow("poison", retention="1d")
    clock = MovableClock()

    @wf.step
    async def poison(ctx: Context[Any]) -> None:
        calls.append(ctx.attempt)

    async with make_app(wf, worker=Worker(max_recoveries=allowed, lease="400ms"), clock=clock) as app:
        handle = await app.start(wf, delay="1h", idempotency_key="k")
        await abandon(runs, handle.id, clock, recovery_count=allowed)
        with pytest.raises(RunFailed) as caught:
            await handle.result("20s")
        run = await handle.get()
        events = [event async for event in handle.events()]
        assert (await app.start(wf, delay="1h", idempotency_key="k")).created
    assert calls == []
    assert run.status == "failed"
    assert run.error.code == "dead_lettered"
    assert run.error.step == "poison"
    assert caught.value.error["code"] == "dead_lettered"
    assert str(allowed) in run.error.message
    assert run.step("poison").status == "failed"
    assert run.ended_at is not None
    assert run.expire_at - run.ended_at == timedelta(days=1)
    assert [event.type for event in events][-3:] == ["step.failed", "run.dead_lettered", "run.failed"]


async def test_the_last_allowed_recovery_is_carried_out(make_app: Any, runs: Any) -> None:
    calls: list[Any] = []
    wf, clock = two_steps(calls), MovableClock()
    async with make_app(wf, worker=Worker(max_recoveries=2, lease="400ms"), clock=clock) as app:
        handle = await app.start(wf, delay="1h")
        await abandon(runs, handle.id, clock, recovery_count=1)
        assert await handle.result("20s") == "one, two"


async def test_a_given_up_run_can_be_retried(make_app: Any, runs: Any) -> None:
    calls: list[Any] = []
    wf, clock = two_steps(calls), MovableClock()
    async with make_app(wf, worker=Worker(max_recoveries=0, lease="400ms"), clock=clock) as app:
        handle = await app.start(wf, delay="1h")
        await abandon(runs, handle.id, clock)
        assert (await handle.wait("20s")).error.code == "dead_lettered"
        await handle.retry()
        assert await handle.result("20s") == "one, two"
        assert (await handle.get()).recovery_count == 0


async def test_recoveries_do_not_use_up_the_attempts_of_a_step(make_app: Any, runs: Any) -> None:
    clock, calls = MovableClock(), []
    wf: Workflow[Any, Any, Any] = Workflow("flaky")

    @wf.step(retry=RetryPolicy(max_attempts=2, delay=0))
    async def flaky(ctx: Context[Any]) -> str:
        calls.append(ctx.attempt)
        if len(calls) == 1:
            raise ValueError
        return "done"

    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        await abandon(runs, handle.id, clock)
        await app.tick()
        clock.move(seconds=1)
        await app.tick()
        assert await handle.result("20s") == "done"
    assert calls == [2, 3]


class Zombie:
    """A workflow whose first driver does not hear that it lost the run, and speaks when told to."""

    def __init__(self) -> None:
        self.speak, self.asleep, self.spoken = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def workflow(self, name: str, *, deaf: bool) -> Workflow[Any, Any, Any]:
        wf: Workflow[Any, Any, Any] = Workflow("haunted")

        @wf.step
        async def work(ctx: Context[Any]) -> str:
            if deaf:
                self.asleep.set()
                while not self.speak.is_set():
                    try:
                        await self.speak.wait()
                    except asyncio.CancelledError:
                        continue
                self.spoken.set()
            return f"by {name}"

        @wf.step
        async def after(ctx: Context[Any]) -> Any:
            return ctx.outputs["work"]

        return wf


async def test_a_zombie_that_speaks_after_its_run_was_taken_over_changes_nothing(make_app: Any, runs: Any) -> None:
    zombie = Zombie()
    patient = Worker(lease="60s", cancel_grace="30s", drain=0)
    async with make_app(zombie.workflow("zombie", deaf=True), worker=patient) as dead:
        handle = await dead.start("haunted")
        await zombie.asleep.wait()
        await runs.update_one({"_id": handle.id}, [{"$set": {"lease.until": {"$subtract": ["$$NOW", 1000]}}}])
        async with make_app(zombie.workflow("heir", deaf=False), worker=False) as heir:
            assert await heir.tick() == 1
            assert await heir.handle(handle.id).result("20s") == "by heir"
            before = await runs.find_one({"_id": handle.id})
            zombie.speak.set()
            await zombie.spoken.wait()
    assert await runs.find_one({"_id": handle.id}) == before
    assert before["recovery_count"] == 1


async def test_a_zombie_that_speaks_while_its_heir_is_at_work_is_refused(make_app: Any, runs: Any) -> None:
    zombie, heir_at_work, go_on = Zombie(), asyncio.Event(), asyncio.Event()
    heirs: Workflow[Any, Any, Any] = Workflow("haunted")

    @heirs.step
    async def work(ctx: Context[Any]) -> str:
        heir_at_work.set()
        await go_on.wait()
        return "by heir"

    @heirs.step
    async def after(ctx: Context[Any]) -> Any:
        return ctx.outputs["work"]

    patient = Worker(lease="60s", cancel_grace="30s", drain=0)
    async with make_app(zombie.workflow("zombie", deaf=True), worker=patient) as dead:
        handle = await dead.start("haunted")
        await zombie.asleep.wait()
        await runs.update_one({"_id": handle.id}, [{"$set": {"lease.until": {"$subtract": ["$$NOW", 1000]}}}])
        async with make_app(heirs, worker=Worker(lease="400ms")) as heir:
            await asyncio.wait_for(heir_at_work.wait(), 20)
            token = (await runs.find_one({"_id": handle.id}))["lease"]["token"]
            zombie.speak.set()
            await zombie.spoken.wait()
            await asyncio.sleep(0.1)
            stored = await runs.find_one({"_id": handle.id})
            assert stored["lease"]["token"] == token
            assert stored["steps"][0]["status"] != "done"
            go_on.set()
            assert await heir.handle(handle.id).result("20s") == "by heir"


async def test_a_worker_that_lost_its_run_ends_its_handler(make_app: Any, runs: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("long")
    entered, ended = asyncio.Event(), asyncio.Event()

    @wf.step
    async def work(ctx: Context[Any]) -> None:
        entered.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async with make_app(wf, worker=Worker(lease="800ms")) as app:
        handle = await app.start(wf)
        await entered.wait()
        await runs.update_one(
            {"_id": handle.id}, {"$set": {"lease.token": "other", "lease.until": app._clock.now() + HOUR}}
        )
        await asyncio.wait_for(ended.wait(), 10)
        stored = await runs.find_one({"_id": handle.id})
    assert stored["lease"]["token"] == "other"


async def test_a_worker_keeps_its_lease_for_as_long_as_a_step_takes(make_app: Any, runs: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("long")
    gate, calls = asyncio.Event(), []

    @wf.step
    async def work(ctx: Context[Any]) -> str:
        calls.append(ctx.attempt)
        await gate.wait()
        return "kept"

    quick = Worker(lease="400ms", poll_interval="100ms")
    async with make_app(wf, worker=quick) as app, make_app(wf, worker=quick):
        handle = await app.start(wf)
        first = (await runs.find_one({"_id": handle.id}))["lease"]["until"]

        async def extended() -> bool:
            return (await runs.find_one({"_id": handle.id}))["lease"]["until"] > first + timedelta(seconds=1.2)

        await eventually(extended)
        gate.set()
        assert await handle.result("20s") == "kept"
        assert (await handle.get()).recovery_count == 0
    assert calls == [1]


async def test_the_document_of_a_run_that_vanished_is_not_written_again(make_app: Any, runs: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("vanishing")
    gate, entered, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @wf.step
    async def work(ctx: Context[Any]) -> None:
        entered.set()
        await gate.wait()
        ended.set()

    async with make_app(wf) as app:
        handle = await app.start(wf)
        await entered.wait()
        await runs.delete_one({"_id": handle.id})
        gate.set()
        await ended.wait()
    assert await runs.count_documents({}) == 0
