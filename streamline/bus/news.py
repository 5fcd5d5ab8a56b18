"""Who in this process listens to which events, and who waits for which run.

Nothing here is durable: it is told only what is stored already, and whoever needs certainty reads the database.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from streamline.domain.run import Event, read_event

logger = logging.getLogger("streamline.bus")

STORED = "stored"  # the hint, within this process, that events of runs were stored

Document = Mapping[str, Any]
Listener = Callable[[Event], Awaitable[None] | None]
Fence = Callable[[str, str], None]
Alarm = Callable[[datetime], None]
Waiter = asyncio.Future[Document | None]
Waiters = defaultdict[str, set[Waiter]]


class Bus:
    """Tells listeners of events, and waiters that a run has changed or ended."""

    def __init__(self) -> None:
        self._listeners: list[tuple[str, Listener]] = []
        self._followers: Waiters = defaultdict(set)
        self._enders: Waiters = defaultdict(set)
        self._fenced: list[Fence] = []
        self._alarms: list[Alarm] = []
        self._news: list[Callable[[str], None]] = []
        self._freed: list[Callable[[str], None]] = []
        self._hints: dict[str, list[Callable[[], None]]] = defaultdict(list)
        self._closers: list[Callable[[dict[str, Any]], None]] = []
        self._carriers: list[Callable[[dict[str, Any]], None]] = []
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

    def on_due(self, alarm: Alarm) -> Callable[[], None]:
        """Call `alarm` with each instant at which a run of this process falls due; return a function that ends it."""
        self._alarms.append(alarm)
        return lambda: self._alarms.remove(alarm) if alarm in self._alarms else None

    def due(self, instant: datetime) -> None:
        """Tell whoever takes runs here that one falls due."""
        for alarm in tuple(self._alarms):
            alarm(instant)

    def on_closed(self, closer: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
        """Call `closer` with each run that is ended here by somebody who does not drive it; return what ends it."""
        self._closers.append(closer)
        return lambda: self._closers.remove(closer) if closer in self._closers else None

    def closed(self, run: dict[str, Any]) -> None:
        """Tell that a run was ended by somebody who does not drive it."""
        for closer in tuple(self._closers):
            closer(run)

    def on_posted(self, carrier: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
        """Call `carrier` with each event that was stored here and is to be delivered; return what ends it."""
        self._carriers.append(carrier)
        return lambda: self._carriers.remove(carrier) if carrier in self._carriers else None

    def posted(self, event: dict[str, Any]) -> None:
        """Tell that an event is stored and is to be delivered."""
        for carrier in tuple(self._carriers):
            carrier(event)

    def on_news(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Call `listener` with each run that somebody wrote while it is driven; return a function that ends it."""
        self._news.append(listener)
        return lambda: self._news.remove(listener) if listener in self._news else None

    def news(self, run_id: str) -> None:
        """Tell whoever drives the run that somebody has written it."""
        for listener in tuple(self._news):
            listener(run_id)

    def on_freed(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Call `listener` with the key of each slot that is given back here; return a function that ends it."""
        self._freed.append(listener)
        return lambda: self._freed.remove(listener) if listener in self._freed else None

    def freed(self, slot_key: str) -> bool:
        """Tell that a slot was given back; return whether anybody here listens."""
        for listener in tuple(self._freed):
            listener(slot_key)
        return bool(self._freed)

    def on_hint(self, name: str, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` whenever there may be something new of this name; return a function that ends it."""
        listeners = self._hints[name]
        listeners.append(listener)
        return lambda: listeners.remove(listener) if listener in listeners else None

    def hint(self, name: str) -> None:
        """Tell whoever looks after things of this name that there may be something new."""
        for listener in tuple(self._hints.get(name, ())):
            listener()

    def say(self, event: Event) -> None:
        """Tell listeners of something that is not stored, such as a frame of a stream."""
        for glob, listener in tuple(self._listeners):
            if fnmatchcase(event.type, glob):
                self._call(listener, event)

    def publish(self, run_id: str, events: tuple[Document, ...], tenant_id: str | None) -> None:
        """Tell of events of a tenant's run that have just been stored."""
        for stored in events if self._listeners else ():
            self.say(read_event(run_id, stored, tenant_id))
        if events:
            self.hint(STORED)
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
