"""Doing something many times, so many at once, and what that took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """How a number of operations went.

    Args:
        latencies: Seconds of each.
        seconds: From the first to the last.
        cpu: Seconds of CPU that this process spent meanwhile.
    """

    latencies: tuple[float, ...]
    seconds: float
    cpu: float = 0.0

    @property
    def rate(self) -> float:
        """Operations per second."""
        return len(self.latencies) / self.seconds

    @property
    def cpu_each(self) -> float:
        """Seconds of this process's CPU per operation."""
        return self.cpu / len(self.latencies)

    def percentile(self, share: float) -> float:
        """Return the latency that this share of the operations did not exceed."""
        return percentile(self.latencies, share)


def percentile(values: tuple[float, ...] | list[float], share: float) -> float:
    """Return the value that this share of `values` does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def pace(count: int, width: int, work: Callable[[int], Awaitable[object]]) -> Pace:
    """Do `work` `count` times, `width` at once; it is told in which lane it is done."""
    left, latencies = iter(range(count)), []

    async def lane(number: int) -> None:
        for _ in left:
            began = time.perf_counter()
            await work(number)
            latencies.append(time.perf_counter() - began)

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(lane(number) for number in range(width)))
    return Pace(tuple(latencies), time.perf_counter() - began, time.process_time() - cpu)
