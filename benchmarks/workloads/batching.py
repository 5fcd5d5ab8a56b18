"""W10: many runs started by one call."""

from __future__ import annotations

import time
from statistics import median

from benchmarks.flows import noop
from benchmarks.goals import at_least
from benchmarks.pacing import pace
from benchmarks.rows import Malfunction, Row, ratio_row
from benchmarks.stage import Stage


async def measure(stage: Stage) -> list[Row]:
    """Measure starts one after the other and `start_many` in turns."""
    pairs: list[tuple[float, float]] = []
    size = stage.sizes.batch
    for _ in range(stage.rounds):
        async with stage.database("w10") as database, stage.app(database, noop, worker=False) as app:
            singles = await pace(stage.sizes.starts, 1, lambda _: app.start(noop))
            began = time.perf_counter()
            handles = await app.start_many(noop, [None] * size)
            pairs.append((singles.rate, len(handles) / (time.perf_counter() - began)))
            if (stored := await stage.count(database, {})) != size + stage.sizes.starts:
                raise Malfunction(f"{stored} runs are stored instead of {size + stage.sizes.starts}")
    single, many = (median(rates) for rates in zip(*pairs, strict=True))
    shown = f"{many:,.0f} starts/s; single {single:,.0f}"
    ratios = [batched / alone for alone, batched in pairs]
    return [ratio_row("W10", f"start_many of {size:,} / single starts", shown, ratios, at_least(10, 5))]
