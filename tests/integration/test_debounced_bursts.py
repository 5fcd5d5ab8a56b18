"""Starts of one process that meet at a draft: the latest is written for all, and each is told what concerns it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from streamline import Context, Debounce, Streamline, Worker, Workflow
from streamline.errors import IdempotencyConflict
from tests.integration.counted_commands import Commands, counted_app


def echo(**options: Any) -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow("echo", debounce=Debounce("1h", **options))

    @wf.step
    async def only(ctx: Context[Any]) -> Any:
        return ctx.input

    return wf


async def test_a_burst_shares_writes_and_the_last_start_has_its_way(mongo_uri: str, database_name: str) -> None:
    commands = Commands()
    async with counted_app(mongo_uri, database_name, commands, wf := echo(), worker=Worker(poll_interval="1h")) as app:
        commands.clear()
        handles = await asyncio.gather(*(app.start(wf, i) for i in range(50)))
        sent = dict(commands.by_name)
        assert sum(sent.values()) <= 10, sent
        assert len({handle.id for handle in handles}) == 1
        assert sum(handle.created for handle in handles) == 1
        assert (await handles[0].get()).input == 49


async def test_each_key_has_the_last_of_its_own_starts(make_app: Any) -> None:
    wf = echo(key=lambda value: value % 3)
    async with make_app(wf) as app:
        handles = await asyncio.gather(*(app.start(wf, i) for i in range(30)))
        inputs = {handle.id: (await handle.get()).input for handle in handles}
        assert sorted(inputs.values()) == [27, 28, 29]


@pytest.mark.parametrize("bad", range(6))
async def test_a_start_that_is_refused_is_refused_alone(make_app: Any, runs: Any, bad: int) -> None:
    """Whichever of them it is: also the one that is written for the others."""
    wf = echo()
    other: Workflow[Any, Any, Any] = Workflow("other")

    @other.step
    async def only(ctx: Context[Any]) -> None: ...

    async with make_app(wf, other) as app:
        await app.start(other, run_id="taken", delay="1h")

        async def start(app: Streamline, i: int) -> Any:
            return await app.start(wf, i, **({"run_id": "taken"} if i == bad else {}))

        answers = await asyncio.gather(*(start(app, i) for i in range(6)), return_exceptions=True)
        refused = [i for i, answer in enumerate(answers) if isinstance(answer, BaseException)]
        assert refused in ([], [bad])  # where a draft was there, no run of its id was to be made
        assert all(isinstance(answers[i], IdempotencyConflict) for i in refused)
        assert await runs.count_documents({"workflow": "echo"}) == 1
        assert sum(getattr(answer, "created", False) for answer in answers) == 1


async def test_who_gives_up_takes_nothing_from_the_others(make_app: Any, runs: Any) -> None:
    wf = echo()
    async with make_app(wf) as app:
        starts = [asyncio.ensure_future(app.start(wf, i)) for i in range(6)]
        await asyncio.sleep(0)
        starts[0].cancel()
        starts[3].cancel()
        answers = await asyncio.gather(*starts, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError)
        told = {answer.id for answer in answers if not isinstance(answer, BaseException)}
        assert told == {run["_id"] async for run in runs.find()}
        assert (await runs.find_one())["input"] == 5


async def test_starts_that_keep_coming_do_not_keep_a_draft_from_beginning(make_app: Any, runs: Any) -> None:
    """Nobody works: the draft has waited for as long as it may, and what comes now makes another one."""
    wf = echo(max_wait="1h")
    async with make_app(wf, worker=False) as app:
        first = await app.start(wf, "first")
        assert not (await app.start(wf, "second")).created
        await runs.update_one({"_id": first.id}, {"$set": {"fire_by": datetime.now(UTC), "due_at": datetime.now(UTC)}})
        later = [await app.start(wf, i) for i in range(3)]
        assert [handle.created for handle in later] == [True, False, False]
        assert first.id not in {handle.id for handle in later}
        assert (await first.get()).input == "second"
    async with make_app(wf) as app:
        assert await app.handle(first.id).result("20s") == "second"
        assert (await app.handle(later[0].id).get()).status == "draft"
