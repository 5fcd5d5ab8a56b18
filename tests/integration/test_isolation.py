"""What one run or handler does wrong is its own affair: values are not shared, and neither is the fate of a command."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamline import Context, Workflow
from streamline.errors import InvalidKey, RunFailed


@pytest.mark.parametrize("state", [None, dict], ids=["untyped", "typed"])
async def test_a_state_that_is_changed_in_place_is_stored_in_every_step(make_app: Any, runs: Any, state: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("counting", state=state)

    @wf.step
    async def first(ctx: Context[Any]) -> None:
        ctx.state = {"seen": [1]}

    @wf.step
    async def second(ctx: Context[Any]) -> None:
        ctx.state["seen"].append(2)

    @wf.step
    async def third(ctx: Context[Any]) -> Any:
        return ctx.state["seen"]

    async with make_app(wf) as app:
        handle = await app.start(wf)
        assert await handle.result("20s") == [1, 2]
        assert (await runs.find_one({"_id": handle.id}))["state"] == {"seen": [1, 2]}


async def test_what_a_handler_does_to_its_values_stays_with_it(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("meddling")

    @wf.step
    async def first(ctx: Context[Any]) -> Any:
        ctx.input["n"].append("mine")
        return {"list": [1]}

    @wf.step
    async def second(ctx: Context[Any]) -> Any:
        ctx.output(first)["list"].append("mine")
        return [ctx.input["n"], ctx.output(first)["list"]]

    async with make_app(wf) as app:
        assert await app.run(wf, {"n": [0]}, timeout="20s") == [[0], [1]]


async def test_a_run_that_no_database_can_hold_harms_no_other(make_app: Any) -> None:
    """Forty runs share commands with runs whose writes cannot be sent."""
    sound: Workflow[Any, Any, Any] = Workflow("sound")
    heavy: Workflow[Any, Any, Any] = Workflow("heavy", max_payload_bytes=12_000_000)

    @sound.step
    async def one(ctx: Context[Any]) -> int:
        return 1

    @sound.step
    async def two(ctx: Context[Any]) -> int:
        return ctx.attempt

    @heavy.step
    async def swell(ctx: Context[Any]) -> str:
        return "x" * 11_500_000

    @heavy.step
    async def burst(ctx: Context[Any]) -> str:
        return "x" * 11_500_000

    async with make_app(sound, heavy) as app:
        bad = [await app.start(heavy) for _ in range(2)]
        good = await asyncio.gather(*(app.run(sound, timeout="30s") for _ in range(40)))
        assert good == [1] * 40
        for handle in bad:
            with pytest.raises(RunFailed) as caught:
                await handle.result("30s")
            assert caught.value.error["code"] == "payload.too_large"


@pytest.mark.parametrize("words", ["x" * 5_000, "\ud800", 5], ids=["too long", "surrogate", "number"])
@pytest.mark.parametrize("verb", ["cancel", "pause"])
async def test_what_operators_say_is_checked(make_app: Any, verb: str, words: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("waiting")

    @wf.step
    async def only(ctx: Context[Any]) -> None: ...

    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        for field in ("reason", "by"):
            with pytest.raises(InvalidKey) as caught:
                await getattr(app, verb)(handle.id, **{field: words})
            assert caught.value.field == field
        assert (await handle.get()).rev == 1
