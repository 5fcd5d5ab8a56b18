"""One module per kind of workload; each returns its lines of the result."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from benchmarks.rows import Row
from benchmarks.stage import Stage
from benchmarks.workloads import (
    accounting,
    answering,
    batching,
    crowding,
    draining,
    fleets,
    gating,
    idling,
    latency,
    listing,
    memory,
    pickup,
    throughput,
)

Measure = Callable[[Stage], Awaitable[list[Row]]]

WORKLOADS: dict[str, Measure] = {
    "W1": throughput.measure,
    "W1b": throughput.measure_crowded,
    "COST": accounting.measure,
    "W2": latency.measure,
    "W3": pickup.measure,
    "W4": answering.measure,
    "W5": draining.measure,
    "W6": fleets.measure,
    "W8": crowding.measure,
    "W9": listing.measure,
    "W10": batching.measure,
    "W11": idling.measure,
    "W12": memory.measure,
    "GATES": gating.measure,
}
