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

Listener = Callable[[Event], Awaitable[None] | None]


class Bus:
    """Tells listeners of events, and waiters that a run has changed."""

    def __init__(self) -> None:
        self._listeners: list[tuple[str, Listener]] = []
        self._waiting: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)
        self._ended: dict[str, Mapping[str, Any]] = {}
        self._calls: set[asyncio.Future[None]] = set()

    def on(self, glob: str, listener: Listener) -> Callable[[], None]:
        """Call `listener` with every event whose type matches `glob`; return a function that ends it."""
        entry = (glob, listener)
        self._listeners.append(entry)
        return lambda: self._listeners.remove(entry) if entry in self._listeners else None

    def publish(self, run_id: str, events: tuple[Mapping[str, Any], ...]) -> None:
        """Tell of events that have just been stored."""
        for stored in events if self._listeners else ():
            event = read_event(run_id, stored)
            for glob, listener in tuple(self._listeners):
                if fnmatchcase(event.type, glob):
                    self._call(listener, event)
        self.touch(run_id)

    def ended(self, document: Mapping[str, Any]) -> None:
        """Hand a finished run to whoever waits for it here."""
        run_id = document["_id"]
        if run_id in self._waiting:
            self._ended[run_id] = document
            self.touch(run_id)

    def touch(self, run_id: str) -> None:
        """Let everybody who waits for a change of this run look again."""
        for waiter in self._waiting.get(run_id, ()):
            _let_go(waiter)

    async def changed(self, run_id: str, timeout: float) -> Mapping[str, Any] | None:
        """Return after the run has changed or `timeout` seconds have passed: its document if it ended here, else None."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(max(0.0, timeout), _let_go, waiter)
        self._waiting[run_id].add(waiter)
        try:
            await waiter
            return self._ended.get(run_id)
        finally:
            timer.cancel()
            self._leave(run_id, waiter)

    def _leave(self, run_id: str, waiter: asyncio.Future[None]) -> None:
        self._waiting[run_id].discard(waiter)
        if not self._waiting[run_id]:
            del self._waiting[run_id]
            self._ended.pop(run_id, None)

    def _call(self, listener: Listener, event: Event) -> None:
        try:
            result = listener(event)
        except Exception:
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


def _let_go(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
