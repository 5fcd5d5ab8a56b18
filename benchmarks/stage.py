"""Where it all takes place: a server, a client of its own for raw work, and a fresh database per workload."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pymongo import AsyncMongoClient

from benchmarks.raw import Raw
from benchmarks.sizes import Sizes
from streamline import Streamline, Worker, Workflow
from streamline.embedded import EmbeddedServer


@dataclass(frozen=True, slots=True)
class Stage:
    """What a workload works on.

    Args:
        uri: The server.
        client: Of the same driver as the engine's, for raw work and for looking on.
        sizes: How much to do per round.
        rounds: How often; medians count.
        millions: Whether the workloads about many runs are repeated with a million.
    """

    uri: str
    client: AsyncMongoClient[dict[str, Any]]
    sizes: Sizes
    rounds: int
    millions: bool = False

    @asynccontextmanager
    async def database(self, name: str) -> AsyncIterator[str]:
        """Lend the name of a database that nobody else uses, and drop it afterwards."""
        full = f"streamline_bench_{name}_{secrets.token_hex(4)}"
        try:
            yield full
        finally:
            await self.client.drop_database(full)

    def app(
        self, database: str, *workflows: Workflow[Any, Any, Any], worker: Worker | bool = True, client: Any = None
    ) -> Streamline:
        """Return an app on a database of the stage, by default with a client of its own."""
        return Streamline(client or self.uri, database=database, workflows=workflows, worker=worker)

    async def raw(self, database: str) -> Raw:
        """Return the raw ceiling on a database of the stage."""
        raw = Raw(self.client, database)
        await raw.prepare()
        return raw

    async def count(self, database: str, query: dict[str, Any]) -> int:
        """Return how many runs match."""
        return await self.client[database]["streamline.runs"].count_documents(query)


@asynccontextmanager
async def open_stage(uri: str | None, sizes: Sizes, rounds: int, *, millions: bool) -> AsyncIterator[Stage]:
    """Lend a stage on the given server, or on an embedded one of its own."""
    server = None if uri else EmbeddedServer()
    try:
        address = uri or (await server.start() if server else "")
        async with AsyncMongoClient[dict[str, Any]](address, tz_aware=True, appname="benchmarks") as client:
            yield Stage(address, client, sizes, rounds, millions)
    finally:
        if server is not None:
            await server.stop()
