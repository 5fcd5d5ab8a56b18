"""How much of each workload is done: enough to measure, or just enough to see that it works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """Counts per round, and seconds."""

    runs: int = 3_000
    updates: int = 5_000
    ceilings: int = 800
    singles: int = 250
    pickups: int = 120
    answers: int = 80
    drained: int = 20_000
    crowd: int = 100_000
    pages: tuple[int, int] = (10_000, 1_000)
    batch: int = 10_000
    starts: int = 400
    counted: int = 1_000
    idle_seconds: float = 20.0
    memory_seconds: float = 8.0
    fleets: tuple[int, ...] = (2, 4)
    patience: float = 900.0


FULL = Sizes()
SMOKE = Sizes(
    runs=150,
    updates=200,
    ceilings=40,
    singles=15,
    pickups=8,
    answers=4,
    drained=200,
    crowd=1_000,
    pages=(700, 600),
    batch=200,
    starts=20,
    counted=100,
    idle_seconds=2.0,
    memory_seconds=1.0,
    patience=60.0,
)
