"""What is stored beside a run, its children and its spilled memo, is not left behind where the run ends meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from streamline import Context, Streamline, Worker, Workflow
from tests.waiting import eventually

QUICK = Worker(lease="1s", poll_interval="100ms", drain="2s", cancel_grace="500ms")
LARGE = "x" * 70 * 1024

Database = Any


@pytest.fixture
async def stored(mongo_uri: str, database_name: str) -> AsyncIterator[Database]:
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(mongo_uri, tz_aware=True)
    try:
        yield client[database_name]
        await client.drop_database(database_name)
    finally:
        await client.close()


class Interposed:
    """Between an engine and its driver: at the first insert of a kind, something else happens first."""

    def __init__(self, app: Streamline, collection: str, field: str) -> None:
        driver = app._open_session.runtime.store.driver
        self._send = driver.command
        self._collection = collection
        self._field = field
        self.documents: list[dict[str, Any]] = []
        self.reached, self.go_on, self.sent = asyncio.Event(), asyncio.Event(), asyncio.Event()
        driver.command = self._command  # type: ignore[method-assign]

    async def _command(self, command: Mapping[str, Any]) -> dict[str, Any]:
        if command.get("insert") == self._collection and self._field in command["documents"][0]:
            self.documents = command["documents"]
            self.reached.set()
            await self.go_on.wait()
            answer = await self._send(command)
            self.sent.set()
            return answer
        return await self._send(command)


def family(wait: bool) -> tuple[Workflow[Any, Any, Any], Workflow[Any, Any, Any]]:
    child: Workflow[Any, Any, Any] = Workflow("child")
    parent: Workflow[Any, Any, Any] = Workflow("parent")

    @child.step
    async def rest(ctx: Context) -> None:
        await ctx.sleep("1h")

    @parent.step
    async def start(ctx: Context) -> None:
        await ctx.start_child(child, wait=wait)
        await ctx.sleep("1h")

    return parent, child


@pytest.mark.parametrize("wait", [True, False])
async def test_a_child_that_is_inserted_after_its_parent_was_cancelled_is_cancelled_too(
    mongo_uri: str, database_name: str, stored: Database, wait: bool
) -> None:
    parent, child = family(wait)
    options: dict[str, Any] = {"database": database_name, "workflows": [parent, child]}
    async with (
        Streamline(mongo_uri, **options, worker=QUICK) as app,
        Streamline(mongo_uri, **options, worker=False) as operator,
    ):
        held = Interposed(app, "streamline.runs", "parent")
        handle = await app.start(parent)
        await asyncio.wait_for(held.reached.wait(), 10)
        await operator.cancel(handle.id)
        closed = {"_id": handle.id, "status": "cancelled", "owes_at": {"$exists": False}}
        await eventually(lambda: stored["streamline.runs"].find_one(closed))
        held.go_on.set()
        late = await eventually(lambda: stored["streamline.runs"].find_one({"parent.run_id": handle.id}))
        gone = {"_id": late["_id"], "status": "cancelled"}
        await eventually(lambda: stored["streamline.runs"].find_one(gone), within=8)


async def test_a_late_child_is_cancelled_though_the_process_that_inserted_it_died(
    mongo_uri: str, database_name: str, stored: Database
) -> None:
    parent, child = family(wait=True)
    options: dict[str, Any] = {"database": database_name, "workflows": [parent, child]}
    async with (
        Streamline(mongo_uri, **options, worker=QUICK) as app,
        Streamline(mongo_uri, **options, worker=False) as operator,
    ):
        held = Interposed(app, "streamline.runs", "parent")
        handle = await app.start(parent)
        await asyncio.wait_for(held.reached.wait(), 10)
        await operator.cancel(handle.id)
        closed = {"_id": handle.id, "status": "cancelled", "owes_at": {"$exists": False}}
        await eventually(lambda: stored["streamline.runs"].find_one(closed))
        # The insert takes effect; whoever sent it never hears of that.
        await stored["streamline.runs"].insert_many([dict(each) for each in held.documents])
        async with Streamline(mongo_uri, **options, worker=QUICK):
            gone = {"parent.run_id": handle.id, "status": "cancelled"}
            await eventually(lambda: stored["streamline.runs"].find_one(gone), within=8)
        held.go_on.set()


async def test_an_entry_that_is_spilled_after_its_run_was_cancelled_expires_with_it(
    mongo_uri: str, database_name: str, stored: Database
) -> None:
    flow: Workflow[Any, Any, Any] = Workflow("large", retention="1h")

    async def large() -> str:
        return LARGE

    @flow.step
    async def fill(ctx: Context) -> None:
        await ctx.call("large", large)

    options: dict[str, Any] = {"database": database_name, "workflows": [flow]}
    async with (
        Streamline(mongo_uri, **options, worker=QUICK) as app,
        Streamline(mongo_uri, **options, worker=False) as operator,
    ):
        held = Interposed(app, "streamline.memo", "entry")
        handle = await app.start(flow)
        await asyncio.wait_for(held.reached.wait(), 10)
        await operator.cancel(handle.id)
        closed = {"_id": handle.id, "expire_at": {"$exists": True}, "owes_at": {"$exists": False}}
        await eventually(lambda: stored["streamline.runs"].find_one(closed))
        held.go_on.set()
        await asyncio.wait_for(held.sent.wait(), 10)
        kept = {"run_id": handle.id, "expire_at": {"$exists": False}}

        async def is_gone() -> bool:
            return await stored["streamline.memo"].count_documents(kept) == 0

        await eventually(is_gone, within=8)
