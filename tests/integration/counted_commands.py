"""Counting what an app sends to the database, in the driver."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from streamline import Streamline, Worker, Workflow
from tests.waiting import eventually

WRITES = {"insert", "update", "delete", "findAndModify"}
READINGS = {"find", "aggregate", "getMore", "count", "distinct"}
FIRST_LOOKS = 3  # of a worker's loops: for due runs, the next due one, and expired ones


class Commands(CommandListener):
    """Counts what concerns the runs, and the memos and events that are kept beside them."""

    def __init__(self) -> None:
        self.by_name: Counter[str] = Counter()
        self.documents = 0
        self._ours: set[int] = set()

    def started(self, event: CommandStartedEvent) -> None:
        target = event.command.get("collection" if event.command_name == "getMore" else event.command_name)
        if isinstance(target, str) and target.endswith((".runs", ".memo", ".inbox")):
            self.by_name[event.command_name] += 1
            self._ours.add(event.request_id)

    def succeeded(self, event: CommandSucceededEvent) -> None:
        if event.request_id in self._ours and event.command_name in WRITES:
            self.documents += event.reply["n"]

    def failed(self, event: CommandFailedEvent) -> None:
        raise AssertionError(f"{event.command_name} failed: {event.failure}")

    def clear(self) -> None:
        self.by_name.clear()
        self.documents = 0

    @property
    def writes(self) -> int:
        return sum(self.by_name[name] for name in WRITES)

    @property
    def reads(self) -> int:
        return sum(self.by_name[name] for name in READINGS)


@asynccontextmanager
async def counted_app(
    uri: str, database: str, commands: Commands, *workflows: Workflow[Any, Any, Any], worker: Worker
) -> AsyncIterator[Streamline]:
    """Lend an app whose worker has looked around and found nothing to do."""
    client: AsyncMongoClient[Any] = AsyncMongoClient(uri, tz_aware=True, event_listeners=[commands])
    try:
        async with Streamline(client, database=database, workflows=workflows, worker=worker) as app:
            await eventually(lambda: _first_looks_are_over(commands))
            commands.clear()
            yield app
    finally:
        await client.drop_database(database)
        await client.close()


async def _first_looks_are_over(commands: Commands) -> bool:
    seen = commands.reads
    await asyncio.sleep(0.2)
    return seen >= FIRST_LOOKS and commands.reads == seen
