"""How large values may be, and what happens to those that are larger."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from streamline import Context, Settings, Workflow
from streamline.errors import PayloadTooLarge

KIB = 1024


def echoing(**options: Any) -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow("echo", **options)

    @wf.step
    async def echo(ctx: Context[Any]) -> Any:
        if ctx.input == "large output":
            return "x" * 20 * KIB
        if ctx.input == "large state":
            ctx.state["x"] = "x" * 20 * KIB
        if ctx.input == "large save":
            ctx.state["x"] = "x" * 20 * KIB
            await ctx.save()
        if ctx.input == "large call":
            await ctx.call("key", lambda: "x" * 20 * KIB)
        return ctx.input

    return wf


async def test_an_input_over_the_workflows_limit_is_refused(make_app: Any, runs: Any) -> None:
    wf = echoing(max_payload_bytes=10 * KIB)
    async with make_app(wf) as app:
        assert await app.run(wf, "x" * 9 * KIB, timeout="20s")
        for start in (app.start(wf, "x" * 11 * KIB), app.start_many(wf, [1, "x" * 11 * KIB])):
            with pytest.raises(PayloadTooLarge) as caught:
                await start
            assert caught.value.field == "input"
            assert caught.value.http_status == 413
        with pytest.raises(PayloadTooLarge):
            await app.start(wf, 1, metadata={"m": "x" * 11 * KIB})
        assert await runs.count_documents({}) == 1


async def test_an_input_over_the_apps_limit_is_refused(make_app: Any) -> None:
    wf = echoing()
    async with make_app(wf, settings=Settings(payload_max=10 * KIB)) as app:
        with pytest.raises(PayloadTooLarge):
            await app.start(wf, b"x" * 11 * KIB)


@pytest.mark.parametrize("what", ["output", "state", "save", "call"])
async def test_what_a_step_makes_too_large_fails_it_at_once(make_app: Any, what: str) -> None:
    wf = echoing(max_payload_bytes=10 * KIB)
    async with make_app(wf) as app:
        run = await (await app.start(wf, f"large {what}")).wait("20s")
    assert run.error.code == "payload.too_large"
    assert run.error.attempt == 1
    assert "10,240" in run.error.message
    assert run.output is None


async def test_a_large_value_is_warned_of(make_app: Any, caplog: Any) -> None:
    wf = echoing()
    with caplog.at_level(logging.WARNING, "streamline"):
        async with make_app(wf, settings=Settings(payload_warn=10 * KIB)) as app:
            await app.run(wf, "small", timeout="20s")
            assert "bytes" not in caplog.text
            await app.run(wf, "x" * 11 * KIB, timeout="20s")
    assert "input is 11,2" in caplog.text
    assert "output of echo" in caplog.text


async def test_a_run_stops_growing_before_it_can_no_longer_be_written(make_app: Any, runs: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("growing")

    @wf.step
    async def grow(ctx: Context[Any]) -> None:
        for _ in range(100):
            ctx.state.setdefault("kept", {})[f"more{len(ctx.state['kept'])}"] = "x" * 30 * KIB
            await ctx.save()

    async with make_app(wf, settings=Settings(document_max=200 * KIB)) as app:
        run = await (await app.start(wf)).wait("20s")
        size = await document_size(runs, run.id)
    assert run.status == "failed"
    assert run.error.code == "payload.too_large"
    assert 150 * KIB < size < 210 * KIB


async def document_size(runs: Any, run_id: str) -> int:
    import bson

    return len(bson.encode(await runs.find_one({"_id": run_id})))


async def test_outputs_of_many_steps_stop_a_run_too(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("growing")
    for i in range(12):
        wf.step(f"s{i}")(_large)
    async with make_app(wf, settings=Settings(document_max=200 * KIB)) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.error.code == "payload.too_large"
    assert run.error.step == "s6"


async def _large(ctx: Context[Any]) -> str:
    return "x" * 30 * KIB


async def test_four_megabytes_pass_and_five_do_not(make_app: Any) -> None:
    wf = echoing()
    async with make_app(wf) as app:
        value = {"text": "é" * (3 * KIB * KIB // 2), "deep": [[[1.5] * 100] * 100]}
        assert await app.run(wf, value, timeout="20s") == value
        with pytest.raises(PayloadTooLarge):
            await app.start(wf, "x" * 5 * KIB * KIB)


async def test_a_state_that_is_saved_again_and_again_does_not_use_up_the_runs_size(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("saver")

    @wf.step
    async def save(ctx: Context[Any]) -> int:
        for i in range(30):
            ctx.state["x"] = f"{i}" + "x" * 20 * KIB
            await ctx.save()
        return 1

    async with make_app(wf, settings=Settings(document_max=200 * KIB)) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.error is None
    assert run.output == 1


async def test_calls_of_finished_steps_do_not_use_up_the_runs_size(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("caller")

    async def work(ctx: Context[Any]) -> int:
        for i in range(3):
            await ctx.call(f"k{i}", lambda: "x" * 30 * KIB)
        return 1

    for i in range(5):
        wf.step(f"s{i}")(work)
    async with make_app(wf, settings=Settings(document_max=200 * KIB)) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.error is None
