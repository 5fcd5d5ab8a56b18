"""What becomes of a run whose worker stopped beating, where it is not to be taken over."""

from __future__ import annotations

from typing import Any

import pytest

from streamline import Context, OnCompletion, Worker, Workflow
from streamline.errors import RunCancelled, RunFailed
from tests.clocks import MovableClock
from tests.integration.test_recovery import abandon
from tests.waiting import PATIENCE, eventually, status_of


def flow(did: list[str], **options: Any) -> Workflow[Any, Any, Any]:
    """A workflow of two steps of which the first can be undone."""
    wf: Workflow[Any, Any, Any] = Workflow("flow", **options)

    @wf.step
    async def first(ctx: Context[Any]) -> str:
        did.append("first")
        return "one"

    @first.compensate
    async def undo(ctx: Context[Any], output: str) -> None:
        did.append("undone")

    @wf.step
    async def second(ctx: Context[Any]) -> None:
        did.append("second")

    return wf


STOOD = {"steps.0.status": "done", "steps.0.output": "one", "cursor": 1, "steps.1.status": "running"}


def worker(on_lost: Any, **options: Any) -> Worker:
    return Worker(lease="400ms", poll_interval="200ms", on_lost=on_lost, **options)


@pytest.mark.parametrize(
    ("on_lost", "compensate_on", "status", "undone"),
    [
        ("fail", {"failed"}, "compensated", True),
        ("fail", set(), "failed", False),
        ("cancel", {"failed"}, "cancelled", False),
        ("cancel", {"failed", "cancelled"}, "compensated", True),
    ],
)
async def test_a_lost_run_ends_like_any_other(
    make_app: Any, runs: Any, on_lost: str, compensate_on: set[str], status: str, *, undone: bool
) -> None:
    did, clock = list[str](), MovableClock()
    wf = flow(did, compensate_on=compensate_on, retention="1d")
    async with make_app(wf, worker=worker(on_lost), clock=clock) as app:
        handle = await app.start(wf, delay="1h", idempotency_key="k")
        await abandon(runs, handle.id, clock, **STOOD)
        run = await handle.wait(PATIENCE)
        types = [event.type async for event in handle.events()]
        assert (await app.start(wf, delay="1h", idempotency_key="k")).created
        with pytest.raises(RunFailed if on_lost == "fail" else RunCancelled):
            await handle.result(PATIENCE)
    assert (run.status, run.recovery_count) == (status, 1)
    assert did == (["undone"] if undone else [])
    if on_lost == "fail":
        assert (run.error.code, run.error.step, run.step("second").status) == ("stale_heartbeat", "second", "failed")
        assert "step.failed" in types
        assert ("run.compensating" if undone else "run.failed") in types
        assert types[1] == "run.recovered"
    else:
        assert (run.error.code, run.cancel["reason"]) == ("run.cancelled", "stale_heartbeat")
        assert "run.cancelled" in types
    assert run.ended_at is not None
    assert run.expire_at is not None


@pytest.mark.parametrize("on_lost", ["fail", "cancel"])
async def test_past_the_limit_it_is_a_dead_letter_whatever_else_is_said(make_app: Any, runs: Any, on_lost: str) -> None:
    did, clock = list[str](), MovableClock()
    wf = flow(did)
    async with make_app(wf, worker=worker(on_lost, max_recoveries=2), clock=clock) as app:
        handle = await app.start(wf, delay="1h")
        await abandon(runs, handle.id, clock, recovery_count=2, **STOOD)
        run = await handle.wait(PATIENCE)
        types = [event.type async for event in handle.events()]
    assert (run.status, run.error.code, run.recovery_count) == ("compensated", "dead_lettered", 3)
    assert did == ["undone"]
    assert types.index("run.compensating") == types.index("run.dead_lettered") + 1


@pytest.mark.parametrize("on_lost", ["fail", "cancel"])
async def test_what_is_being_undone_is_taken_over_all_the_same(make_app: Any, runs: Any, on_lost: str) -> None:
    did, clock = list[str](), MovableClock()
    wf = flow(did)
    async with make_app(wf, worker=worker(on_lost), clock=clock) as app:
        handle = await app.start(wf, delay="1h")
        undoing = {"steps.0.status": "done", "steps.0.compensation": {"status": "pending"}, "cursor": 1}
        error = {"code": "step.error", "type": "ValueError", "message": "no", "step": "second", "attempt": 1}
        await abandon(runs, handle.id, clock, **undoing, status="compensating", error=error)
        run = await handle.wait(PATIENCE)
    assert (run.status, run.error.code) == ("compensated", "step.error")
    assert did == ["undone"]


async def test_only_what_was_lost_is_ended(make_app: Any, runs: Any) -> None:
    """Runs that wait, are held, are queued, or have a living worker are none of the sweeper's business."""
    did, clock = list[str](), MovableClock()
    wf = flow(did)
    waiting: Workflow[Any, Any, Any] = Workflow("waiting")

    @waiting.step
    async def wait(ctx: Context[Any]) -> None:
        await ctx.wait("for ever")

    async with make_app(wf, waiting, worker=worker("fail"), clock=clock) as app:
        queued, held = [await app.start(wf, delay="90d") for _ in range(2)]
        parked = await app.start(waiting)
        await status_of(parked, "waiting")
        await held.pause()
        clock.move(days=30)
        lost = await app.start(wf, delay="1h")
        await abandon(runs, lost.id, clock)
        assert (await lost.wait(PATIENCE)).error.code == "stale_heartbeat"
        for handle, status in ((queued, "draft"), (held, "draft"), (parked, "waiting")):
            run = await handle.get()
            assert (run.status, run.recovery_count, run.error) == (status, 0, None)
    assert did == []


async def test_followers_of_failures_hear_of_it(make_app: Any, runs: Any) -> None:
    did, clock, told = list[str](), MovableClock(), list[str]()
    wf = flow(did, compensate_on=set())
    after: Workflow[Any, Any, Any] = Workflow("after", triggers=[OnCompletion("flow", status={"failed"})])

    @after.step
    async def note(ctx: Context[Any]) -> None:
        told.append("triggered")

    async with make_app(wf, after, worker=worker("recover", max_recoveries=0), clock=clock) as app:
        app.on("run.failed", lambda event: told.append(event.data["error"]["code"]))
        handle = await app.start(wf, delay="1h")
        await abandon(runs, handle.id, clock, **STOOD)
        await eventually(lambda: len(told) == 2)
    assert sorted(told) == ["dead_lettered", "triggered"]


async def test_a_worker_that_dies_before_it_ended_the_run_leaves_it_to_the_next(make_app: Any, runs: Any) -> None:
    did, clock = list[str](), MovableClock()
    wf = flow(did, compensate_on=set())
    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf, delay="1h")
        lease = {"news": "recovered", "worker": "dead", "token": "dead", "at": clock.now(), "until": clock.now()}
        await abandon(runs, handle.id, clock, lease=lease, recovery_count=1, **STOOD)
    async with make_app(wf, worker=worker("fail"), clock=clock) as app:
        run = await app.wait_for_run(handle.id, PATIENCE)
    assert (run.status, run.error.code, run.recovery_count) == ("failed", "stale_heartbeat", 2)
    assert did == []
