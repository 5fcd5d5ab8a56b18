"""A clock that tests move by hand."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from streamline.clock import SystemClock


class MovableClock:
    """The machine's clock, set forward by hand; sleeping takes real time."""

    def __init__(self) -> None:
        self._real = SystemClock()
        self._ahead = timedelta()

    def move(self, **by: float) -> None:
        self._ahead += timedelta(**by)

    def now(self) -> datetime:
        return self._real.now() + self._ahead

    def monotonic(self) -> float:
        return self._real.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))

    def calibrate(self, server_now: datetime, *, round_trip: float) -> timedelta:
        return timedelta()


LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
