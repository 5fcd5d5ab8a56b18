"""Make a mongod the only member of its replica set, ready for majority writes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

from pymongo import MongoClient, WriteConcern
from pymongo.errors import OperationFailure, PyMongoError

from streamline.errors import StoreUnavailable

SET_NAME = "streamline"
_ALREADY_INITIALIZED = 23
_T = TypeVar("_T")


def make_writable(port: int, directory: Path, pause: Callable[[], None]) -> bool:
    """Lead the server to the point where majority writes succeed, and return whether it got there.

    False asks for a restart: the data came from another port, and the server has to read the configuration, which now
    names this one, anew to find itself in it. A forced reconfiguration is no way out: it is refused while the server
    waits on the old port for an answer that whoever sits there now may never give (30 s).

    Args:
        port: Where the server listens.
        directory: Its data; a server with other data is left alone.
        pause: Sleeps a little; raises when the server is gone or the time is over.

    Raises:
        StoreUnavailable: The server refuses to become a replica set.
    """
    host = f"127.0.0.1:{port}"
    with _connect(port) as client:
        _insist(lambda: _serves(client, directory), pause)
        if _insist(lambda: _configure(client, host), pause) == "moved":
            return False
        _insist(lambda: _is_primary(client), pause)
        _insist(lambda: _acknowledges(client, "ready"), pause)
    return True


def answers(port: int, directory: Path) -> bool:
    """Return whether the server of that directory runs: a dying one still listens, but does not answer."""
    with suppress(PyMongoError), _connect(port) as client:
        return _serves(client, directory)
    return False


def flush(port: int) -> None:
    """Make everything durable that clients have written without asking for it, if the server still answers.

    One more write, for its acknowledgement covers all before it. The command `fsync` would not do: after a crash the
    server drops what follows the last point that its journal flusher has noted, and `fsync` does not note any.
    """
    with suppress(PyMongoError), _connect(port) as client:
        _acknowledges(client, "stop")


def _connect(port: int) -> MongoClient[dict[str, Any]]:
    return MongoClient(
        "127.0.0.1",
        port,
        directConnection=True,
        serverSelectionTimeoutMS=2_000,
        connectTimeoutMS=2_000,
        socketTimeoutMS=5_000,
        retryWrites=False,
    )


def _insist(attempt: Callable[[], _T], pause: Callable[[], None]) -> _T:
    # Errors are part of a start: the server closes its connections whenever its role in the set changes.
    while True:
        with suppress(PyMongoError):
            result = attempt()
            if result:
                return result
        pause()


def _serves(client: MongoClient[dict[str, Any]], directory: Path) -> bool:
    # A stranger may have been faster on the port; ours then ends by itself.
    options = client.admin.command("getCmdLineOpts")["parsed"]
    return bool(options.get("storage", {}).get("dbPath") == str(directory))


def _configure(client: MongoClient[dict[str, Any]], host: str) -> Literal["here", "moved"]:
    config = client["local"]["system.replset"].find_one()
    if config is None:
        _initiate(client, host)
    elif [member["host"] for member in config["members"]] != [host]:
        _move(client, config, host)
        return "moved"
    return "here"


def _is_primary(client: MongoClient[dict[str, Any]]) -> bool:
    return bool(client.admin.command("hello")["isWritablePrimary"])


def _acknowledges(client: MongoClient[dict[str, Any]], note: str) -> bool:
    concern = {"w": "majority", "j": True, "wtimeout": 2_000}
    reply = client.admin.command("appendOplogNote", 1, data={"msg": note}, writeConcern=concern)
    return "writeConcernError" not in reply


def _initiate(client: MongoClient[dict[str, Any]], host: str) -> None:
    settings = {"electionTimeoutMillis": 1_000, "heartbeatIntervalMillis": 500}
    config = {"_id": SET_NAME, "members": [{"_id": 0, "host": host}], "settings": settings}
    try:
        client.admin.command("replSetInitiate", config)
    except OperationFailure as error:
        if error.code != _ALREADY_INITIALIZED:
            raise StoreUnavailable(f"mongod refuses to become a replica set: {error}") from error


def _move(client: MongoClient[dict[str, Any]], config: dict[str, Any], host: str) -> None:
    # Journalled by fsync, not by `j: true`: a server that does not know its place in the set never acknowledges that.
    configs = client["local"].get_collection("system.replset", write_concern=WriteConcern(w=1))
    configs.update_one({"_id": config["_id"]}, {"$set": {"members": [{**config["members"][0], "host": host}]}})
    client.admin.command("fsync")
