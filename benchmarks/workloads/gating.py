"""GATES: what each gate costs: the three-step runs of W1 with it and without it, in turns."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks.flows import noop, three_steps
from benchmarks.raw import LANES
from benchmarks.rows import Row, ratio_row
from benchmarks.stage import Stage
from benchmarks.workloads.throughput import runs
from streamline import Concurrency, Throttle, Workflow

_WARM_UP = 10

GATED: dict[str, Workflow[Any, Any, Any]] = {
    "a concurrency limit of 1,000": three_steps("wide", concurrency=Concurrency(1_000)),
    "a concurrency limit of 4": three_steps("narrow", concurrency=Concurrency(4)),
    "a throttle of 10,000 in a second": three_steps("throttled", throttle=Throttle(10_000, "1s")),
    "a key of its own for each run": three_steps("apart", concurrency=Concurrency(1, key=str)),
}


async def measure(stage: Stage) -> list[Row]:
    """Measure with 64 in flight, each gate beside no gate."""
    rows, count = [], max(1, stage.sizes.runs // 4)
    async with stage.database("gates") as database, stage.app(database, noop, *GATED.values()) as app:
        await runs(app, max(1, count // _WARM_UP), LANES)
        for what, workflow in GATED.items():
            await runs(app, max(1, count // _WARM_UP), LANES, workflow)
            plain, gated = [], []
            for _ in range(stage.rounds):
                plain.append(await runs(app, count, LANES))
                gated.append(await runs(app, count, LANES, workflow))
            rates = median(p.rate for p in gated), median(p.rate for p in plain)
            shown = f"{rates[0]:,.0f} runs/s; without {rates[1]:,.0f}"
            ratios = [one.rate / other.rate for one, other in zip(gated, plain, strict=True)]
            rows.append(ratio_row("GATES", f"{LANES} in flight, {what}: gated / plain", shown, ratios, None))
    return rows
