"""What a run costs in commands and document writes, counted in the driver. The figures may only fall."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from streamline import Context, Streamline, Worker, Workflow
from tests.waiting import eventually

STEPS = 3
DOCUMENT_WRITES = STEPS + 1  # per run: its insert, and one update per step
COMMANDS_ALONE = STEPS + 1
READS = 0
IN_FLIGHT = 64
COMMANDS_TOGETHER = 0.5  # per run, with that many in flight

WRITES = {"insert", "update", "delete", "findAndModify"}
READINGS = {"find", "aggregate", "getMore", "count", "distinct"}

# Its loops look at the database once when they begin, and then not before the test is over.
STILL = Worker(concurrency=2 * IN_FLIGHT, lease="1h", poll_interval="1h")

flow: Workflow[Any, Any, Any] = Workflow("counted")


@flow.step
async def first(ctx: Context[Any]) -> int:
    return 1


@flow.step
async def second(ctx: Context[Any]) -> int:
    return 2


@flow.step
async def third(ctx: Context[Any]) -> int:
    return 3


class Commands(CommandListener):
    """Counts what concerns the runs."""

    def __init__(self) -> None:
        self.by_name: Counter[str] = Counter()
        self.documents = 0
        self._ours: set[int] = set()

    def started(self, event: CommandStartedEvent) -> None:
        target = event.command.get("collection" if event.command_name == "getMore" else event.command_name)
        if isinstance(target, str) and target.endswith(".runs"):
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


@pytest.fixture
def commands() -> Commands:
    return Commands()


@pytest.fixture
async def app(mongo_uri: str, database_name: str, commands: Commands) -> AsyncIterator[Streamline]:
    """An app whose worker has looked around and found nothing to do."""
    client: AsyncMongoClient[Any] = AsyncMongoClient(mongo_uri, tz_aware=True, event_listeners=[commands])
    try:
        async with Streamline(client, database=database_name, workflows=[flow], worker=STILL) as app:
            await app.run(flow, timeout="20s")
            await eventually(lambda: _first_looks_are_over(commands))
            commands.clear()
            yield app
    finally:
        await client.drop_database(database_name)
        await client.close()


async def _first_looks_are_over(commands: Commands) -> bool:
    """The loops of a worker that has just begun look for due runs, the next due one, and expired ones: three reads."""
    seen = commands.reads
    await asyncio.sleep(0.2)
    return seen >= STEPS and commands.reads == seen


async def test_a_run_alone_takes_one_command_per_transition_and_no_read(app: Streamline, commands: Commands) -> None:
    assert await app.run(flow, timeout="20s") == 3

    assert commands.writes <= COMMANDS_ALONE, commands.by_name
    assert commands.reads <= READS, commands.by_name
    assert commands.documents <= DOCUMENT_WRITES


async def test_runs_in_flight_together_share_commands(app: Streamline, commands: Commands) -> None:
    outputs = await asyncio.gather(*(app.run(flow, timeout="60s") for _ in range(IN_FLIGHT)))

    assert outputs == [3] * IN_FLIGHT
    assert commands.writes / IN_FLIGHT <= COMMANDS_TOGETHER, commands.by_name
    assert commands.reads <= READS, commands.by_name
    assert commands.documents <= DOCUMENT_WRITES * IN_FLIGHT
