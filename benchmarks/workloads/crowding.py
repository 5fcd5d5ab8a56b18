"""W8: W1 in a collection that holds many finished and many parked runs."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from benchmarks.crowd import Kind, fill
from benchmarks.flows import noop, sleeper
from benchmarks.goals import at_least
from benchmarks.raw import LANES
from benchmarks.rows import Row, ratio_row
from benchmarks.stage import Stage
from benchmarks.workloads.throughput import runs

_MILLION = 1_000_000


async def measure(stage: Stage) -> list[Row]:
    """Measure beside finished runs, then beside parked runs as well, each time in turns with an empty collection."""
    rows = []
    for count in (stage.sizes.crowd, *((_MILLION,) if stage.millions else ())):
        rows += await _measure(stage, count)
    return rows


async def _measure(stage: Stage, count: int) -> list[Row]:
    rows, kinds = [], list[Kind]()
    async with stage.database("w8") as database:
        for kind in ("finished", "parked"):
            async with stage.app(database, noop, sleeper) as app:
                await fill(stage.client, app, kind, count)
            kinds.append(kind)
            rows.append(await _compare(stage, database, f"{count:,} {' and as many '.join(kinds)} runs"))
    return rows


async def _compare(stage: Stage, crowded: str, what: str) -> Row:
    pairs: list[tuple[float, float]] = []
    async with (
        stage.database("w8_empty") as empty,
        stage.app(empty, noop, sleeper) as quiet,
        stage.app(crowded, noop, sleeper) as busy,
    ):
        for app in (quiet, busy):
            await runs(app, LANES, LANES)
        for _ in range(stage.rounds):
            alone = (await runs(quiet, stage.sizes.runs, LANES)).rate
            pairs.append((alone, (await runs(busy, stage.sizes.runs, LANES)).rate))
    return _row(what, pairs)


def _row(what: str, pairs: Sequence[tuple[float, float]]) -> Row:
    empty, crowded = (median(rates) for rates in zip(*pairs, strict=True))
    shown = f"{crowded:,.0f} runs/s; empty {empty:,.0f}"
    ratios = [busy / alone for alone, busy in pairs]
    return ratio_row("W8", f"beside {what} / empty", shown, ratios, at_least(0.9, 0.75))
