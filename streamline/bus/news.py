"""Who in this process listens to which events, and who waits for which run.

Nothing here is durable: it is told only what is stored already, and whoever needs certainty reads the database.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from streamline.domain.run import Event, read_event

logger = logging.getLogger("streamline.bus")

Document = Mapping[str, Any]
Listener = Callable[[Event], Awaitable[None] | None]
Fence = Callable[[str, str], None]
Waiter = asyncio.Future[Document | None]
Waiters = defaultdict[str, set[Waiter]]


class Bus:
    """Tells listeners of events, and waiters that a run has changed or ended."""

    def __init__(self) -> None:
        self._listeners: list[tuple[str, Listener]] = []
        self._followers: Waiters = defaultdict(set)
        self._enders: Waiters = defaultdict(set)
        self._fenced: list[Fence] = []
        self._calls: set[asyncio.Future[None]] = set()

    def on(self, glob: str, listener: Listener) -> Callable[[], None]:
        """Call `listener` with every event whose type matches `glob`; return a function that ends it."""
        entry = (glob, listener)
        self._listeners.append(entry)
        return lambda: self._listeners.remove(entry) if entry in self._listeners else None

    def on_fence(self, fence: Fence) -> Callable[[], None]:
        """Call `fence` with each run and lease that somebody has ended; return a function that ends it."""
        self._fenced.append(fence)
        return lambda: self._fenced.remove(fence) if fence in self._fenced else None

    def fence(self, run_id: str, token: str) -> None:
        """Tell whoever drives the run under this lease that it is over."""
        for fence in tuple(self._fenced):
            fence(run_id, token)

    def publish(self, run_id: str, events: tuple[Document, ...]) -> None:
        """Tell of events that have just been stored."""
        for stored in events if self._listeners else ():
            event = read_event(run_id, stored)
            for glob, listener in tuple(self._listeners):
                if fnmatchcase(event.type, glob):
                    self._call(listener, event)
        _resolve(self._followers, run_id, None)

    def ended(self, document: Document) -> None:
        """Hand a finished run to whoever waits for it here."""
        _resolve(self._enders, document["_id"], document)

    def touch(self, run_id: str) -> None:
        """Let everybody who waits for this run look again."""
        _resolve(self._followers, run_id, None)
        _resolve(self._enders, run_id, None)

    async def changed(self, run_id: str, timeout: float) -> None:
        """Return when the run has changed, or after `timeout` seconds."""
        await _wait(self._followers, run_id, timeout)

    async def end_of(self, run_id: str, timeout: float) -> Document | None:
        """Return the run's document when it ends here; None when it is time to look, or after `timeout` seconds."""
        return await _wait(self._enders, run_id, timeout)

    def _call(self, listener: Listener, event: Event) -> None:
        try:
            result = listener(event)
        except BaseException:
            logger.exception("a listener of %s failed", event.type)
            return
        if inspect.isawaitable(result):
            call = asyncio.ensure_future(result)
            self._calls.add(call)
            call.add_done_callback(self._called)

    def _called(self, call: asyncio.Future[None]) -> None:
        self._calls.discard(call)
        if not call.cancelled() and call.exception() is not None:
            logger.error("a listener failed", exc_info=call.exception())


async def _wait(waiters: Waiters, run_id: str, timeout: float) -> Document | None:
    loop = asyncio.get_running_loop()
    waiter: Waiter = loop.create_future()
    timer = loop.call_later(max(0.0, timeout), _settle, waiter, None)
    waiters[run_id].add(waiter)
    try:
        return await waiter
    finally:
        timer.cancel()
        waiters[run_id].discard(waiter)
        if not waiters[run_id]:
            del waiters[run_id]


def _resolve(waiters: Waiters, run_id: str, document: Document | None) -> None:
    for waiter in waiters.get(run_id, ()):
        _settle(waiter, document)


def _settle(waiter: Waiter, document: Document | None) -> None:
    if not waiter.done():
        waiter.set_result(document)
