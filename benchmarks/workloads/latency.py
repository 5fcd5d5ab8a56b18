"""W2: one three-step run after the other, from its start to its result."""

from __future__ import annotations

from statistics import median

from benchmarks.flows import STEPS, noop
from benchmarks.goals import at_most
from benchmarks.pacing import Pace, pace
from benchmarks.rows import Row, ratio_row
from benchmarks.stage import Stage
from benchmarks.workloads.throughput import runs

_IN_A_TURN = 5


async def measure(stage: Stage) -> list[Row]:
    """Measure raw updates and runs in turns."""
    rounds: list[tuple[Pace, Pace]] = []
    async with stage.database("w2") as database, stage.app(database, noop) as app:
        raw = await stage.raw(database)
        await runs(app, _IN_A_TURN, 1)
        for _ in range(stage.rounds):
            updates, singles = [], []
            for _ in range(max(1, stage.sizes.singles // _IN_A_TURN)):
                updates.append(await pace(_IN_A_TURN, 1, raw.update))
                singles.append(await runs(app, _IN_A_TURN, 1))
            rounds.append((_together(updates), _together(singles)))
    ratios = [run.percentile(0.5) / (STEPS + 1) / update.percentile(0.5) for update, run in rounds]
    p50, p99 = (median(run.percentile(share) for _, run in rounds) * 1e3 for share in (0.5, 0.99))
    raw_p50 = median(update.percentile(0.5) for update, _ in rounds) * 1e3
    shown = f"p50 {p50:.2f} ms, p99 {p99:.2f} ms; raw p50 {raw_p50:.2f} ms"
    return [ratio_row("W2", f"p50 of a run / {STEPS + 1} raw updates", shown, ratios, at_most(1.25, 2.0))]


def _together(parts: list[Pace]) -> Pace:
    return Pace(tuple(seconds for part in parts for seconds in part.latencies), sum(part.seconds for part in parts))
