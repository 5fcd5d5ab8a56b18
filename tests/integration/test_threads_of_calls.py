"""Plain functions behind `ctx.call`: a thread cannot be interrupted, so nothing else begins while it is at work."""

from __future__ import annotations

import threading
import time
from typing import Any

from streamline import Context, RetryPolicy, Worker, Workflow


class Overlap:
    """Counts how many threads are inside at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.inside = self.most = self.entered = 0

    def work(self, seconds: float) -> int:
        with self._lock:
            self.inside, self.entered = self.inside + 1, self.entered + 1
            self.most = max(self.most, self.inside)
        time.sleep(seconds)
        with self._lock:
            self.inside -= 1
        return self.entered


async def test_an_attempt_that_timed_out_ends_with_its_calls_thread(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("blocking")
    overlap = Overlap()

    @wf.step(timeout="100ms", retry=RetryPolicy(max_attempts=3, delay="1ms"))
    async def only(ctx: Context[Any]) -> int:
        return await ctx.call("work", overlap.work, 0.4)

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.error is not None
    assert run.error.code == "step.timeout"
    assert (overlap.most, overlap.entered) == (1, 3)


async def test_a_call_that_timed_out_is_over_before_it_is_tried_again(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("calling")
    overlap = Overlap()

    @wf.step(max_attempts=1)
    async def only(ctx: Context[Any]) -> int:
        retry = RetryPolicy(max_attempts=3, delay="1ms")
        return await ctx.call("work", overlap.work, 0.3, timeout="50ms", retry=retry, default=-1)

    async with make_app(wf) as app:
        assert await app.run(wf, timeout="20s") == -1
    assert (overlap.most, overlap.entered) == (1, 3)


async def test_waiting_for_a_thread_is_not_the_attempts_time(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("queueing")

    @wf.step(timeout="600ms", max_attempts=1)
    def only(ctx: Context[Any]) -> str:
        time.sleep(0.3)
        return "ran"

    async with make_app(wf, worker=Worker(threads=1)) as app:
        handles = [await app.start(wf) for _ in range(4)]
        assert [await handle.result("20s") for handle in handles] == ["ran"] * 4
