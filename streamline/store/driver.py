"""One face for the two drivers: PyMongo's async client and Motor's.

They differ in what is awaited and in how cursors are drained; nothing above this file knows which one is in use. Every
command carries its own concerns, so that a client's or URI's settings can never weaken a promise.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC
from typing import Any

import pymongo
from bson.codec_options import CodecOptions
from pymongo import AsyncMongoClient, CursorType, ReadPreference
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from streamline.store.operations import Aggregate, Collection, Document, Find

CODEC: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True, tzinfo=UTC)
DURABLE = {"w": "majority", "j": True}
HINT = {"w": 1, "j": False}


class Driver:
    """The database that one app works on.

    Args:
        client: The client, PyMongo's or Motor's.
        database: Name of the database.
        prefix: Beginning of the names of the engine's collections.
        owned: Whether the client was made here and is closed here.
        call_seconds: Client-side limit of one command, in seconds.
        uri: The connection string that the client was made from, where it was made here.

    Attributes:
        has_transactions: Whether the server can carry out transactions, as far as is known.
    """

    def __init__(
        self, client: Any, database: str, prefix: str, *, owned: bool, call_seconds: float, uri: str | None = None
    ) -> None:
        self.client = client
        self.database: Any = client[database]
        self.prefix = prefix
        self.runs = f"{prefix}.runs"
        self.wakes = f"{prefix}.wakes"
        self.has_transactions = True
        self._owned = owned
        self._uri = uri
        self._call_seconds = call_seconds

    def named(self, collection: Collection) -> str:
        """Return the name of one of the engine's collections."""
        return f"{self.prefix}.{collection}"

    @property
    def options(self) -> Any:
        """The client's options, as PyMongo parsed them."""
        # An attribute that PyMongo's client does not know is a database: so Motor's is told by type.
        return self.client.options if isinstance(self.client, AsyncMongoClient) else self.client.delegate.options

    @property
    def uri(self) -> str:
        """The connection string of the deployment; without credentials where the client was passed in."""
        if self._uri is not None:
            return self._uri
        nodes = ",".join(f"{host}:{port}" for host, port in sorted(self.client.nodes))
        replica_set = self.options.replica_set_name
        return f"mongodb://{nodes}/" + (f"?replicaSet={replica_set}" if replica_set else "")

    async def command(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Send a command and return the server's answer."""
        with pymongo.timeout(self._call_seconds):
            answer = await self.database.command(command, codec_options=CODEC)
        return dict(answer)

    async def build(self, command: Mapping[str, Any]) -> None:
        """Send a command that takes as long as it takes, such as the building of an index."""
        await self.database.command(command)

    async def ping(self) -> None:
        """Return once the primary has answered."""
        with pymongo.timeout(self._call_seconds):
            await self.database.command("ping")

    async def command_in(self, session: Any, command: Mapping[str, Any]) -> dict[str, Any]:
        """Send a command in a session; in its transaction, which has concerns of its own, where one is under way."""
        concern = {} if session.in_transaction else {"writeConcern": DURABLE}
        with pymongo.timeout(self._call_seconds):
            answer = await self.database.command({**command, **concern}, codec_options=CODEC, session=session)
        return dict(answer)

    async def start_transaction(self) -> Any:
        """Return a session of its own with a transaction under way: it sees one instant, and its commit lasts."""
        session = await _settled(self.client.start_session())
        reads, writes = ReadConcern("snapshot"), WriteConcern("majority", j=True)
        await _settled(session.start_transaction(reads, writes, ReadPreference.PRIMARY))
        return session

    async def commit(self, session: Any) -> None:
        """Commit a session's transaction; may be repeated while the outcome is unknown."""
        with pymongo.timeout(self._call_seconds):
            await session.commit_transaction()

    async def end(self, session: Any) -> None:
        """End a session, and a transaction that is under way with it; nobody can use it any more."""
        with pymongo.timeout(self._call_seconds):
            await session.end_session()

    def owns(self, session: Any) -> bool:
        """Return whether a session is of the client in use."""
        kind = AsyncClientSession if isinstance(self.client, AsyncMongoClient) else None
        is_of_kind = isinstance(session, kind) if kind else type(session).__name__ == "AsyncIOMotorClientSession"
        return is_of_kind and session.client is self.client

    async def find(self, collection: str, statement: Find) -> list[Document]:
        """Return the documents that a read finds."""
        cursor = self._readable(collection).find(statement.filter, statement.projection, limit=statement.limit)
        if statement.sort:
            cursor = cursor.sort(list(statement.sort))
        if statement.hint:
            cursor = cursor.hint(statement.hint)
        with pymongo.timeout(self._call_seconds):
            return list(await cursor.to_list(None))

    async def aggregate(self, collection: str, statement: Aggregate) -> list[Document]:
        """Return the documents that a pipeline yields."""
        with pymongo.timeout(self._call_seconds):
            pipeline = [{"$match": statement.filter}, *statement.pipeline]
            hinted = {"hint": statement.hint} if statement.hint else {}
            cursor = await _settled(self._readable(collection).aggregate(pipeline, **hinted))
            return list(await cursor.to_list(None))

    @property
    def wait_seconds(self) -> float:
        """How long one look at a tailable cursor may wait at the server: with Motor it holds one of few threads."""
        return 5.0 if isinstance(self.client, AsyncMongoClient) else 1.0

    async def tail(
        self, collection: str, query: Mapping[str, Any], on_answer: Callable[[], None]
    ) -> AsyncIterator[Document]:
        """Yield the documents of a capped collection that match, as they arrive, until the server ends the cursor.

        Args:
            collection: The collection.
            query: What they match.
            on_answer: Called whenever the server has answered, be it that there is nothing.
        """
        readable = self.database.get_collection(collection, codec_options=CODEC, read_preference=ReadPreference.PRIMARY)
        cursor = readable.find(query, cursor_type=CursorType.TAILABLE_AWAIT)
        cursor = cursor.max_await_time_ms(int(self.wait_seconds * 1000))
        try:
            while cursor.alive:
                async for document in cursor:
                    yield document
                on_answer()
        finally:
            await _settled(cursor.close())

    async def close(self) -> None:
        """Close the client if it was made here."""
        if self._owned:
            await _settled(self.client.close())

    def _readable(self, collection: str) -> Any:
        return self.database.get_collection(
            collection,
            codec_options=CODEC,
            read_preference=ReadPreference.PRIMARY,
            read_concern=ReadConcern("majority"),
        )


async def _settled(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
