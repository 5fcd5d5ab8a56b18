"""W1, W1b: three-step runs that do nothing, started and awaited in the worker's own process."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks.flows import OUTPUT, STEPS, noop
from benchmarks.goals import at_least, at_most
from benchmarks.pacing import Pace, pace
from benchmarks.raw import LANES, show_raw
from benchmarks.rows import Malfunction, Row, ratio_row
from benchmarks.stage import Stage
from streamline import Streamline, Worker, Workflow

_WIDE = 256
_WARM_UP = 5  # the first fifth of a round is done once more beforehand


async def runs(app: Streamline, count: int, width: int, workflow: Workflow[Any, Any, Any] = noop) -> Pace:
    """Start and await runs, `width` in flight, each with an input of its own."""

    async def one(number: int) -> None:
        output: Any = await app.run(workflow, number)
        if output != OUTPUT:
            raise Malfunction(f"a run returned {output!r} instead of {OUTPUT}")

    return await pace(count, width, one)


async def measure(stage: Stage) -> list[Row]:
    """Measure with 64 in flight."""
    raws, ceilings, paces = await _rounds(stage, LANES)
    shown = f"{median(p.rate for p in paces):,.0f} runs/s; {show_raw(raws)}"
    pairs = list(zip(raws, paces, strict=True))
    latency = f"p99 {_ms(paces, 0.99)}; raw {_ms(raws, 0.99)}"
    cpu = f"{median(p.cpu_each for p in paces) * 1e6:.0f} us; raw {median(r.cpu_each for r in raws) * 1e6:.0f} us"
    return [
        _against_ceiling("W1", f"{LANES} in flight: runs / raw ceiling", ceilings, paces, at_least(3.0)),
        ratio_row("W1", "runs per second / raw ops per second", shown, _rates(pairs), at_least(0.9, 0.6)),
        ratio_row("W1", "p99 of a run / p99 of a raw op", latency, _p99s(pairs), at_most(1.0)),
        ratio_row("W1", "client CPU of a run / of a raw op", cpu, _cpus(pairs), at_most(0.8)),
    ]


async def measure_crowded(stage: Stage) -> list[Row]:
    """Measure with 256 in flight, against the ceiling at 64."""
    _, ceilings, paces = await _rounds(stage, _WIDE)
    what = f"{_WIDE} in flight: runs / raw ceiling at {LANES}"
    return [_against_ceiling("W1b", what, ceilings, paces, at_least(4.0, 2.4))]


async def _rounds(stage: Stage, width: int) -> tuple[list[Pace], list[Pace], list[Pace]]:
    raws, ceilings, paces = [], [], []
    worker = Worker() if width < Worker().concurrency else Worker(concurrency=2 * width)
    async with stage.database("w1") as database, stage.app(database, noop, worker=worker) as app:
        raw = await stage.raw(database)
        await runs(app, max(1, stage.sizes.runs // _WARM_UP), width)
        for _ in range(stage.rounds):
            raws.append(await raw.updates(stage.sizes.updates))
            paces.append(await runs(app, stage.sizes.runs, width))
            ceilings.append(await raw.ceilings(stage.sizes.ceilings, STEPS))
    return raws, ceilings, paces


def _against_ceiling(workload: str, what: str, ceilings: list[Pace], paces: list[Pace], goal: Any) -> Row:
    rate, ceiling = median(p.rate for p in paces), median(c.rate for c in ceilings)
    ratios = [p.rate / c.rate for p, c in zip(paces, ceilings, strict=True)]
    return ratio_row(workload, what, f"{rate:,.0f} runs/s; ceiling {ceiling:,.0f}", ratios, goal)


def _rates(pairs: list[tuple[Pace, Pace]]) -> list[float]:
    return [run.rate / raw.rate for raw, run in pairs]


def _p99s(pairs: list[tuple[Pace, Pace]]) -> list[float]:
    return [run.percentile(0.99) / raw.percentile(0.99) for raw, run in pairs]


def _cpus(pairs: list[tuple[Pace, Pace]]) -> list[float]:
    return [run.cpu_each / raw.cpu_each for raw, run in pairs]


def _ms(paces: list[Pace], share: float) -> str:
    return f"{median(p.percentile(share) for p in paces) * 1e3:.1f} ms"
