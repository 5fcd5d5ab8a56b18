"""Waiting for something, but not for ever."""

from __future__ import annotations

import asyncio


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
