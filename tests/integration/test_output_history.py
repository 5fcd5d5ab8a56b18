"""What a step brought before it was done again: kept as far as the step says, and pinned where it was better."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from streamline import Context, Workflow
from streamline.errors import IllegalTransition, InvalidPolicy, StepNotFound, StepOutputMissing
from tests.waiting import status_of


class Draft(BaseModel):
    text: str


class Writing:
    """A step whose output is another each time, and one that looks back at them."""

    def __init__(self, keep: int = 0, **options: Any) -> None:
        self.count = 0
        self.seen: list[Any] = []
        self.waits = False
        self.pins: int | None = None
        self.workflow: Workflow[Any, Any, Any] = Workflow("writing", **options)

        @self.workflow.step(output_history=keep)
        async def write(ctx: Context[Any]) -> Draft:
            self.count += 1
            return Draft(text=f"draft {self.count}")

        @self.workflow.step
        async def read(ctx: Context[Any]) -> str:
            if self.waits:
                await ctx.wait("look at it")
            self.seen = [(each.version, each.output) for each in ctx.output_history(write)]
            if self.pins is not None:
                await ctx.pin_output(write, self.pins)
                await ctx.sleep(0.01)
            return ctx.output(write).text


async def written(app: Any, writing: Writing, times: int) -> Any:
    handle = await app.start(writing.workflow)
    await handle.result("20s")
    for _ in range(times - 1):
        await handle.rewind("write")
        await handle.result("20s")
    return handle


async def test_earlier_outputs_are_kept_in_their_type_the_oldest_first(make_app: Any) -> None:
    writing = Writing(keep=5)
    async with make_app(writing.workflow) as app:
        handle = await written(app, writing, 3)
        assert await handle.result() == "draft 3"
    assert writing.seen == [(1, Draft(text="draft 1")), (2, Draft(text="draft 2"))]


async def test_only_as_many_are_kept_as_the_step_says(make_app: Any, runs: Any) -> None:
    writing = Writing(keep=2)
    async with make_app(writing.workflow) as app:
        handle = await written(app, writing, 5)
        stored = await runs.find_one({"_id": handle.id})
    assert writing.seen == [(3, Draft(text="draft 3")), (4, Draft(text="draft 4"))]
    assert len(stored["steps"][0]["history"]) == 2


async def test_nothing_is_kept_by_default(make_app: Any, runs: Any) -> None:
    writing = Writing()
    async with make_app(writing.workflow) as app:
        handle = await written(app, writing, 3)
        stored = await runs.find_one({"_id": handle.id})
    assert writing.seen == []
    assert "history" not in stored["steps"][0]


async def test_rewinding_to_a_later_step_makes_no_new_version(make_app: Any) -> None:
    writing = Writing(keep=5)
    async with make_app(writing.workflow) as app:
        handle = await written(app, writing, 2)
        for _ in range(3):
            await handle.rewind("read")
            assert await handle.result("20s") == "draft 2"
    assert writing.seen == [(1, Draft(text="draft 1"))]


async def test_a_jump_back_keeps_outputs_too(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("w")
    turns: list[int] = []

    @wf.step(output_history=3)
    async def guess(ctx: Context[Any]) -> int:
        turns.append(len(turns))
        return turns[-1]

    @wf.step
    async def judge(ctx: Context[Any]) -> list[int]:
        if len(turns) < 3:
            ctx.goto(guess)
        return [*(each.output for each in ctx.output_history(guess)), ctx.output(guess)]

    async with make_app(wf) as app:
        assert await app.run(wf, timeout="20s") == [0, 1, 2]


async def test_a_handler_can_pin_an_earlier_output_once(make_app: Any, runs: Any) -> None:
    writing = Writing(keep=5)
    async with make_app(writing.workflow) as app:
        handle = await written(app, writing, 2)
        writing.pins = 1
        await handle.rewind("read")
        assert await handle.result("20s") == "draft 1"
        stored = await runs.find_one({"_id": handle.id})
    assert stored["steps"][0]["output"] == {"text": "draft 1"}
    versions = [each["version"] for each in stored["steps"][0]["history"]]
    assert len(versions) == len(set(versions))


async def test_an_operator_can_pin_and_nothing_is_kept_twice(make_app: Any, runs: Any) -> None:
    writing = Writing(keep=5)
    async with make_app(writing.workflow) as app:
        handle = await written(app, writing, 3)
        for version in (1, 1, 3, 1, 2):
            await app.pin_output(handle.id, "write", version)
            run = await handle.get()
            assert run.step("write").output == Draft(text=f"draft {version}")
        await handle.rewind("read")
        assert await handle.result("20s") == "draft 2"
        stored = await runs.find_one({"_id": handle.id})
        await handle.rewind("write")
        assert await handle.result("20s") == "draft 4"
    versions = [each["version"] for each in stored["steps"][0]["history"]]
    assert sorted(set(versions)) == sorted(versions)
    assert [each[0] for each in writing.seen] == [1, 2, 3]


async def test_a_version_or_step_that_is_not_there_is_refused(make_app: Any, runs: Any) -> None:
    writing = Writing(keep=5)
    async with make_app(writing.workflow) as app:
        handle = await written(app, writing, 2)
        before = await runs.find_one({"_id": handle.id})
        with pytest.raises(StepOutputMissing):
            await app.pin_output(handle.id, "write", 7)
        with pytest.raises(StepNotFound):
            await app.pin_output(handle.id, "nothing", 1)
        assert await runs.find_one({"_id": handle.id}) == before


async def test_a_cancelled_runs_outputs_stay_as_they_are(make_app: Any) -> None:
    writing = Writing(keep=5)
    async with make_app(writing.workflow) as app:
        handle = await written(app, writing, 2)
        writing.waits = True
        await handle.rewind("read")
        await status_of(handle, "waiting")
        await handle.cancel()
        with pytest.raises(IllegalTransition):
            await app.pin_output(handle.id, "write", 1)
        assert (await handle.get()).step("write").output == Draft(text="draft 2")


@pytest.mark.parametrize("keep", [-1, 101, True, 1.5, "2", None])
def test_a_history_of_another_length_is_refused(keep: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("w")
    with pytest.raises(InvalidPolicy) as caught:

        @wf.step(output_history=keep)
        async def work(ctx: Context[Any]) -> None: ...

    assert caught.value.field == "output_history"
