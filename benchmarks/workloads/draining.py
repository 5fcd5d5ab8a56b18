"""W5: a backlog of queued single-step runs, drained by one process."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

from benchmarks.flows import single_step
from benchmarks.goals import at_least
from benchmarks.pacing import Pace
from benchmarks.raw import show_raw
from benchmarks.rows import Malfunction, Row, ratio_row
from benchmarks.stage import Stage
from benchmarks.waiting import until
from streamline import Worker, Workflow

WIDTH = 256


async def measure(stage: Stage) -> list[Row]:
    """Measure the rate from the first step's beginning to the last run's end."""
    raws: list[Pace] = []
    rates: list[float] = []
    for _ in range(stage.rounds):
        async with stage.database("w5") as database:
            raws.append(await (await stage.raw(database)).updates(stage.sizes.updates))
            rates.append(await _drain(stage, database))
    ratios = [rate / raw.rate for rate, raw in zip(rates, raws, strict=True)]
    shown = f"{median(rates):,.0f} runs/s; {show_raw(raws)}"
    return [ratio_row("W5", "drained runs / raw ops per second", shown, ratios, at_least(2.0, 1.0), rates=rates)]


async def fill_queue(stage: Stage, database: str, flow: Workflow[Any, Any, Any], count: int) -> None:
    """Queue runs."""
    async with stage.app(database, flow, worker=False) as app:
        await app.start_many(flow, [None] * count)


async def finish(stage: Stage, database: str, count: int, *, within: float = 60.0) -> None:
    """Return when so many runs are done."""

    async def reached() -> bool:
        return await stage.count(database, {"status": "done"}) >= count

    await until(reached, f"{count} runs are done", within=within)


async def _drain(stage: Stage, database: str) -> float:
    count, entered = stage.sizes.drained, []
    flow = single_step(lambda _: entered.append(time.perf_counter()))
    await fill_queue(stage, database, flow, count)
    async with stage.app(database, flow, worker=Worker(concurrency=WIDTH)):
        await until(lambda: len(entered) >= count, f"{count} steps are executed", within=stage.sizes.patience)
        await finish(stage, database, count)
        seconds = time.perf_counter() - entered[0]
    if len(entered) != count:
        raise Malfunction(f"{len(entered) - count} steps were executed twice")
    return count / seconds
