"""A background loop: one pass after another for as long as the worker lives, whatever a pass runs into."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import TypeVar

from streamline.errors import StoreUnavailable

T = TypeVar("T")

logger = logging.getLogger("streamline.engine")

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0


class Breaker:
    """Spaces out passes while they fail: open for a pause that doubles, then one trial, for ever."""

    def __init__(self) -> None:
        self._pause = FIRST_PAUSE
        self.open = False

    def failed(self) -> float:
        """Return how long to wait before the next trial, in seconds."""
        pause, self._pause, self.open = self._pause, min(self._pause * 2, LONGEST_PAUSE), True
        return pause

    def succeeded(self) -> None:
        """Close: the next failure begins with the shortest pause."""
        self._pause, self.open = FIRST_PAUSE, False


async def repeat(
    name: str, run_once: Callable[[], Awaitable[float]], wait: Callable[[float], Awaitable[None]], breaker: Breaker
) -> None:
    """Run passes until cancelled.

    Args:
        name: For the log.
        run_once: One pass, not broken off by a cancellation; returns the seconds to wait before the next.
        wait: Waits that long, or less where something makes another pass worthwhile.
        breaker: Decides the pauses while passes fail.
    """
    while True:
        try:
            pause = await unbroken(run_once())
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - a loop that ends would leave the worker deaf
            _report(name, error, repeated=breaker.open)
            await wait(breaker.failed())
            continue
        breaker.succeeded()
        await wait(pause)


async def unbroken(work: Awaitable[T]) -> T:
    """Return what `work` does; a cancellation takes effect once it is done, so that no claim is left half made."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait((task,))
        if not task.cancelled():
            task.exception()  # nobody is left who wants to know
        raise


async def end(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel loops and return when they have ended; a cancellation that a library swallows is repeated."""
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=1.0)


def _report(name: str, error: Exception, *, repeated: bool) -> None:
    if repeated:
        logger.debug("%s failed again: %s", name, type(error).__name__)
    elif isinstance(error, StoreUnavailable):
        logger.warning("%s: the database is away; trying again until it is back", name)
    else:
        logger.exception("%s failed; trying again", name)
