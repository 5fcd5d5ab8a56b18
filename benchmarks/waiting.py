"""Waiting for something to come about, with a deadline."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

from benchmarks.rows import Malfunction

_LOOK_SECONDS = 0.01


async def until(reached: Callable[[], bool | Awaitable[bool]], what: str, *, within: float) -> None:
    """Return when it is reached; raise `Malfunction` where it is not in time."""
    deadline = time.monotonic() + within
    while True:
        answer = reached()
        if await answer if inspect.isawaitable(answer) else answer:
            return
        if time.monotonic() > deadline:
            raise Malfunction(f"not within {within:g} s: {what}")
        await asyncio.sleep(_LOOK_SECONDS)
