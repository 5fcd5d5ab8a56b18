"""W3: runs started by another process, picked up by an idle worker."""

from __future__ import annotations

import time

from benchmarks.flows import single_step
from benchmarks.goals import at_most
from benchmarks.pacing import percentile
from benchmarks.processes import assistant
from benchmarks.rows import Malfunction, Row
from benchmarks.stage import Stage


async def measure(stage: Stage) -> list[Row]:
    """Measure from the start's return to the first step's beginning; both processes read the machine's one clock."""
    entered: dict[str, int] = {}

    def enter(run_id: str) -> None:
        entered.setdefault(run_id, time.monotonic_ns())

    flow = single_step(enter, "pickup")
    count = stage.sizes.pickups * stage.rounds
    async with (
        stage.database("w3") as database,
        stage.app(database, flow),
        assistant("starter_process", uri=stage.uri, database=database, workflow=flow.name, count=count) as starter,
    ):
        told = await starter.hear(within=stage.sizes.patience)
    returned: dict[str, int] = told["returned"]
    if missing := returned.keys() - entered.keys():
        raise Malfunction(f"{len(missing)} of {count} runs were not picked up within a second")
    delays = [max(0, entered[run_id] - at) / 1e6 for run_id, at in returned.items()]
    raw_p50 = percentile(told["raw"], 0.5) * 1e3
    p50, p99 = percentile(delays, 0.5), percentile(delays, 0.99)
    shown = f"p50 {p50:.2f} ms, p99 {p99:.2f} ms; raw p50 {raw_p50:.2f} ms"
    return [
        Row("W3", "pickup by an idle worker, p50", shown, p50, at_most(5, 10, unit="ms"), unit="ms"),
        Row("W3", "pickup by an idle worker, p99", shown, p99, at_most(15, 40, unit="ms"), unit="ms"),
        Row("W3", "p50 / p50 of a raw update", shown, p50 / raw_p50, at_most(3.0)),
    ]
