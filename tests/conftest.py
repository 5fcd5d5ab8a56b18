"""One real mongod per session, and a database of its own per test."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar
from uuid import uuid4

import hypothesis  # here, because its plugin would import it at the very end, where Python 3.11 can fail to compile it
import pytest
from pymongo import AsyncMongoClient, MongoClient, WriteConcern
from pymongo.read_concern import ReadConcern

T = TypeVar("T")

# A verdict on a commit is the same each time; look for new examples with STREAMLINE_TEST_RANDOM=1.
hypothesis.settings.register_profile("steady", derandomize=True, deadline=None)
hypothesis.settings.load_profile("default" if os.environ.get("STREAMLINE_TEST_RANDOM") else "steady")

START_OR_STOP = 60.0  # seconds a server may take


class LoopThread:
    """An event loop that outlives the tests, for what lives as long as the session."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="session-loop", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(START_OR_STOP)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_OR_STOP)
        self._loop.close()


@pytest.fixture(scope="session")
def mongo_uri() -> Iterator[str]:
    """The server under test: STREAMLINE_TEST_URI, or an embedded one for this session."""
    if given := os.environ.get("STREAMLINE_TEST_URI"):
        yield given
        return
    from streamline.embedded import EmbeddedServer

    server = EmbeddedServer()
    loop = LoopThread()
    try:
        uri = loop.run(server.start())
        close_files_soon(uri)
        yield uri
    finally:
        try:
            loop.run(server.stop())
        finally:
            loop.close()


def close_files_soon(uri: str) -> None:
    """Let the server close files of dropped databases: each test has twenty, and a process may open only so many."""
    files = "file_manager=(close_idle_time=2,close_scan_interval=2,close_handle_minimum=100)"
    with MongoClient(uri) as client:
        client.admin.command("setParameter", 1, wiredTigerEngineRuntimeConfig=files)
        client.admin.command("setParameter", 1, minSnapshotHistoryWindowInSeconds=1)
        client.admin.command("setParameter", 1, syncdelay=5)


@pytest.fixture(scope="session")
def driver() -> str:
    """Which driver the application holds: `pymongo` or `motor`."""
    name = os.environ.get("STREAMLINE_TEST_DRIVER", "pymongo")
    assert name in {"pymongo", "motor"}, f"STREAMLINE_TEST_DRIVER={name}"
    return name


@pytest.fixture
def database_name(request: pytest.FixtureRequest) -> str:
    """A name no other test has; it begins with the test's own, for whoever looks into the server."""
    test = re.sub(r"\W+", "_", request.node.name)[:40]
    return f"{test}_{uuid4().hex[:16]}"


@pytest.fixture
def is_reused() -> bool:
    """Whether the test's database is another test's after it."""
    return False


@pytest.fixture
async def client(mongo_uri: str, driver: str, database_name: str, is_reused: bool) -> AsyncIterator[Any]:
    """A client of the driver under test; the test's database is dropped after it, unless another test is to have it."""
    if driver == "motor":
        from motor.motor_asyncio import AsyncIOMotorClient

        client: Any = AsyncIOMotorClient(mongo_uri, tz_aware=True)
    else:
        client = AsyncMongoClient(mongo_uri, tz_aware=True)
    try:
        yield client
        # Dropping a database takes the server a tenth of a second, dropping its collections next to nothing.
        for collection in [] if is_reused else await client[database_name].list_collection_names():
            await client[database_name].drop_collection(collection)
    finally:
        if (closing := client.close()) is not None:  # Motor closes without a coroutine
            await closing


@pytest.fixture
def database(client: Any, database_name: str) -> Any:
    """The test's database, of the driver under test; tests look at it as the engine does, by the majority."""
    concerns: Any = {"read_concern": ReadConcern("majority"), "write_concern": WriteConcern("majority")}
    return client.get_database(database_name, **concerns)
