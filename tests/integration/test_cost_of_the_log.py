"""What the event log costs, in commands and document writes, counted in the driver. The figures may only fall."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from streamline import Context, Event, Streamline, Workflow
from tests.integration.counted_commands import Commands, counted_app
from tests.integration.test_commands_per_run import DOCUMENT_WRITES, IN_FLIGHT, STEPS, STILL
from tests.waiting import eventually

EVENTS = 2 * STEPS + 2  # per run: created, started and done for each step, done
MARK = 1  # the relay notes, once in a while, up to where the log has the run
COMMANDS_TOGETHER = 1.0  # per run, the relay's included, with many in flight
SAVES_TOGETHER = 0.25  # per run, of one subscriber

flow: Workflow[Any, Any, Any] = Workflow("counted")


async def step(ctx: Context[Any]) -> int:
    return 1


for i in range(STEPS):
    flow.step(f"s{i}")(step)


@pytest.fixture
def runs_and_log() -> Commands:
    return Commands("runs", "log")


async def relayed(database: Any, runs: int) -> None:
    """Return when the log has all events of so many runs, and that is noted."""

    async def all_there() -> bool:
        marked = await database["streamline.runs"].count_documents({"outbox_at": {"$exists": True}})
        return not marked and await database["streamline.log"].count_documents({}) == runs * EVENTS

    await eventually(all_there, every=0.2)


async def test_a_run_writes_no_more_documents_than_without_the_log(
    mongo_uri: str, database_name: str, client: Any, runs_and_log: Commands
) -> None:
    async with counted_app(mongo_uri, database_name, runs_and_log, flow, worker=STILL) as app:
        await app._open_session.runtime.outbox.switch_on()
        before = await app.database["streamline.log"].count_documents({})
        assert before == 0
        await app.run(flow, timeout="20s")
        await relayed(client[database_name], 1)
        runs_and_log.clear()
        await asyncio.gather(*(app.run(flow, timeout="60s") for _ in range(IN_FLIGHT)))
        await relayed(client[database_name], IN_FLIGHT + 1)
    writes = runs_and_log.writes

    assert writes / IN_FLIGHT <= COMMANDS_TOGETHER, runs_and_log.by_name
    # An entry per event, and a note now and then; the runs themselves are written as often as ever.
    assert runs_and_log.documents <= IN_FLIGHT * (DOCUMENT_WRITES + EVENTS + (DOCUMENT_WRITES + 1) * MARK)


async def test_a_subscriber_that_gets_along_saves_its_position_for_many_events_at_once(
    mongo_uri: str, database_name: str
) -> None:
    commands, heard = Commands("subscribers"), 0
    client: AsyncMongoClient[Any] = AsyncMongoClient(mongo_uri, tz_aware=True, event_listeners=[commands])
    async with client, Streamline(client, database=database_name, workflows=[flow], worker=STILL) as app:

        @app.subscriber("audit")
        async def audit(event: Event) -> None:
            nonlocal heard
            heard += 1

        await app.subscriber("audit").position()
        commands.clear()
        await asyncio.gather(*(app.run(flow, timeout="60s") for _ in range(IN_FLIGHT)))
        await eventually(lambda: heard == IN_FLIGHT * EVENTS)

        assert commands.writes / IN_FLIGHT <= SAVES_TOGETHER, commands.by_name
