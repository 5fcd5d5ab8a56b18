"""Plain functions in threads: what they raise comes back as a value."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def call_guarded(function: Callable[..., Any], *args: Any) -> tuple[Any, BaseException | None]:
    """Call `function` and return its value, or what it raised: a future cannot carry a StopIteration or SystemExit."""
    try:
        return function(*args), None
    except BaseException as error:  # noqa: BLE001 - whatever it is, the step that called must hear of it
        return None, error


async def in_thread(threads: ThreadPoolExecutor, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Return what a plain function returns, called in a thread; where the task is cancelled, once it has ended."""
    job = threads.submit(contextvars.copy_context().run, call_guarded, fn, *args)
    work = asyncio.wrap_future(job)
    try:
        value, error = await asyncio.shield(work)
    except asyncio.CancelledError:
        # A thread cannot be interrupted: nothing else may begin while it is at work.
        if not job.cancel():
            await asyncio.wait((work,))
        raise
    if error is not None:
        raise error
    return value
