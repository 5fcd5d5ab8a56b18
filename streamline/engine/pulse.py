"""What is known of a background loop from outside: whether it goes on, and when a pass last ended well."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from streamline.clock import Clock
from streamline.engine.loops import Breaker, repeat


class Pulse:
    """A loop in a task of its own.

    Args:
        name: For the log, and for whoever asks how it is.
        clock: Tells the time.
        run_once: As for `repeat`.
        wait: As for `repeat`.

    Attributes:
        task: Runs the loop.
        passed_at: Monotonic instant at which a pass ended well; None before the first.
    """

    def __init__(
        self,
        name: str,
        clock: Clock,
        run_once: Callable[[], Awaitable[float]],
        wait: Callable[[float], Awaitable[None]],
    ) -> None:
        self.name = name
        self.passed_at: float | None = None
        self._clock = clock
        self._run_once = run_once
        self._began_at: float | None = None
        self._breaker = Breaker()
        self.task = asyncio.ensure_future(repeat(name, self._pass, wait, self._breaker))

    @property
    def is_failing(self) -> bool:
        """Whether the last pass failed."""
        return self._breaker.open

    @property
    def under_way(self) -> float:
        """For how many seconds the present pass has been under way; 0 between passes."""
        return 0.0 if self._began_at is None else self._clock.monotonic() - self._began_at

    @property
    def age(self) -> float | None:
        """How many seconds ago a pass ended well; None before the first."""
        return None if self.passed_at is None else self._clock.monotonic() - self.passed_at

    async def _pass(self) -> float:
        self._began_at = self._clock.monotonic()
        try:
            pause = await self._run_once()
        finally:
            self._began_at = None
        self.passed_at = self._clock.monotonic()
        return pause
