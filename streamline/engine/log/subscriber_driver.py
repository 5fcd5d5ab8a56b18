"""Driving a subscriber: one process at a time, whichever is there; taken over within a lease of its death."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from streamline.engine.log.delivering import Delivering, Delivery
from streamline.engine.log.keeping import LeaseLost
from streamline.engine.loops import Breaker, repeat
from streamline.engine.pauses import attempt, within
from streamline.engine.runtime import Runtime
from streamline.features.subscriptions import Subscription
from streamline.ids import new_token, new_worker_id
from streamline.store import statements

logger = logging.getLogger("streamline.engine")

HINT = "subscribers"
_LONGEST_PAUSE, _RELEASE_SECONDS = 5.0, 2.0


class SubscriberDriver:
    """Delivers to a subscriber that is stored, whenever no other process does.

    Args:
        runtime: The app's parts.
        subscription: What is wanted, by the name under which it is stored.
        deliver: Gets each event; what it raises fails the delivery. It may run again for the same event.
        prepare: Done before anything else, and again until it succeeds.
    """

    def __init__(
        self,
        runtime: Runtime,
        subscription: Subscription,
        deliver: Delivery,
        prepare: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._runtime = runtime
        self._subscription = subscription
        self._deliver = deliver
        self._prepare = prepare
        self.id = new_worker_id()
        self._told = asyncio.Event()
        self._tenure: Delivering | None = None
        self._stopping = False
        self._work: asyncio.Task[None] | None = None
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look whether the subscriber is free."""
        self._forget = self._runtime.bus.on_hint(HINT, self._look)
        name = f"delivering to subscriber {self._subscription.name}"
        self._loop = asyncio.ensure_future(repeat(name, self.run_once, self._wait, Breaker()))

    async def stop(self, drain: float) -> None:
        """End; deliveries at work are let finish for `drain` seconds, then cancelled."""
        self._stopping = True
        if self._loop is None:
            return
        self._forget()
        self._told.set()
        if self._tenure is not None:
            self._tenure.stop()
        if self._work is not None:
            await asyncio.wait((self._work,), timeout=drain)
        self._loop.cancel()
        if self._work is not None:
            self._work.cancel()
        await asyncio.wait((self._loop,))

    async def run_once(self) -> float:
        """Drive the subscriber where it is free, until the lease is lost; return the pause until the next look."""
        if self._stopping:
            return _LONGEST_PAUSE
        if self._prepare is not None:
            await self._prepare()
            self._prepare = None
        token, sent = new_token(), self._runtime.clock.monotonic()
        record = await self._take(token)
        lease = (record or {}).get("lease") or {}
        if record is None or lease.get("token") != token:
            until = lease.get("until")
            left = _LONGEST_PAUSE if until is None else (until - self._runtime.clock.now()).total_seconds()
            return min(max(left, 0.02), _LONGEST_PAUSE)
        safe_until = sent + self._runtime.settings.subscriber_lease_time.total_seconds()
        try:
            if not self._stopping:
                await self._drive(record, safe_until)
        finally:
            await self._release(token)
        return 0.0

    async def _drive(self, record: Mapping[str, Any], safe_until: float) -> None:
        self._tenure = Delivering(self._runtime, self._subscription, self._deliver, record, safe_until)
        self._work = asyncio.ensure_future(self._tenure.run())
        try:
            with suppress(LeaseLost):
                await self._work
        except asyncio.CancelledError:
            await self._tenure.save()
        finally:
            self._tenure = self._work = None

    async def _take(self, token: str) -> Mapping[str, Any] | None:
        """Take the subscriber where it is free; return its record, which tells whose it is."""
        name, now = self._subscription.name, self._runtime.clock.now()
        until = now + self._runtime.settings.subscriber_lease_time
        lease = {"worker": self.id, "token": token, "until": until}
        await self._runtime.store.run(statements.take_lease(name, lease, now, "subscribers"))
        found = await self._runtime.store.run(statements.find_meta(name, "subscribers"))
        return found[0] if found else None

    async def _release(self, token: str) -> None:
        release = statements.release_lease(self._subscription.name, token, "subscribers")
        if await attempt(self._runtime.store.run(release), _RELEASE_SECONDS):
            self._runtime.hint(HINT)

    def _look(self) -> None:
        self._told.set()
        if self._tenure is not None:
            self._tenure.look()

    async def _wait(self, seconds: float) -> None:
        await within(seconds, self._told)
        self._told.clear()
