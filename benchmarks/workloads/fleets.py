"""W6: the backlog of W5, drained by several processes that compete for it."""

from __future__ import annotations

import asyncio
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks.flows import single_step
from benchmarks.goals import at_least, at_most
from benchmarks.ledger import Ledger, duplicates
from benchmarks.processes import worker
from benchmarks.rows import Malfunction, Row, ratio_row
from benchmarks.stage import Stage
from benchmarks.waiting import until
from benchmarks.workloads.draining import WIDTH, fill_queue, finish


@dataclass(frozen=True, slots=True)
class Drain:
    """How one backlog was drained.

    Args:
        rate: Runs per second, from the first step's beginning to the last run's end.
        lost: Share of the runs picked by claims that another process had won.
        repeated: Steps that were executed more than once.
        cpu: Seconds of the workers' CPU per run.
        commands: Commands per run.
    """

    rate: float
    lost: float
    repeated: int
    cpu: float
    commands: float


async def measure(stage: Stage) -> list[Row]:
    """Measure one, two and four processes in turns."""
    drains: dict[int, list[Drain]] = {size: [] for size in (1, *stage.sizes.fleets)}
    for _ in range(stage.rounds):
        for size, done in drains.items():
            done.append(await _drain(stage, size))
    rows = []
    for size in stage.sizes.fleets:
        rows += _rows(size, drains[1], drains[size])
    repeated = sum(drain.repeated for done in drains.values() for drain in done)
    shown = f"{sum(map(len, drains.values())) * stage.sizes.drained:,} runs, by an outside ledger"
    rows.append(Row("W6", "steps executed twice", shown, repeated, at_most(0, 0, unit=""), unit=""))
    if repeated:
        raise Malfunction(f"{repeated} steps were executed twice, by the outside ledger")
    return rows


def _rows(size: int, alone: list[Drain], fleet: list[Drain]) -> list[Row]:
    one, many = (median(drain.rate for drain in done) for done in (alone, fleet))
    ratios = [drain.rate / single.rate for drain, single in zip(fleet, alone, strict=True)]
    lost = median(drain.lost for drain in fleet) * 100
    shown = f"{many:,.0f} runs/s; one process {one:,.0f}"
    detail = {"alone": [asdict(drain) for drain in alone], "fleet": [asdict(drain) for drain in fleet]}
    return [
        ratio_row("W6", f"{size} processes / one process", shown, ratios, at_least(1.2, 0.9), **detail),
        Row("W6", f"{size} processes: lost claims", f"{lost:.1f} %", lost, at_most(5, 15, unit="%"), unit="%"),
    ]


async def _drain(stage: Stage, size: int) -> Drain:
    with tempfile.TemporaryDirectory(prefix="streamline-bench-") as directory:
        ledger = Ledger(Path(directory) / "ledger")
        try:
            async with stage.database("w6") as database:
                await fill_queue(stage, database, single_step(lambda _: None), stage.sizes.drained)
                return await _drain_queue(stage, database, size, ledger)
        finally:
            ledger.close()


async def _drain_queue(stage: Stage, database: str, size: int, ledger: Ledger) -> Drain:
    count = stage.sizes.drained
    async with AsyncExitStack() as stack:
        start = [
            stack.enter_async_context(worker(stage.uri, database, concurrency=WIDTH, ledger=ledger.path))
            for _ in range(size)
        ]
        workers = [await each for each in start]
        await asyncio.gather(*(each.ask("open") for each in workers))
        await until(lambda: ledger.size >= count, f"{count} steps are executed", within=stage.sizes.patience)
        await finish(stage, database, count)
        ended_ns = time.monotonic_ns()
        reports = [await each.ask("report") for each in workers]
    entries = ledger.entries()
    picked, won, cpu, commands = (sum(r[name] for r in reports) for name in ("picked", "won", "cpu", "commands"))
    seconds = (ended_ns - entries[0].at_ns) / 1e9
    lost = 1 - won / picked if picked else 0.0
    return Drain(count / seconds, lost, duplicates(entries), cpu / count, commands / count)
