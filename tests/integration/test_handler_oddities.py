"""Handlers that raise or return strange things: the run ends cleanly, and the scheduler survives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from streamline import Context, RetryPolicy, Workflow
from streamline.errors import InvalidInput

TWICE = RetryPolicy(max_attempts=2, delay=0)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Suicidal(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class Numeric(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]  # noqa: PLE0307 - that is the oddity


class Strange(BaseException):
    pass


def raising(error: BaseException | type[BaseException], calls: list[int], *, threaded: bool) -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow("raising")

    if threaded:

        @wf.step(id="odd", retry=TWICE)
        def odd(ctx: Context[Any]) -> None:
            calls.append(ctx.attempt)
            raise error

    else:

        @wf.step(id="odd", retry=TWICE)
        async def odd_too(ctx: Context[Any]) -> None:
            calls.append(ctx.attempt)
            raise error

    return wf


async def still_works(app: Any) -> bool:
    """Whether the app's scheduler goes on: a run that was queued, not claimed at birth, is driven."""
    handles = await app.start_many("healthy", [1])
    return bool(await handles[0].result("20s") == 1)


def healthy() -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow("healthy")

    @wf.step
    async def echo(ctx: Context[Any]) -> Any:
        return ctx.input

    return wf


@pytest.mark.parametrize("threaded", [False, True], ids=["async", "thread"])
@pytest.mark.parametrize(
    "error",
    [
        SystemExit(1),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError(),
        StopIteration(4),
        StopAsyncIteration(),
        Strange("x"),
        BaseExceptionGroup("several", [KeyboardInterrupt(), ValueError("x")]),
        ExceptionGroup("several", [ValueError("x")]),
        TimeoutError(),
        Exception,
        Exception(),
        Exception(None),
        Exception({"a": 1}),
        Unprintable(),
        Suicidal(),
        Numeric(),
        MemoryError(),
        RecursionError(),
    ],
    ids=lambda error: error.__name__ if isinstance(error, type) else type(error).__name__,
)
async def test_whatever_is_raised_fails_the_run_after_its_attempts(
    make_app: Any, error: BaseException, *, threaded: bool
) -> None:
    calls: list[int] = []
    async with make_app(raising(error, calls, threaded=threaded), healthy()) as app:
        run = await (await app.start("raising")).wait("20s")
        assert run.status == "failed"
        assert calls == [1, 2]
        assert run.error.step == "odd"
        assert run.error.attempt == 2
        assert isinstance(run.error.message, str)
        assert await still_works(app)


async def test_a_very_long_message_is_cut(make_app: Any) -> None:
    async with make_app(raising(ValueError("x" * 10_000_000), [], threaded=False)) as app:
        run = await (await app.start("raising")).wait("20s")
    assert run.error.message == "x" * 4096


async def test_credentials_are_not_stored(make_app: Any, runs: Any) -> None:
    error = ConnectionError("cannot reach amqp://me:hunter2@host/v and mongodb+srv://u:hunter2@h")
    async with make_app(raising(error, [], threaded=False)) as app:
        run = await (await app.start("raising")).wait("20s")
        assert "hunter2" not in str(await runs.find_one({"_id": run.id}))
    assert run.error.message == "cannot reach amqp://host/v and mongodb+srv://h"


async def unfinished() -> int:
    return 1


def numbers() -> Iterator[int]:
    yield 1


async def async_numbers() -> AsyncIterator[int]:
    yield 1


class Opaque:
    pass


@pytest.mark.parametrize("threaded", [False, True], ids=["async", "thread"])
@pytest.mark.parametrize("nested", [False, True], ids=["plain", "nested"])
@pytest.mark.parametrize("make", [unfinished, numbers, async_numbers, Opaque], ids=lambda make: make.__name__)
async def test_what_cannot_be_stored_fails_the_step_at_once(
    make_app: Any, make: Callable[[], Any], *, threaded: bool, nested: bool
) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("odd")
    calls = []

    def returned() -> Any:
        calls.append(1)
        return {"items": [make()]} if nested else make()

    if threaded:

        @wf.step(id="odd")
        def in_thread(ctx: Context[Any]) -> Any:
            return returned()

    else:

        @wf.step(id="odd")
        async def in_loop(ctx: Context[Any]) -> Any:
            return returned()

    async with make_app(wf, healthy()) as app:
        run = await (await app.start("odd")).wait("20s")
        assert run.status == "failed"
        assert run.error.code == "payload.serialization"
        assert ("await" in run.error.message) == (make is not Opaque)
        assert calls == [1]
        assert await still_works(app)


async def test_an_output_that_does_not_fit_its_annotation_fails_the_step_at_once(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("liar")
    calls = []

    @wf.step
    async def lie(ctx: Context[Any]) -> int:
        calls.append(1)
        return "five"  # type: ignore[return-value]

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.error.code == "payload.serialization"
    assert "output of lie" in run.error.message
    assert calls == [1]


async def test_an_output_that_does_not_fit_the_workflows_output_fails_the_step(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("liar", output=int)

    @wf.step
    async def lie(ctx: Context[Any]) -> Any:
        return "five"

    async with make_app(wf) as app:
        handle = await app.start(wf)
        run = await handle.wait("20s")
    assert run.status == "failed"
    assert run.error.code == "payload.serialization"


class Explosive(BaseModel):
    a: int

    @field_validator("a")
    @classmethod
    def explode(cls, a: int) -> int:
        raise KeyError("inside the validator")


async def test_an_output_whose_validator_breaks_fails_the_step(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("explosive")

    @wf.step(max_attempts=1)
    async def light(ctx: Context[Any]) -> Explosive:
        return {"a": 1}  # type: ignore[return-value]

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("5s")
    assert run.status == "failed"
    assert run.error.step == "light"


async def test_an_input_whose_validator_breaks_starts_nothing(make_app: Any, runs: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("explosive", input=Explosive)

    @wf.step
    async def never(ctx: Context[Any]) -> None: ...

    async with make_app(wf) as app:
        with pytest.raises(InvalidInput):
            await app.start(wf, {"a": 1})
        assert await runs.count_documents({}) == 0


async def test_a_stored_input_that_no_longer_fits_fails_the_run(make_app: Any, runs: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("changed", input=int)

    @wf.step
    async def look(ctx: Context[int]) -> int:
        return ctx.input

    async with make_app(wf, healthy(), worker=False) as app:
        handle = await app.start(wf, 5)
        await runs.update_one({"_id": handle.id}, {"$set": {"input": "five"}})
        await app.tick()
        document = await runs.find_one({"_id": handle.id})
    assert document["status"] == "failed"
    assert document["error"]["code"] == "run.corrupt"


async def test_a_handler_that_blocks_the_loop_for_a_moment_harms_nobody(make_app: Any) -> None:
    import time

    wf: Workflow[Any, Any, Any] = Workflow("blocking")

    @wf.step
    async def block(ctx: Context[Any]) -> str:
        time.sleep(0.3)
        return "done"

    async with make_app(wf) as app:
        assert await app.run(wf, timeout="20s") == "done"
