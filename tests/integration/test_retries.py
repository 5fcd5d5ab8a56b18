"""Failing attempts: how often, how soon, and what is kept of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streamline import Context, NonRetriableError, RetryAfter, RetryPolicy, Workflow
from streamline.errors import RunFailed
from tests.clocks import MovableClock

AT_ONCE = RetryPolicy(max_attempts=3, delay=0)


class Flaky:
    """A handler that raises the errors given, one per call, and then returns the number of the call."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.attempts: list[int] = []

    async def __call__(self, ctx: Context[Any]) -> int:
        self.attempts.append(ctx.attempt)
        if self.errors:
            raise self.errors.pop(0)
        return len(self.attempts)


def flaky(*errors: BaseException, retry: RetryPolicy = AT_ONCE) -> tuple[Workflow[Any, Any, Any], Flaky]:
    wf: Workflow[Any, Any, Any] = Workflow("flaky")
    handler = Flaky(*errors)
    wf.step("shaky", retry=retry)(handler)

    @wf.step
    async def after(ctx: Context[Any]) -> Any:
        return ctx.outputs["shaky"]

    return wf, handler


async def test_a_step_that_fails_once_is_tried_again_and_its_error_is_cleared(make_app: Any) -> None:
    wf, handler = flaky(ValueError("once"))
    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.status == "done"
    assert run.output == 2
    assert handler.attempts == [1, 2]
    assert run.error is None
    step = run.step("shaky")
    assert (step.status, step.attempt, step.error) == ("done", 2, None)
    assert run.step("after").attempt == 1


async def test_a_step_that_always_fails_fails_the_run(make_app: Any) -> None:
    wf, handler = flaky(*[ValueError(f"no {i}") for i in range(9)])
    async with make_app(wf) as app:
        handle = await app.start(wf)
        with pytest.raises(RunFailed) as caught:
            await handle.result("20s")
        run = await handle.get()
    assert handler.attempts == [1, 2, 3]
    kept = {"code": "step.error", "type": "ValueError", "message": "no 2", "step": "shaky", "attempt": 3}
    assert caught.value.error == kept
    assert caught.value.run_id == run.id
    assert "no 2" in str(caught.value)
    assert {name: run.error[name] for name in run.error} == kept
    assert run.step("shaky").error == run.error
    assert run.step("shaky").status == "failed"
    assert run.step("shaky").ended_at == run.ended_at
    assert run.step("after").status == "pending"
    assert run.output is None
    assert run.due_at is None


async def test_the_number_of_attempts_counts_the_first(make_app: Any) -> None:
    wf, handler = flaky(*[ValueError()] * 9, retry=RetryPolicy(max_attempts=1))
    async with make_app(wf) as app:
        assert (await (await app.start(wf)).wait("20s")).status == "failed"
    assert handler.attempts == [1]


class Refused(Exception):
    retriable = False


@pytest.mark.parametrize("error", [NonRetriableError("no"), Refused("no")], ids=repr)
async def test_an_error_that_rules_out_another_attempt_gets_none(make_app: Any, error: Exception) -> None:
    wf, handler = flaky(error)
    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert handler.attempts == [1]
    assert run.status == "failed"
    assert run.error.type == type(error).__name__
    assert run.error.code == ("step.non_retriable" if isinstance(error, NonRetriableError) else "step.error")


async def test_only_the_types_of_the_policy_are_tried_again(make_app: Any) -> None:
    wf, handler = flaky(ConnectionError(), ValueError(), retry=RetryPolicy(delay=0, retry_on=(OSError,)))
    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert handler.attempts == [1, 2]
    assert run.error.type == "ValueError"


async def test_the_policy_of_the_workflow_holds_for_steps_without_their_own(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("strict", retry=RetryPolicy(max_attempts=2, delay=0))
    plain, own, short = Flaky(ValueError()), Flaky(*[ValueError()] * 3), Flaky(ValueError())
    wf.step("plain")(plain)
    wf.step("own", retry=RetryPolicy(max_attempts=4, delay=0))(own)
    wf.step("short", max_attempts=1)(short)
    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert (plain.attempts, own.attempts, short.attempts) == ([1, 2], [1, 2, 3, 4], [1])
    assert run.error.step == "short"


@pytest.mark.parametrize(
    ("backoff", "seconds"),
    [
        ("fixed", [100, 100, 100, 100]),
        ("linear", [100, 200, 300, 400]),
        ("exponential", [100, 200, 400, 500]),
        (1, [100, 100, 100, 100]),
        (1.5, [100, 150, 225, 337.5]),
    ],
)
async def test_pauses_follow_the_backoff(make_app: Any, backoff: Any, seconds: list[float]) -> None:
    policy = RetryPolicy(max_attempts=5, delay="100s", backoff=backoff, max_delay="500s", jitter=0)
    wf, handler = flaky(*[ValueError()] * 4, retry=policy)
    clock = MovableClock()
    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        for pause in seconds:
            assert await app.tick() == 1
            run = await handle.get()
            assert run.status == "waiting"
            assert run.step("shaky").status == "pending"
            assert (run.due_at - run.updated_at).total_seconds() == pytest.approx(pause, abs=0.002)
            clock.move(seconds=pause - 5)
            assert await app.tick() == 0
            clock.move(seconds=5)
        assert await app.tick() == 1
        assert (await handle.get()).status == "done"
    assert handler.attempts == [1, 2, 3, 4, 5]


async def test_jitter_moves_the_pause_within_its_share(make_app: Any) -> None:
    wf, _ = flaky(*[ValueError()] * 99, retry=RetryPolicy(delay="100s", max_delay="1h", jitter=0.3))
    async with make_app(wf, worker=False) as app:
        handles = await app.start_many(wf, [None] * 20)
        assert await app.tick() == 20
        runs = [await handle.get() for handle in handles]
    pauses = [(run.due_at - run.updated_at).total_seconds() for run in runs]
    assert all(69.9 <= pause <= 130.1 for pause in pauses)
    assert len(set(pauses)) > 10


@pytest.mark.parametrize("delay", ["250s", 250, timedelta(seconds=250)], ids=repr)
async def test_retry_after_sets_the_next_pause(make_app: Any, delay: Any) -> None:
    wf, _ = flaky(RetryAfter(delay, "busy"), retry=RetryPolicy(delay="1s", max_delay="1s"))
    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        await app.tick()
        run = await handle.get()
    assert (run.due_at - run.updated_at) == timedelta(seconds=250)
    assert run.step("shaky").error.code == "step.retry_after"
    assert run.step("shaky").error.message == "busy"


@pytest.mark.parametrize("delay", [-1, "soon", float("nan"), 1e300, None, [3]], ids=repr)
async def test_an_unusable_retry_after_falls_back_on_the_policy(make_app: Any, delay: Any) -> None:
    wf, handler = flaky(RetryAfter(delay))
    async with make_app(wf) as app:
        assert await app.run(wf, timeout="20s") == 2
    assert handler.attempts == [1, 2]


async def test_retry_after_is_an_attempt_too(make_app: Any) -> None:
    wf, handler = flaky(*[RetryAfter(0)] * 9)
    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert handler.attempts == [1, 2, 3]
    assert run.error.code == "step.retry_after"


async def test_a_run_between_attempts_shows_its_last_error(make_app: Any) -> None:
    wf, _ = flaky(ValueError("first"), retry=RetryPolicy(delay="1h"))
    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        await app.tick()
        run = await handle.get()
    assert run.error is None
    assert run.step("shaky").error.message == "first"
    assert run.step("shaky").attempt == 1
    assert run.ended_at is None
    assert run.step("shaky").ended_at is None
