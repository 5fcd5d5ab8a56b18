"""Slow questions are looked into: a scan is reported with the index that is missing, and nothing else is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from streamline import Settings, Streamline, Tenancy
from streamline.errors import InvalidPolicy
from tests.conformance.documents import NOW, draft, ended
from tests.waiting import eventually

COUNT = 3_000
SECRET = "c77"


class Explained(CommandListener):
    """Counts what the server is asked to explain, and how much of it at once."""

    def __init__(self) -> None:
        self.answered = self.running = self.most = 0

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name == "explain":
            self.running += 1
            self.most = max(self.most, self.running)

    def succeeded(self, event: CommandSucceededEvent) -> None:
        if event.command_name == "explain":
            self.running -= 1
            self.answered += 1

    def failed(self, event: CommandFailedEvent) -> None:
        if event.command_name == "explain":
            self.running -= 1


@pytest.fixture
def explained() -> Explained:
    return Explained()


@pytest.fixture
async def watched(mongo_uri: str, database_name: str, explained: Explained) -> AsyncIterator[AsyncMongoClient[Any]]:
    """A client over some thousand runs of one tenant, of which few are of one customer."""
    client: AsyncMongoClient[Any] = AsyncMongoClient(mongo_uri, tz_aware=True, event_listeners=[explained])
    made = [ended(f"r{i:04}", tenant_id="acme") for i in range(COUNT)]
    for i, run in enumerate(made):
        run |= {"input": {"customer": f"c{i % 1000}"}, "created_at": NOW - timedelta(seconds=i)}
    async with Streamline(client, database=database_name, worker=False):
        pass  # makes the indexes
    await client[database_name]["streamline.runs"].insert_many([*made, draft("new", tenant_id="acme")])
    yield client
    await client.drop_database(database_name)
    await client.close()


def opened(client: Any, database: str, slow_query: str | None = "0s") -> Streamline:
    return Streamline(
        client, database=database, worker=False, tenancy=Tenancy(), settings=Settings(slow_query=slow_query)
    )


async def test_a_scan_is_reported_with_the_index_that_is_missing(
    watched: Any, database_name: str, explained: Explained, caplog: pytest.LogCaptureFixture
) -> None:
    said: list[Any] = []
    async with opened(watched, database_name) as app:
        app.all_tenants().on("query.*", said.append)
        app.tenant("zoo").on("query.*", lambda _: said.append("told a stranger"))
        acme = app.tenant("acme")
        page = await acme.runs(match={"input.customer": SECRET})
        assert len(page.items) == 3
        await eventually(lambda: said)
        (record,) = [record for record in caplog.records if record.name == "streamline.queries"]
        text = record.getMessage()
        assert record.levelno == logging.WARNING
        assert "find_page: tenant_id $eq, input.customer $eq: looked at 3001 runs to find 3" in text
        assert "streamline.runs: tenant_id: 1, input.customer: 1, created_at: -1, _id: -1" in text
        (event,) = said
        assert (event.type, event.tenant_id) == ("query.scanned", "acme")
        assert (event.data["examined"], event.data["found"]) == (COUNT + 1, 3)
        assert event.data["shape"] in text
        assert SECRET not in f"{text}{event}"
        # The same question about another customer is not looked into again so soon, another question is.
        await acme.runs(match={"input.customer": "c78"})
        await acme.count_runs(match={"input.customer": "c78"})
        await eventually(lambda: explained.answered == 2)
        await eventually(lambda: len(said) == 2)
        assert said[1].data["shape"].startswith("count_runs: ")
        assert said[1].data["found"] == 3


async def test_with_an_index_of_the_users_own_nothing_is_said(
    watched: Any, database_name: str, explained: Explained, caplog: pytest.LogCaptureFixture
) -> None:
    keys = [("tenant_id", 1), ("input.customer", 1), ("created_at", -1), ("_id", -1)]
    await watched[database_name]["streamline.runs"].create_index(keys)
    async with opened(watched, database_name) as app:
        acme = app.tenant("acme")
        for i, ask in enumerate((acme.runs, acme.summaries, acme.count_runs)):
            await ask(match={"input.customer": SECRET})
            await eventually(lambda i=i: explained.answered == min(i + 1, 2) or i == 1)
        assert explained.answered == 2
    assert [record for record in caplog.records if record.name == "streamline.queries"] == []


@pytest.mark.parametrize(
    "asked", [{}, {"status": "failed"}, {"workflow": "flow", "limit": 500}, {"created_after": NOW}], ids=repr
)
async def test_what_an_index_serves_is_no_scan(
    watched: Any, database_name: str, explained: Explained, caplog: pytest.LogCaptureFixture, asked: dict[str, Any]
) -> None:
    async with opened(watched, database_name) as app:
        await app.tenant("acme").runs(**asked)
        await eventually(lambda: explained.answered == 1)
        await app.all_tenants().runs(**asked)
        await eventually(lambda: explained.answered == 2)
    assert [record for record in caplog.records if record.name == "streamline.queries"] == []


async def test_a_count_of_everything_is_no_scan(
    watched: Any, database_name: str, explained: Explained, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(watched, database_name) as app:
        assert await app.tenant("acme").count_runs() == {"done": COUNT, "draft": 1}
        await eventually(lambda: explained.answered == 1)
    assert [record for record in caplog.records if record.name == "streamline.queries"] == []


async def test_one_question_is_looked_into_at_a_time(watched: Any, database_name: str, explained: Explained) -> None:
    async with opened(watched, database_name) as app:
        acme = app.tenant("acme")
        await asyncio.gather(*(acme.runs(match={f"input.f{i}": 1}) for i in range(20)))
        await eventually(lambda: explained.answered >= 1 and explained.running == 0)
    assert explained.most == 1


@pytest.mark.parametrize("slow_query", ["1h", None])
async def test_what_is_quick_enough_is_not_looked_into(
    watched: Any, database_name: str, explained: Explained, slow_query: str | None
) -> None:
    async with opened(watched, database_name, slow_query) as app:
        await app.tenant("acme").runs(match={"input.customer": SECRET})
        await app.tenant("acme").count_runs(match={"input.customer": SECRET})
    assert explained.answered == explained.most == 0


@pytest.mark.parametrize("wrong", [-1, "soon", True, float("nan")], ids=repr)
def test_a_limit_that_is_no_duration_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        Settings(slow_query=wrong)
    assert caught.value.field == "slow_query"
