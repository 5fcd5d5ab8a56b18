"""Lists of runs without what users put into them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import bson
import pytest
from pymongo import AsyncMongoClient
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from streamline import Context, NonRetriableError, RunSummary, Streamline, Workflow
from streamline.errors import CorruptRun, InvalidQuery

MIB = 1024 * 1024
SECRET = "payload-secret"


class Answers(CommandListener):
    """Weighs what the server answers to reads."""

    def __init__(self) -> None:
        self.bytes = 0

    def started(self, event: CommandStartedEvent) -> None: ...

    def succeeded(self, event: CommandSucceededEvent) -> None:
        if event.command_name == "find":
            self.bytes += len(bson.encode(event.reply))

    def failed(self, event: CommandFailedEvent) -> None: ...


def flow() -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow("flow", state=dict)

    @wf.step
    async def first(ctx: Context[Any]) -> str:
        ctx.state["secret"] = SECRET
        ctx.log.info(SECRET)
        await ctx.call("c", _secret)
        return SECRET

    @wf.step(max_attempts=1)
    async def second(ctx: Context[Any]) -> str:
        match ctx.input:
            case {"how": "wait"}:
                await ctx.wait(SECRET)
            case {"how": "fail"}:
                raise NonRetriableError("no")
        return SECRET

    return wf


async def _secret() -> str:
    return SECRET


@asynccontextmanager
async def watched_app(uri: str, database: str, answers: Answers) -> AsyncIterator[Streamline]:
    client: AsyncMongoClient[Any] = AsyncMongoClient(uri, tz_aware=True, event_listeners=[answers])
    try:
        async with Streamline(client, database=database, workflows=[flow()], worker=False) as app:
            yield app
    finally:
        await client.drop_database(database)
        await client.close()


async def test_a_large_input_costs_nothing_to_list(mongo_uri: str, database_name: str) -> None:
    answers = Answers()
    async with watched_app(mongo_uri, database_name, answers) as app:
        handle = await app.start("flow", {"text": "x" * 3 * MIB})
        answers.bytes = 0
        (summary,) = (await app.summaries()).items
        assert summary.id == handle.id
        assert 0 < answers.bytes < 2048
        answers.bytes = 0
        await app.runs()
        assert answers.bytes > 3 * MIB


async def test_a_summary_says_what_the_run_says(make_app: Any) -> None:
    async with make_app(flow(), worker=False) as app:
        for how in ("wait", "fail", "done", "cancel"):
            await app.start("flow", {"how": how, "secret": SECRET}, tags=["a", how], metadata={"m": SECRET}, priority=3)
        await app.start("flow", {"how": "later"}, delay="1h", idempotency_key="k", run_id="later")
        await app.tick(max_runs=4)
        await app.pause("later", reason=SECRET)
        await app.start("flow", {}, run_id="gone", delay="1h")
        await app.cancel("gone", reason="enough")
        await app.retry("gone")
        runs = {run.id: run async for run in app.iter_runs()}
        summaries = [summary async for summary in app.iter_summaries(limit=2)]
        assert [summary.id for summary in summaries] == list(runs)
        for summary in summaries:
            run = runs[summary.id]
            for name in set(summary.keys()) & set(run.keys()) - {"steps"}:
                assert summary[name] == run[name], name
            assert (summary.steps, summary.ended) == (2, run.ended)
            assert summary.steps_done == sum(step.status == "done" for step in run.steps)
            assert SECRET not in repr(summary)
        by_how = {summary.tags[-1]: summary for summary in summaries if summary.tags}
        assert (by_how["wait"].step, by_how["wait"].waiting_for) == ("second", ("wait",))
        assert by_how["fail"].error is not None
        assert (by_how["fail"].step, by_how["fail"].error.code) == ("second", "step.non_retriable")
        assert {summary.id: summary.paused for summary in summaries}["later"]


async def test_filters_and_places_are_those_of_runs(make_app: Any) -> None:
    async with make_app(flow(), worker=False) as app:
        await app.start_many("flow", [{"n": i} for i in range(5)])
        page = await app.summaries("flow", match={"input.n": {"$gte": 1}}, status="draft", order="created_at", limit=3)
        after = (await app.runs("flow", match={"input.n": {"$gte": 1}}, order="created_at", limit=3)).next
        assert page.next == after is not None
        rest = await app.summaries(match={"input.n": {"$gte": 1}}, order="created_at", after=page.next)
        assert (len(page.items), len(rest.items)) == (3, 1)
        with pytest.raises(InvalidQuery) as caught:
            await app.summaries(match={"state": {}})
        assert caught.value.field == "match"


async def test_a_child_names_its_parent(make_app: Any) -> None:
    kin: Workflow[Any, Any, Any] = Workflow("kin")

    @kin.step
    async def only(ctx: Context[Any]) -> None:
        if ctx.input == "parent":
            await ctx.start_child(kin, "child")

    async with make_app(kin, worker=False) as app:
        parent = await app.start(kin, "parent")
        await app.tick()
        (child,) = (await app.summaries(match={"input": "child"})).items
        assert child.parent_id == child.root_run_id == parent.id
        assert child.created_at - (await parent.get()).created_at < timedelta(minutes=1)


@pytest.mark.parametrize(
    "damage",
    [{"$unset": {"steps": ""}}, {"$set": {"cursor": 9}}, {"$set": {"status": "weird"}}, {"$set": {"error": 5}}],
)
async def test_a_damaged_run_is_named(make_app: Any, runs: Any, damage: dict[str, Any]) -> None:
    async with make_app(flow(), worker=False) as app:
        handle = await app.start("flow", {})
        assert isinstance((await app.summaries()).items[0], RunSummary)
        await runs.update_one({"_id": handle.id}, damage)
        with pytest.raises(CorruptRun) as caught:
            await app.summaries()
        assert handle.id in str(caught.value)
