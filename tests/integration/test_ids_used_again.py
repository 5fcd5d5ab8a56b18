"""A run id that is used again, after the run that had it was removed, is that of another run: nothing is left to it."""

from __future__ import annotations

from typing import Any

import pytest

from streamline import Context, OnCompletion, OnEvent, Workflow
from streamline.errors import IdempotencyConflict, InvalidKey
from streamline.features.joining import child_id
from tests.waiting import eventually, status_of


def family() -> tuple[Workflow[Any, Any, Any], ...]:
    kid: Workflow[Any, Any, Any] = Workflow("kid")
    parent: Workflow[Any, Any, Any] = Workflow("parent")
    after: Workflow[Any, Any, Any] = Workflow("after", triggers=[OnCompletion("parent"), OnEvent("said")])

    @kid.step
    async def echo(ctx: Context[Any]) -> Any:
        return ctx.input

    @parent.step(max_attempts=1)
    async def ask(ctx: Context[Any]) -> Any:
        await ctx.emit("said", ctx.input)
        return await ctx.start_child(kid, ctx.input, key="c")

    @after.step
    async def note(ctx: Context[Any]) -> Any:
        return ctx.input

    return parent, kid, after


async def test_children_events_and_ends_are_those_of_the_second_run(make_app: Any) -> None:
    async with make_app(*family()) as app:
        for said in ("first", "second"):
            run = await app.start("parent", said, run_id="again")
            assert await run.result("20s") == said
            await eventually(lambda said=said: _started(app, said))
            assert (await app.get("again")).output == said
            assert await run.delete() == 1
        assert len((await app.runs("kid")).items) == 2


async def _started(app: Any, said: str) -> bool:
    return [each.input async for each in app.iter_runs("after")].count(said) == 2  # by its event, and by its end


async def test_the_log_has_the_events_of_both(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("once")

    @wf.step
    async def echo(ctx: Context[Any]) -> Any:
        return ctx.input

    async with make_app(wf) as app:
        told: list[str] = []
        audit = app.subscriber("audit", "run.done")
        await audit.position()
        audit(lambda event: told.append(event.run_id))
        for lives in (1, 2):
            run = await app.start(wf, run_id="again")
            await run.result("20s")
            await eventually(lambda lives=lives: len(told) == lives)
            assert await run.delete() == 1


async def test_a_large_memo_is_not_another_runs(make_app: Any, runs: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("large")
    called: list[str] = []

    @wf.step(max_attempts=1)
    async def call(ctx: Context[Any]) -> Any:
        for i in range(130):
            await ctx.call(f"c{i}", called.append, f"{ctx.input}{i}")
        if ctx.input == "old":
            raise ValueError(ctx.input)

    async with make_app(wf) as app:
        await status_of(await app.start(wf, "old", run_id="again"), "failed")
        await runs.delete_one({"_id": "again"})  # as the server does it: the run first, its memo a while later
        await status_of(await app.start(wf, "new", run_id="again"), "done")
    assert called == [f"{name}{i}" for name in ("old", "new") for i in range(130)]


async def test_a_stranger_with_a_childs_id_is_no_child(make_app: Any, runs: Any) -> None:
    async with make_app(*family(), worker=False) as app:
        parent = await app.start("parent", "x", run_id="known")
        stored = await runs.find_one({"_id": "known"})
        await app.start("kid", "stranger", run_id=child_id(stored, "ask.0.c", ""))
        while (await app.get("known")).status != "failed":
            assert await app.tick()
        assert (await parent.get()).error.code == IdempotencyConflict.code


@pytest.mark.parametrize("run_id", ["nightly@2026-05-06T07:08:09Z", "acme/nightly@2026-05-06T07:08:09.005Z"])
async def test_ids_of_occurrences_are_for_schedules(make_app: Any, run_id: str) -> None:
    async with make_app(*family(), worker=False) as app:
        with pytest.raises(InvalidKey, match="schedules"):
            await app.start("kid", run_id=run_id)
        done = await app.start("kid", run_id=run_id.removesuffix("Z"))
        await app.tick()
        with pytest.raises(InvalidKey, match="schedules"):
            await app.fork(done.id, "echo", new_run_id=run_id)
