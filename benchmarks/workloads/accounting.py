"""COST: what a run costs in document writes, as the server counts them, and in commands, as the driver sends them."""

from __future__ import annotations

from typing import Any

from pymongo import AsyncMongoClient

from benchmarks.counting import CommandCounter, document_writes
from benchmarks.flows import STEPS, noop
from benchmarks.goals import at_most
from benchmarks.raw import LANES
from benchmarks.rows import Row
from benchmarks.stage import Stage
from benchmarks.workloads.throughput import runs


async def measure(stage: Stage) -> list[Row]:
    """Count under load, 64 in flight."""
    counter, count = CommandCounter(), stage.sizes.counted
    async with (
        AsyncMongoClient[dict[str, Any]](stage.uri, tz_aware=True, event_listeners=[counter]) as client,
        stage.database("cost") as database,
        stage.app(database, noop, client=client) as app,
    ):
        await runs(app, LANES, LANES)
        before = await document_writes(stage.client)
        counter.clear()
        await runs(app, count, LANES)
        commands, by_name = counter.total, dict(counter.commands)
        written = await document_writes(stage.client) - before
    shown = ", ".join(f"{name} {times}" for name, times in sorted(by_name.items()))
    reads = sum(by_name.get(name, 0) for name in ("find", "aggregate")) / count
    return [
        Row(
            "COST",
            f"document writes per {STEPS}-step run",
            f"{written:,} for {count:,} runs",
            written / count,
            at_most(STEPS + 1.01, STEPS + 1.1, unit=""),
            unit="",
        ),
        Row("COST", "commands per run", shown, commands / count, at_most(0.3, 0.5, unit=""), unit="", detail=by_name),
        Row("COST", "reads per run", shown, reads, at_most(0.01, 0.1, unit=""), unit=""),
    ]
