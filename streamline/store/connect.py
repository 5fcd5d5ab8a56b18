"""From what the user names to a driver: a URI, a client or a database, of PyMongo or of Motor."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

from streamline.errors import UnsafeDeployment
from streamline.settings import Settings
from streamline.store.driver import CODEC, Driver

DEFAULT_DATABASE = "streamline"

# The drivers' defaults let a hung primary block for half a minute.
_CLIENT_OPTIONS: dict[str, Any] = {
    "appname": "streamline",
    "connectTimeoutMS": 2000,
    "heartbeatFrequencyMS": 2000,
    "serverSelectionTimeoutMS": 5000,
}


def connect(
    target: Any,
    *,
    database: str | None,
    prefix: str,
    settings: Settings,
) -> Driver:
    """Return a driver for `target`; nothing is sent yet.

    Args:
        target: A ``mongodb://`` URI, a client or a database, of PyMongo's async API or of Motor.
        database: Name of the database; default the URI's or the given database's, else ``streamline``.
        prefix: Beginning of the names of the engine's collections.
        settings: Limits of calls, and which driver a URI is opened with.

    Raises:
        UnsafeDeployment: The target is of no known kind, or cannot be parsed.
    """
    owned, client, name = isinstance(target, str), target, None
    if isinstance(target, str):
        client = _client_of(target, motor=settings.driver == "motor")
    elif _kind(target) in ("AsyncDatabase", "AsyncIOMotorDatabase"):
        client, name = target.client, target.name
    elif _kind(target) not in ("AsyncMongoClient", "AsyncIOMotorClient"):
        raise UnsafeDeployment(
            "target: a mongodb:// URI, a pymongo.AsyncMongoClient, a Motor AsyncIOMotorClient, or a database of either",
            field="target",
        )
    chosen, uri = database or name or _default_database(client), target if owned else None
    try:
        return Driver(client, chosen, prefix, owned=owned, call_seconds=settings.call_seconds, uri=uri)
    except PyMongoError as error:
        raise UnsafeDeployment(
            f"database: it cannot have this name ({type(error).__name__})", field="database"
        ) from error


def _client_of(uri: str, *, motor: bool) -> Any:
    if not uri.startswith(("mongodb://", "mongodb+srv://")):
        raise UnsafeDeployment("target: a connection string begins with mongodb:// or mongodb+srv://", field="target")
    try:
        given = {name.lower() for name, _ in parse_qsl(urlsplit(uri).query)}
        options = {name: value for name, value in _CLIENT_OPTIONS.items() if name.lower() not in given}
        if motor:
            from motor.motor_asyncio import AsyncIOMotorClient  # noqa: PLC0415 - an extra, needed only here

            return AsyncIOMotorClient(uri, tz_aware=CODEC.tz_aware, **options)
        return AsyncMongoClient(uri, tz_aware=CODEC.tz_aware, **options)
    except (PyMongoError, ValueError, OSError) as error:
        raise UnsafeDeployment(
            f"target: not a usable connection string ({type(error).__name__})", field="target"
        ) from error


def _kind(target: Any) -> str:
    return "AsyncDatabase" if isinstance(target, AsyncDatabase) else type(target).__name__


def _default_database(client: Any) -> str:
    return str(client.get_default_database(DEFAULT_DATABASE).name)
