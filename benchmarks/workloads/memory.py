"""W12: the memory of a worker whose collection holds many parked runs."""

from __future__ import annotations

import asyncio

from benchmarks.crowd import fill
from benchmarks.flows import noop, sleeper
from benchmarks.goals import at_most
from benchmarks.processes import worker
from benchmarks.rows import Row
from benchmarks.stage import Stage

_MILLION = 1_000_000
_MIB = 1024 * 1024


async def measure(stage: Stage) -> list[Row]:
    """Measure a worker on an empty collection and one beside parked runs, at the same time."""
    counts = (stage.sizes.crowd, *((_MILLION,) if stage.millions else ()))
    return [await _compare(stage, count) for count in counts]


async def _compare(stage: Stage, count: int) -> Row:
    async with stage.database("w12") as empty, stage.database("w12_parked") as crowded:
        async with stage.app(crowded, noop, sleeper) as app:
            await fill(stage.client, app, "parked", count)
        async with worker(stage.uri, empty) as quiet, worker(stage.uri, crowded) as busy:
            for process in (quiet, busy):
                await process.ask("open")
            await asyncio.sleep(stage.sizes.memory_seconds)
            alone, beside = [(await process.ask("report"))["rss"] / _MIB for process in (quiet, busy)]
    return Row(
        "W12",
        f"idle worker beside {count:,} parked runs: more memory",
        f"{beside:.1f} MiB; empty {alone:.1f} MiB",
        beside - alone,
        at_most(2, 16, unit="MiB"),
        unit="MiB",
    )
