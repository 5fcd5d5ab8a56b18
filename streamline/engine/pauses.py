"""Waiting for something, but not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from streamline.errors import StreamlineError

T = TypeVar("T")


async def within(seconds: float, *events: asyncio.Event) -> None:
    """Return when one of the events is set, or after so many seconds.

    A cancellation always gets through: `asyncio.wait_for` loses one that comes together with the event.
    """
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def attempt(work: Awaitable[T], seconds: float) -> T | None:
    """Return what `work` does, or None where it fails or takes longer: for what is good to have done before the end."""
    task = asyncio.ensure_future(work)
    await asyncio.wait((task,), timeout=seconds)
    if not task.done():
        task.cancel()
        return None
    if isinstance(task.exception(), StreamlineError):
        return None
    return task.result()
