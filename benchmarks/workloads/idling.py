"""W11: what a worker costs that has nothing to do."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from benchmarks.flows import single_step
from benchmarks.goals import at_most
from benchmarks.processes import Assistant, worker
from benchmarks.rows import Row
from benchmarks.stage import Stage
from benchmarks.workloads.draining import finish

_MANY = 50
_SETTLE = 0.5


async def measure(stage: Stage) -> list[Row]:
    """Measure a worker of few workflows, one of many, and one whose database has just seen a large drain."""
    async with AsyncExitStack() as stack:
        idle: dict[str, Assistant] = {}
        for name, others in (("few", 0), ("many", _MANY), ("drained", 0)):
            database = await stack.enter_async_context(stage.database(f"w11_{name}"))
            process = await stack.enter_async_context(worker(stage.uri, database, others=others))
            await process.ask("open")
            if name == "drained":
                await _drain(stage, database)
            idle[name] = process
        await asyncio.sleep(min(_SETTLE, stage.sizes.idle_seconds))
        for process in idle.values():
            await process.ask("mark")
        await asyncio.sleep(stage.sizes.idle_seconds)
        reports = {name: await process.ask("report") for name, process in idle.items()}
    return _rows(reports)


async def _drain(stage: Stage, database: str) -> None:
    count, flow = stage.sizes.drained, single_step(lambda _: None)
    async with stage.app(database, flow, worker=False) as app:
        await app.start_many(flow, [None] * count)
    await finish(stage, database, count, within=stage.sizes.patience)


def _rows(reports: dict[str, dict[str, Any]]) -> list[Row]:
    rows = []
    for name, what in (
        ("few", "3 workflows"),
        ("many", f"{_MANY + 3} workflows"),
        ("drained", "just after a large drain"),
    ):
        report = reports[name]
        rate = report["commands"] / report["seconds"]
        cpu = report["cpu"] / report["seconds"] * 100
        shown = f"{rate:.2f} commands/s, {cpu:.2f} % CPU, a poll {report['find_ms']:.1f} ms"
        rows.append(
            Row("W11", f"idle worker, {what}", shown, rate, at_most(1.0, 2.0, unit="/s"), unit="/s", detail=report)
        )
    return rows
