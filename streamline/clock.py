"""The one source of time: instants for decisions, a monotonic reading for deadlines, and sleeping.

Decisions take ``now`` as an argument, so nothing below the engine reads a clock. `SystemClock` can be calibrated
against the server, so that workers whose wall clocks disagree still agree about what is due.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# CLOCK_BOOTTIME goes on while the machine is suspended; CLOCK_MONOTONIC would hide a lease lost in that time.
_MONOTONIC_CLOCK: int | None = getattr(time, "CLOCK_BOOTTIME", None)


class Clock(Protocol):
    """What the engine asks of a clock."""

    def now(self) -> datetime:
        """Return the present instant: aware UTC, whole milliseconds."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back and go on during suspension."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        ...

    def calibrate(self, server_now: datetime, *, round_trip: float) -> timedelta:
        """Take the server's instant as true and return by how much this clock was behind it."""
        ...


class SystemClock:
    """The machine's clock, monotonic between calibrations and set to the server's time by them."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - self._monotonic_ns()

    def now(self) -> datetime:
        """Return the present instant: aware UTC, whole milliseconds, as the database keeps them."""
        return _EPOCH + timedelta(milliseconds=(self._monotonic_ns() + self._offset_ns) // 1_000_000)

    def monotonic(self) -> float:
        """Return seconds that never go back and go on during suspension."""
        return self._monotonic_ns() / 1e9

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`; at once where that is not positive."""
        await asyncio.sleep(max(0.0, seconds))

    def calibrate(self, server_now: datetime, *, round_trip: float) -> timedelta:
        """Set the clock to the server's time.

        Args:
            server_now: The server's wall clock, read halfway through the round trip.
            round_trip: Seconds the reading took.

        Returns:
            How far the clock was behind the server; differences within the reading's own error change nothing.
        """
        behind = server_now + timedelta(seconds=round_trip / 2) - self.now()
        if abs(behind) > timedelta(seconds=round_trip / 2, milliseconds=2):
            self._offset_ns += int(behind.total_seconds() * 1e9)
        return behind

    @staticmethod
    def _monotonic_ns() -> int:
        if _MONOTONIC_CLOCK is None:
            return time.monotonic_ns()
        return time.clock_gettime_ns(_MONOTONIC_CLOCK)
