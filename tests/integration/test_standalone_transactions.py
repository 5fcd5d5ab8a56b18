"""A server that is no replica set has no transactions: said where it is noticed first, in words."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient, MongoClient
from pymongo.errors import PyMongoError

from streamline import Context, Streamline, Worker, Workflow
from streamline.embedded import find_mongod
from streamline.errors import UnsafeDeployment
from tests.integration.sessions import begin, session_of
from tests.stress.deadline import until
from tests.stress.member import TIED, free_port

QUICK = Worker(lease="5s", poll_interval="200ms", drain="1s")


@pytest.fixture(scope="module")
def standalone_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A mongod without a replica set, which ends with this module."""
    folder: Path = tmp_path_factory.mktemp("standalone")
    port = free_port()
    command = [find_mongod(), "--dbpath", folder, "--logpath", folder / "log", "--port", port, "--bind_ip", "127.0.0.1"]
    command += ["--quiet", "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25"]
    process = subprocess.Popen([sys.executable, str(TIED), str(os.getpid()), *map(str, command)])
    uri = f"mongodb://127.0.0.1:{port}/"
    try:
        with MongoClient(uri, serverSelectionTimeoutMS=200) as client:
            until(lambda: _answers(client), within=30, what="the standalone server")
        yield uri
    finally:
        process.kill()
        process.wait(10)


def _answers(client: MongoClient[Any]) -> bool:
    try:
        return bool(client.admin.command("ping"))
    except PyMongoError:
        return False


@pytest.fixture
async def alone(standalone_uri: str, database_name: str) -> AsyncIterator[Any]:
    """The test's database on the standalone server."""
    client: AsyncMongoClient[Any] = AsyncMongoClient(standalone_uri, tz_aware=True)
    yield client[database_name]
    await client.drop_database(database_name)
    await client.close()


def paying(entered: list[str]) -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow("pay")

    @wf.step(transactional=True, max_attempts=5)
    async def pay(ctx: Context[Any]) -> None:
        entered.append(ctx.run_id)

    return wf


def plain() -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow("plain")

    @wf.step
    async def work(ctx: Context[Any]) -> Any:
        return ctx.input

    return wf


@pytest.mark.parametrize("worker", [QUICK, False], ids=["working", "asking"])
async def test_an_app_with_transactional_steps_does_not_open(alone: Any, worker: Any) -> None:
    app = Streamline(alone, workflows=[paying([])], worker=worker)
    with pytest.raises(UnsafeDeployment, match="replica set"):
        await app.__aenter__()


async def test_one_that_is_registered_later_fails_at_its_attempt(alone: Any) -> None:
    entered: list[str] = []
    wf = paying(entered)
    async with Streamline(alone, worker=QUICK) as app:
        app.register(wf)
        run = await (await app.start(wf)).wait("20s")
    assert (run.status, run.error.code, run.step("pay").attempt) == ("failed", "store.unsafe_deployment", 1)
    assert "replica set" in run.error.message
    assert entered == []


async def test_a_start_in_a_transaction_is_refused(alone: Any) -> None:
    wf = plain()
    async with Streamline(alone, workflows=[wf], worker=QUICK) as app, session_of(alone.client) as session:
        await begin(session)
        for start in (app.start(wf, 1, session=session), app.start_many(wf, [1, 2], session=session)):
            with pytest.raises(UnsafeDeployment, match="replica set"):
                await start
    assert await alone["streamline.runs"].count_documents({}) == 0


async def test_what_the_server_says_is_put_in_words_too(alone: Any) -> None:
    wf = plain()
    async with Streamline(alone, workflows=[wf], worker=False) as app, session_of(alone.client) as session:
        app._open_session.runtime.store.driver.has_transactions = True  # as if it had been one when the app was opened
        for options in ({}, {"idempotency_key": "k"}):
            await begin(session)
            with pytest.raises(UnsafeDeployment, match="replica set"):
                await app.start(wf, 1, session=session, **options)
            await session.abort_transaction()


async def test_a_session_alone_is_welcome(alone: Any) -> None:
    wf = plain()
    async with Streamline(alone, workflows=[wf], worker=QUICK) as app, session_of(alone.client) as session:
        assert await (await app.start(wf, 7, session=session)).result(timeout="20s") == 7
