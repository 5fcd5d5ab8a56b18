"""The raw ceiling: what the same driver does without an engine, guarded and as durable."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from pymongo import AsyncMongoClient, WriteConcern

from benchmarks.pacing import Pace, pace
from benchmarks.rows import Malfunction

LANES = 64


class Raw:
    """Guarded single updates of small documents, one per lane, by majority and journal."""

    def __init__(self, client: AsyncMongoClient[dict[str, Any]], database: str) -> None:
        durable = WriteConcern("majority", j=True)
        self._lanes = client[database].get_collection("raw", write_concern=durable)
        self._runs = client[database].get_collection("raw_runs", write_concern=durable)
        self._revisions: list[int] = []
        self._numbers = itertools.count()

    async def prepare(self) -> None:
        """Store what is updated, and let the driver open its connections."""
        self._revisions = [0] * LANES
        await self._lanes.insert_many([{"_id": lane, "rev": 0} for lane in range(LANES)])
        await self._runs.insert_one({"_id": next(self._numbers)})
        await self.updates(2 * LANES)

    async def update(self, lane: int) -> None:
        """Carry out one guarded update."""
        rev = self._revisions[lane]
        await _advance(self._lanes, lane, rev)
        self._revisions[lane] = rev + 1

    async def updates(self, count: int) -> Pace:
        """Carry out guarded updates, 64 in flight."""
        return await pace(count, LANES, self.update)

    async def ceilings(self, count: int, steps: int) -> Pace:
        """Carry out what a run of so many steps needs at least, 64 in flight: an insert and an update per step."""

        async def one(_: int) -> None:
            number = next(self._numbers)
            await self._runs.insert_one({"_id": number, "rev": 0})
            for rev in range(steps):
                await _advance(self._runs, number, rev)

        return await pace(count, LANES, one)


async def _advance(collection: Any, number: int, rev: int) -> None:
    answer = await collection.update_one({"_id": number, "rev": rev}, {"$set": {"rev": rev + 1}})
    if answer.modified_count != 1:
        raise Malfunction("a raw update did not match: something else writes to the benchmark's database")


def show_raw(raws: Sequence[Pace]) -> str:
    """Return the raw rates of the rounds; how far they differ says how noisy the machine was."""
    rates = sorted(raw.rate for raw in raws)
    return f"raw {rates[len(rates) // 2]:,.0f}/s ({rates[0]:,.0f}-{rates[-1]:,.0f})"
