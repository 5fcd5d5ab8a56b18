"""A workflow that parks in every way there is, and a crowd of runs that it has parked."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from secrets import token_hex
from typing import Any

from pymongo import MongoClient, WriteConcern

from streamline import Context, RetryAfter, Streamline, Workflow
from tests.stress.evidence import Document
from tests.stress.ledger import Ledger
from tests.waiting import eventually

FAR = timedelta(days=30)
WAYS = ("queued", "asleep", "resumable", "resumable in time", "hooked", "approvable", "retrying")

_PRIORITIES = (0, 0, 0, 0, 5, -1)
_IN_A_COMMAND = 2000


def dormitory(ledger: Ledger, name: str = "dormitory", version: str = "1.0.0") -> Workflow[Any, Any, Any]:
    """Return a workflow that parks as its input says, or ends at once."""
    flow: Workflow[Any, Any, Any] = Workflow(name, version=version)

    @flow.step
    async def first(ctx: Context) -> str:
        return "here"

    @flow.step
    async def lie_down(ctx: Context) -> None:
        ledger.write("enter", run=ctx.run_id, now=time.time())
        match ctx.input["way"]:
            case "asleep":
                await ctx.sleep(FAR)
            case "resumable":
                await ctx.wait("for somebody", data={"who": "anybody"})
            case "resumable in time":
                await ctx.wait("for somebody", timeout=FAR)
            case "hooked":
                await (await ctx.create_hook("door", expires=FAR)).wait()
            case "approvable":
                await ctx.approve("to get up", approvers=["boss"])
            case "retrying":
                raise RetryAfter(FAR)

    return flow


async def models(app: Streamline, runs: Any) -> list[Document]:
    """Return the documents of real runs, parked by the engine in every way."""
    found = []
    for way in WAYS:
        handle = await app.start("dormitory", {"way": way}, delay=FAR if way == "queued" else None)
        wanted = {"_id": handle.id, "status": "draft" if way == "queued" else "waiting", "lease": {"$exists": False}}
        found.append(await eventually(lambda wanted=wanted: runs.find_one(wanted)))
    timed = [document["input"]["way"] for document in found if "due_at" in document]
    assert timed == ["queued", "asleep", "resumable in time", "hooked", "retrying"]
    return found


def crowd(uri: str, database: str, found: list[Document], count: int) -> None:
    """Store clones of parked runs: as many of each, with ids, instants, priorities and hooks of their own."""
    client: MongoClient[Document] = MongoClient(uri, tz_aware=True)
    try:
        runs = client[database].get_collection("streamline.runs", write_concern=WriteConcern(1))
        with ThreadPoolExecutor(2) as pool:
            for _ in pool.map(lambda batch: runs.insert_many(batch, ordered=False), _batches(found, count)):
                pass
        assert runs.estimated_document_count() >= count
    finally:
        client.close()


def _batches(found: list[Document], count: int) -> Iterator[list[Document]]:
    for first in range(0, count, _IN_A_COMMAND):
        yield [_clone(found[i % len(found)]) for i in range(first, min(count, first + _IN_A_COMMAND))]


def _clone(model: Document) -> Document:
    clone = _moved(model, FAR * random.random())
    clone |= {"_id": f"clone{token_hex(12)}", "priority": random.choice(_PRIORITIES)}
    if "hooks" in clone:
        clone["hooks"] = [token_hex(32)]
        for entry in clone["steps"][1]["memo"].values():
            if "hash" in entry:
                entry["hash"] = clone["hooks"][0]
    return clone


def _moved(value: Any, later: timedelta) -> Any:
    """Return a copy whose instants are later: what lies ahead stays ahead."""
    if isinstance(value, datetime):
        return value + later
    if isinstance(value, dict):
        return {name: _moved(each, later) for name, each in value.items()}
    return [_moved(each, later) for each in value] if isinstance(value, list) else value
