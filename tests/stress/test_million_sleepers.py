"""Parked runs cost an idle worker nothing, and do not stand in the way of those that fall due."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from streamline import Streamline
from streamline.store import statements
from tests.stress import ledger
from tests.stress.ledger import Ledger
from tests.stress.side_fleet import SideFleet
from tests.stress.sleepers import WAYS, crowd, dormitory, models
from tests.stress.target import Opening
from tests.waiting import eventually

MIB = 1024 * 1024
POLL = 1.0

Client = AsyncMongoClient[dict[str, Any]]


@pytest.fixture
def side_fleet(tmp_path: Path) -> Iterator[SideFleet]:
    fleet = SideFleet(tmp_path)
    try:
        yield fleet
    finally:
        fleet.close()


class Scene:
    """A worker on an empty database and one on a crowded one, and apps that start runs in either."""

    def __init__(self, fleet: SideFleet, client: Client, uri: str, databases: dict[str, str]) -> None:
        self._fleet = fleet
        self._pen = Ledger(fleet.ledger_path, "test")
        self._client = client
        self._uri = uri
        self._databases = databases
        self._apps: dict[str, Streamline] = {}

    def runs(self, name: str) -> Any:
        return self._client[self._databases[name]]["streamline.runs"]

    async def fill(self, count: int) -> None:
        """Let the engine park a run in every way, and clone them."""
        database = self._databases["crowded"]
        async with Streamline(self._uri, database=database, workflows=[dormitory(self._pen)]) as app:
            found = await models(app, self.runs("crowded"))
        await asyncio.to_thread(crowd, self._uri, database, found, count - len(WAYS))

    async def open(self, stack: AsyncExitStack) -> None:
        """Begin the workers, and the apps that only start."""
        for name, database in self._databases.items():
            opening = Opening(self._uri, database, str(self._fleet.ledger_path), (("dormitory", "dormitory", "1.0.0"),))
            asking = Streamline(self._uri, database=database, workflows=[dormitory(self._pen)], worker=False)
            self._apps[name] = await stack.enter_async_context(asking)
            worker = {"poll_interval": POLL, "concurrency": 50}
            self._fleet.spawn(name, opening={**asdict(opening), "worker": worker})
            await eventually(lambda name=name: any(ledger.pick(self.entries(), "ready", by=name)))

    def entries(self) -> list[ledger.Entry]:
        return ledger.read(self._fleet.ledger_path)

    async def pickup(self, name: str) -> float:
        """Return the milliseconds between the return of a start and the beginning of the handler."""
        handle = await self._apps[name].start("dormitory", {"way": "none"})
        at = time.monotonic_ns()
        await handle.result("20s")
        entered = next(ledger.pick(self.entries(), "enter", run=handle.id))
        return max(0.0, entered["at"] - at) / 1e6

    async def lateness(self, name: str) -> float:
        """Return by how many milliseconds a run that was started for later is entered too late."""
        handle = await self._apps[name].start("dormitory", {"way": "none"}, delay=0.1)
        due_at = (await handle.get()).due_at
        assert due_at is not None
        await handle.result("20s")
        entered = next(ledger.pick(self.entries(), "enter", run=handle.id))
        return (datetime.fromtimestamp(entered["now"], UTC) - due_at).total_seconds() * 1e3

    async def in_turns(self, measure: Callable[[str], Any], times: int) -> dict[str, list[float]]:
        """Measure here and there in turns, so that what else the machine does is shared."""
        found: dict[str, list[float]] = {name: [] for name in self._databases}
        for _ in range(times):
            for name in self._databases:
                found[name].append(await measure(name))
        return found

    async def examined(self, name: str) -> int:
        """Return how many keys of its index an idle worker's look at due runs examines."""
        find = statements.find_due(["dormitory@1.0.0"], datetime.now(UTC), 50)
        command = {
            "find": "streamline.runs",
            "filter": find.filter,
            "sort": dict(find.sort),
            "limit": find.limit,
            "hint": find.hint,
        }
        explained = await self._client[self._databases[name]].command(
            {"explain": command, "verbosity": "executionStats"}
        )
        stats = explained["executionStats"]
        assert stats["totalDocsExamined"] == 0
        return int(stats["totalKeysExamined"])


async def compare(fleet: SideFleet, uri: str, name: str, *, count: int, times: int, idle: float) -> dict[str, float]:
    """Return how a worker beside so many parked runs does, against one on an empty collection at the same time."""
    client: Client = AsyncMongoClient(uri, tz_aware=True)
    databases = {"empty": f"{name}_e", "crowded": f"{name}_c"}
    scene = Scene(fleet, client, uri, databases)
    try:
        await scene.fill(count)
        async with AsyncExitStack() as stack:
            await scene.open(stack)
            await scene.in_turns(scene.pickup, 5)  # everything has been done once
            before = {each: fleet.resident(each) for each in databases}
            await asyncio.sleep(idle)
            pickups = await scene.in_turns(scene.pickup, times)
            late = await scene.in_turns(scene.lateness, times)
            after = {each: fleet.resident(each) for each in databases}
            p50 = {what: {k: median(v) for k, v in f.items()} for what, f in (("pickup", pickups), ("timer", late))}
            found = {
                "more memory, MiB": (after["crowded"] - after["empty"]) / MIB,
                "growth, MiB": (after["crowded"] - before["crowded"]) / MIB,
                "growth beside nothing, MiB": (after["empty"] - before["empty"]) / MIB,
                "keys examined": await scene.examined("crowded"),
                **{f"{what} beside nothing, ms": each["empty"] for what, each in p50.items()},
                **{f"{what}, ms": each["crowded"] for what, each in p50.items()},
                **{f"{what} ratio": each["crowded"] / each["empty"] for what, each in p50.items()},
            }
        print(f"\n{count:,} parked runs:", ", ".join(f"{what} {value:.2f}" for what, value in found.items()))
        await check_untouched(scene, count)
        return found
    finally:
        for database in databases.values():
            await client.drop_database(database)
        await client.close()


async def check_untouched(scene: Scene, count: int) -> None:
    """Nobody has taken a run that was not due."""
    parked = {"input.way": {"$ne": "none"}}
    assert await scene.runs("crowded").count_documents(parked) == count
    touched = {**parked, "$or": [{"lease": {"$exists": True}}, {"status": {"$nin": ["draft", "waiting"]}}]}
    assert await scene.runs("crowded").count_documents(touched) == 0
    untimed = await scene.runs("crowded").count_documents({**parked, "due_at": {"$exists": False}})
    assert untimed >= count // len(WAYS) * 2


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of processes from /proc")


@needs_proc
async def test_many_sleepers_are_not_in_the_way(side_fleet: SideFleet, mongo_uri: str, database_name: str) -> None:
    found = await compare(side_fleet, mongo_uri, database_name, count=20_000, times=15, idle=0.5)
    assert found["keys examined"] < 40
    assert found["more memory, MiB"] < 8
    # Few measurements on a machine that does other things: the stress variant is the judge of the ratio.
    assert min(found["pickup ratio"], found["timer ratio"]) < 2


@needs_proc
@pytest.mark.stress
@pytest.mark.timeout(900)
async def test_a_million_sleepers_are_not_in_the_way(side_fleet: SideFleet, mongo_uri: str, database_name: str) -> None:
    found = await compare(side_fleet, mongo_uri, database_name, count=1_000_000, times=200, idle=20 * POLL)
    assert found["keys examined"] < 40
    assert found["growth, MiB"] < 4
    assert found["more memory, MiB"] < 8
    assert found["pickup ratio"] < 1.5
    assert found["timer ratio"] < 1.5
