"""What a run costs in commands and document writes, counted in the driver. The figures may only fall."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from streamline import Context, Streamline, Worker, Workflow
from tests.integration.counted_commands import Commands, counted_app
from tests.waiting import eventually

STEPS = 3
DOCUMENT_WRITES = STEPS + 1  # per run: its insert, and one update per step
COMMANDS_ALONE = STEPS + 1
READS = 0
IN_FLIGHT = 64
COMMANDS_TOGETHER = 0.5  # per run, with that many in flight

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


@pytest.fixture
def commands() -> Commands:
    return Commands()


@pytest.fixture
async def app(mongo_uri: str, database_name: str, commands: Commands) -> AsyncIterator[Streamline]:
    """An app whose worker has looked around, found nothing to do, and done one run."""
    async with counted_app(mongo_uri, database_name, commands, flow, worker=STILL) as app:
        await app.run(flow, timeout="20s")
        commands.clear()
        yield app


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


async def test_an_app_with_nothing_to_do_asks_for_nothing(mongo_uri: str, database_name: str) -> None:
    """Nor does one whose runs all sleep: it knows when the next is due, and hears of what is new."""
    commands = Commands("runs", "memo", "schedules", "inbox", "subscribers")
    async with counted_app(mongo_uri, database_name, commands, flow, worker=STILL) as app:
        await app.start(flow, delay="1h")
        await app.run(flow, timeout="20s")
        await eventually(lambda: _is_quiet(commands))
        assert await app.run(flow, timeout="20s") == 3


async def _is_quiet(commands: Commands) -> bool:
    commands.clear()
    await asyncio.sleep(1)
    return not commands.by_name
