"""Plain `def` handlers run in threads; the event loop goes on."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from typing import Any

import pytest

from streamline import Context, Worker, Workflow
from tests.waiting import eventually

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="none")


async def test_a_plain_function_runs_in_a_thread_with_its_context(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("plain", input=int)

    @wf.step
    async def first(ctx: Context[int]) -> str:
        return "from the loop"

    @wf.step
    def second(ctx: Context[int]) -> tuple[bool, int, str]:
        return threading.current_thread() is threading.main_thread(), ctx.input, ctx.output(first)

    async with make_app(wf) as app:
        assert await app.run(wf, 5, timeout="20s") == (False, 5, "from the loop")


async def test_threads_work_side_by_side(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("meeting")
    barrier = threading.Barrier(5)

    @wf.step
    def meet(ctx: Context[Any]) -> int:
        return barrier.wait(15)

    async with make_app(wf) as app:
        handles = await asyncio.gather(*(app.start(wf) for _ in range(5)))
        assert sorted(await asyncio.gather(*(handle.result("20s") for handle in handles))) == [0, 1, 2, 3, 4]


async def test_more_runs_than_threads_all_get_their_turn(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("crowd")

    @wf.step
    def work(ctx: Context[Any]) -> Any:
        return ctx.input

    async with make_app(wf, worker=Worker(threads=2, lease="5s")) as app:
        handles = await app.start_many(wf, list(range(30)))
        assert await asyncio.gather(*(handle.result("20s") for handle in handles)) == list(range(30))


async def test_the_time_in_the_queue_for_a_thread_does_not_count_as_the_attempts(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("queue")

    @wf.step(timeout=1, max_attempts=1)
    def work(ctx: Context[Any]) -> str:
        threading.Event().wait(0.4)
        return "done"

    async with make_app(wf, worker=Worker(threads=1, lease="5s")) as app:
        handles = await asyncio.gather(*(app.start(wf) for _ in range(4)))
        assert [(await handle.wait("20s")).status for handle in handles] == ["done"] * 4


async def test_a_blocked_thread_does_not_block_the_loop(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("blocked")
    other: Workflow[Any, Any, Any] = Workflow("other")
    gate = threading.Event()

    @wf.step
    def blocked(ctx: Context[Any]) -> bool:
        return gate.wait(15)

    @other.step
    async def quick(ctx: Context[Any]) -> str:
        return "quick"

    async with make_app(wf, other) as app:
        handle = await app.start(wf)
        assert await app.run(other, timeout="20s") == "quick"
        gate.set()
        assert await handle.result("20s") is True


async def test_threads_see_context_variables(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("context")

    @wf.step
    def look(ctx: Context[Any]) -> str:
        return request_id.get()

    request_id.set("abc")
    async with make_app(wf) as app:
        assert await app.run(wf, timeout="20s") == "abc"


class Service:
    def __init__(self, name: str) -> None:
        self.name = name

    def sync(self, ctx: Context[Any]) -> str:
        return f"{self.name}-sync-{threading.current_thread() is threading.main_thread()}"

    async def later(self, ctx: Context[Any]) -> str:
        return f"{self.name}-later-{threading.current_thread() is threading.main_thread()}"


class AsyncCallable:
    async def __call__(self, ctx: Context[Any]) -> str:
        return str(threading.current_thread() is threading.main_thread())


def with_prefix(prefix: str, ctx: Context[Any]) -> str:
    return f"{prefix}-{threading.current_thread() is threading.main_thread()}"


async def with_prefix_later(prefix: str, ctx: Context[Any]) -> str:
    return f"{prefix}-{threading.current_thread() is threading.main_thread()}"


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (Service("s").sync, "s-sync-False"),
        (Service("s").later, "s-later-True"),
        (AsyncCallable(), "True"),
        (functools.partial(with_prefix, "p"), "p-False"),
        (functools.partial(with_prefix_later, "p"), "p-True"),
        (lambda ctx: str(threading.current_thread() is threading.main_thread()), "False"),
    ],
    ids=["method", "async method", "async callable", "partial", "async partial", "lambda"],
)
async def test_every_kind_of_callable_can_be_a_handler(make_app: Any, handler: Any, expected: str) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("kinds")
    wf.step("only")(handler)
    async with make_app(wf) as app:
        assert await app.run(wf, timeout="20s") == expected


async def test_a_thread_is_told_of_a_cancelled_run(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("long")
    began, told = threading.Event(), threading.Event()

    @wf.step
    def work(ctx: Context[Any]) -> None:
        began.set()
        for _ in range(3000):
            if ctx.cancelled:
                told.set()
                return
            threading.Event().wait(0.005)

    async with make_app(wf) as app:
        handle = await app.start(wf)
        await eventually(began.is_set)
        await handle.cancel()
        await eventually(told.is_set)
        assert await handle.status() == "cancelled"


async def test_the_context_can_be_read_from_a_thread_but_durable_calls_belong_to_the_loop(
    make_app: Any, stored_name: Any
) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("reader", state=dict[str, int])

    @wf.step
    def read(ctx: Context[Any, dict[str, int]]) -> list[Any]:
        ctx.state["seen"] = 1
        ctx.log.info("seen")
        return [ctx.run_id, ctx.attempt, ctx.idempotency_key(), ctx.cancelled]

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.output == [run.id, 1, stored_name(f"{run.id}/read"), False]
    assert run.state == {"seen": 1}
