"""Hundreds of children of one parent: what each costs does not grow with their number."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import bson
import pytest
from pymongo import AsyncMongoClient
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from streamline import Context, Streamline, Worker, Workflow
from tests.waiting import eventually

FEW, MANY = 100, 500
GROWTH = MANY / FEW

kid: Workflow[Any, Any, Any] = Workflow("kid", input=int)


@kid.step
async def grow(ctx: Context[int]) -> int:
    return ctx.input


def parent(count: int, policy: Any) -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow(f"parent-{count}")

    @wf.step
    async def join(ctx: Context[Any]) -> int:
        return len(await ctx.join({f"k{i}": (kid, i) for i in range(count)}, policy=policy))

    return wf


class Writes(CommandListener):
    """Counts what is written to one run, in writes and bytes, and the commands that concern any."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.writes = 0
        self.bytes = 0
        self.commands: Counter[str] = Counter()

    def started(self, event: CommandStartedEvent) -> None:
        target = event.command.get(event.command_name)
        if not isinstance(target, str) or not target.endswith(".runs"):
            return
        self.commands[event.command_name] += 1
        for row in event.command.get("updates", ()):
            wanted = row["q"].get("_id")
            if wanted == self.run_id or (isinstance(wanted, dict) and self.run_id in wanted.get("$in", ())):
                self.writes += 1
                self.bytes += len(bson.encode({"u": row["u"]}))

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Nothing to count."""

    def failed(self, event: CommandFailedEvent) -> None:
        """Nothing to count."""


class Cost:
    """What one parent of so many children cost."""

    def __init__(self, writes: Writes, document: dict[str, Any], largest: int, seconds: float) -> None:
        self.writes = writes.writes
        self.written = writes.bytes
        self.commands = writes.commands.total()
        self.stored = len(bson.encode(document))
        self.largest_kid = largest
        self.seconds = seconds


async def cost_of(uri: str, name: str, count: int, policy: Any) -> Cost:
    run_id = f"parent-{count}"
    writes, wf = Writes(run_id), parent(count, policy)
    client: AsyncMongoClient[Any] = AsyncMongoClient(uri, tz_aware=True, event_listeners=[writes])
    worker = Worker(concurrency=200, lease="30s", poll_interval="1s")
    try:
        async with Streamline(client, database=f"{name}_{count}", workflows=[wf, kid], worker=worker) as app:
            began = time.monotonic()
            assert await app.run(wf, run_id=run_id, timeout="30s") == (policy if isinstance(policy, int) else count)
            seconds = time.monotonic() - began
            runs = client[f"{name}_{count}"]["streamline.runs"]
            ended = {"workflow": "kid", "status": {"$in": ["done", "cancelled"]}}
            await eventually(lambda: is_count(runs, ended, count))
            assert await runs.count_documents({"parent.run_id": run_id}) == count
            document = await runs.find_one({"_id": run_id})
            largest = max([len(bson.encode(each)) async for each in runs.find({"workflow": "kid"})])
            return Cost(writes, document, largest, seconds)
    finally:
        await client.drop_database(f"{name}_{count}")
        await client.close()


async def is_count(runs: Any, wanted: dict[str, Any], count: int) -> bool:
    return bool(await runs.count_documents(wanted) == count)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["all", "settled", "most"])
async def test_the_cost_of_children_does_not_grow_with_their_square(
    mongo_uri: str, database_name: str, policy: str
) -> None:
    def meant(count: int) -> Any:
        return count - 1 if policy == "most" else policy

    await cost_of(mongo_uri, database_name, 10, "all")  # what the first use of anything costs is not to be compared
    few = await cost_of(mongo_uri, database_name, FEW, meant(FEW))
    many = await cost_of(mongo_uri, database_name, MANY, meant(MANY))
    # How many ends share a write is a matter of luck; that some do is not.
    assert few.writes < FEW, few.writes
    assert many.writes < MANY, many.writes
    assert many.written <= 1.5 * GROWTH * few.written + 4096, (few.written, many.written)
    assert many.stored <= 1.5 * GROWTH * few.stored, (few.stored, many.stored)
    assert many.largest_kid <= 1.1 * few.largest_kid, (few.largest_kid, many.largest_kid)
    assert many.commands <= 2 * GROWTH * few.commands, (few.commands, many.commands)
    assert many.seconds <= 3 * GROWTH * few.seconds, (few.seconds, many.seconds)
