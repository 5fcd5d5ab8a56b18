"""Filling a collection: one real run of a kind is carried out, the others are its clones."""

from __future__ import annotations

import itertools
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, Literal

from bson import ObjectId
from pymongo import AsyncMongoClient, WriteConcern

from benchmarks.flows import failing, noop, sleeper
from benchmarks.pacing import pace
from benchmarks.rows import Malfunction
from benchmarks.waiting import until
from streamline import Streamline

Kind = Literal["finished", "failed", "parked"]

_IN_A_COMMAND = 2_000
_AGES = timedelta(days=30)


async def fill(
    client: AsyncMongoClient[dict[str, Any]], app: Streamline, kind: Kind, count: int, tenants: Sequence[str] = ()
) -> None:
    """Store `count` runs of a kind in the app's database, of these tenants in turns."""
    model = await _MODELS[kind](app)
    runs = client[app.database.name].get_collection(f"{app.prefix}.runs", write_concern=WriteConcern(1))
    document = await runs.find_one({"_id": model})
    if document is None:
        raise Malfunction("a run that was started cannot be found")
    batches = _batches(document, count, itertools.cycle(tenants or [document["tenant_id"]]))

    async def insert(_: int) -> None:
        await runs.insert_many(next(batches), ordered=False)

    await pace(-(-count // _IN_A_COMMAND), 2, insert)


def _batches(model: dict[str, Any], count: int, tenants: Iterator[str | None]) -> Iterator[list[dict[str, Any]]]:
    for first in range(0, count, _IN_A_COMMAND):
        yield [_clone(model, next(tenants)) for _ in range(min(_IN_A_COMMAND, count - first))]


def _clone(model: dict[str, Any], tenant_id: str | None) -> dict[str, Any]:
    moved = _AGES * random.random()
    clone = {**model, "_id": f"clone{ObjectId()}", "created_at": model["created_at"] - moved, "tenant_id": tenant_id}
    if "due_at" in model:
        clone["due_at"] = model["due_at"] + moved
    return clone


async def _finished(app: Streamline) -> str:
    handle = await app.start(noop)
    await handle.result("30s")
    return handle.id


async def _failed(app: Streamline) -> str:
    handle = await app.start(failing)
    await handle.wait("30s")
    return handle.id


async def _parked(app: Streamline) -> str:
    handle = await app.start(sleeper)

    async def is_parked() -> bool:
        return await handle.status() == "waiting"

    await until(is_parked, "a run that sleeps is parked", within=30)
    return handle.id


_MODELS: dict[Kind, Callable[[Streamline], Awaitable[str]]] = {
    "finished": _finished,
    "failed": _failed,
    "parked": _parked,
}
