"""What durable calls cost in writes: one each alone, and shared where several settle at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from streamline import Context, Streamline, Worker, Workflow
from tests.integration.test_commands_per_run import Commands
from tests.waiting import eventually

CALLS = 20
ITEMS = 100
FEW = 12  # writes of the run for all of its items; alone they would be a hundred

# Its loops look at the database once when they begin, and then not before the test is over.
STILL = Worker(concurrency=8, lease="1h", poll_interval="1h")


@pytest.fixture
def commands() -> Commands:
    return Commands()


@pytest.fixture
async def app(mongo_uri: str, database_name: str, commands: Commands) -> AsyncIterator[Streamline]:
    client: AsyncMongoClient[Any] = AsyncMongoClient(mongo_uri, tz_aware=True, event_listeners=[commands])
    try:
        async with Streamline(client, database=database_name, worker=STILL) as app:
            yield app
    finally:
        await client.drop_database(database_name)
        await client.close()


async def written(app: Streamline, handler: Any, commands: Commands) -> int:
    """Return in how many writes a run of one step is done, its insert and its end left out."""
    wf: Workflow[Any, Any, Any] = Workflow("only")
    wf.step("only", max_attempts=1)(handler)
    app.register(wf)
    await app.run(wf, timeout="20s")  # what only the first run of a process costs is over
    before = commands.documents
    await app.run(wf, timeout="20s")
    await eventually(lambda: commands.documents > before)
    return commands.documents - before - 2


async def test_a_linear_handler_writes_once_for_each_call(app: Streamline, commands: Commands) -> None:
    async def handler(ctx: Context[Any]) -> None:
        for n in range(CALLS):
            await ctx.call(f"n{n}", lambda: 1)

    assert await written(app, handler, commands) == CALLS


async def test_items_that_settle_at_once_share_a_few_writes(app: Streamline, commands: Commands) -> None:
    async def item(value: int, index: int) -> int:
        return value

    async def handler(ctx: Context[Any]) -> None:
        assert await ctx.each("items", range(ITEMS), item) == list(range(ITEMS))

    assert await written(app, handler, commands) <= FEW


async def test_calls_of_items_that_settle_at_once_share_a_few_writes(app: Streamline, commands: Commands) -> None:
    async def fetch(value: int) -> int:
        return value

    async def handler(ctx: Context[Any]) -> None:
        async def item(value: int, index: int) -> int:
            return await ctx.call("a", fetch, value) + await ctx.call("b", fetch, value)

        await ctx.each("items", range(ITEMS // 2), item)

    assert await written(app, handler, commands) <= 2 * FEW


async def test_operations_on_the_state_by_branches_share_a_few_writes(app: Streamline, commands: Commands) -> None:
    async def handler(ctx: Context[Any]) -> None:
        async def item(value: int, index: int) -> None:
            await ctx.put("", f"k{value}", value)

        await ctx.each("items", range(ITEMS // 2), item)

    assert await written(app, handler, commands) <= 2 * FEW


async def test_a_sleep_costs_one_write_that_parks_and_one_that_claims(app: Streamline, commands: Commands) -> None:
    async def handler(ctx: Context[Any]) -> None:
        await ctx.sleep(0.02)

    assert await written(app, handler, commands) == 2


async def test_an_each_whose_items_all_sleep_costs_one_write_to_park(app: Streamline, commands: Commands) -> None:
    async def handler(ctx: Context[Any]) -> None:
        async def item(value: int, index: int) -> None:
            await ctx.sleep(0.3)

        await ctx.each("items", range(ITEMS), item)

    # Opened together while others are awake, parked, claimed, ended together, the end of all.
    assert await written(app, handler, commands) <= FEW
