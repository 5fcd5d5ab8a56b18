"""Waiting for what must come, with a deadline, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = 20.0  # seconds; far more than anything here takes, so that a slow machine fails no test


async def eventually(look: Callable[[], Awaitable[T] | T], *, within: float = PATIENCE, every: float = 0.01) -> T:
    """Return what `look` answers as soon as that is true; fail where it is not by the deadline."""
    deadline = time.monotonic() + within
    while True:
        seen: Any = look()
        if inspect.isawaitable(seen):
            seen = await seen
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"not seen within {within:g} s; last answer: {seen!r}")
        await asyncio.sleep(every)


async def status_of(handle: Any, *statuses: str) -> Any:
    """Return the run once it has one of the statuses."""

    async def look() -> Any:
        run = await handle.get()
        return run if run.status in statuses else None

    return await eventually(look)
