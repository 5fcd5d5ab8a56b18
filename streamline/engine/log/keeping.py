"""Keeping a subscriber: how far it is goes into its record, together with the lease, in one fenced write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from streamline.engine.pauses import within
from streamline.engine.runtime import Runtime
from streamline.errors import StoreUnavailable
from streamline.features.delivery_windows import Window
from streamline.store import statements
from streamline.store.operations import WriteMany

# Between two saves: what was delivered within it may be delivered again after a kill.
_SAVE_PAUSE = 0.01


class LeaseLost(Exception):
    """Another process drives the subscriber, or may."""


class Keeping:
    """Saves the position of a subscriber and what it holds back, and extends its lease.

    Args:
        runtime: The app's parts.
        record: The subscriber as it is stored, with the lease that was taken.
        window: How far it is.
        safe_until: Monotonic instant up to which the lease certainly stands.
    """

    def __init__(self, runtime: Runtime, record: Mapping[str, Any], window: Window, safe_until: float) -> None:
        self._runtime = runtime
        self._name: str = record["_id"]
        self._token: str = record["lease"]["token"]
        self._saves: int = record["saves"]
        self._saved: Mapping[str, Any] = {}
        self._window = window
        self._safe_until = safe_until
        self._lease = runtime.settings.subscriber_lease_time
        self._stirred = asyncio.Event()
        self._stopping = False

    def stir(self) -> None:
        """There is something to save."""
        self._stirred.set()

    def stop(self) -> None:
        """Save what is still to come, and end."""
        self._stopping = True
        self._stirred.set()

    async def run(self, is_idle: Callable[[], bool]) -> None:
        """Save whenever something has changed, and beat in between; until it is told to stop and nothing is at work.

        Raises:
            LeaseLost: The lease is gone, or can no longer be trusted.
        """
        while True:
            await within(self._lease.total_seconds() / 4, self._stirred)
            self._stirred.clear()
            is_last = self._stopping and is_idle()
            if (put := self._window.record()) != self._saved or not is_last:
                await self._save(put)
            if is_last:
                return
            await self._runtime.clock.sleep(_SAVE_PAUSE)

    async def save(self) -> None:
        """Save once more, if that is possible."""
        with suppress(LeaseLost):
            await self._save(self._window.record())

    async def _save(self, put: Mapping[str, Any]) -> None:
        sent, until = self._runtime.clock.monotonic(), self._runtime.clock.now() + self._lease
        # What has not changed is not sent again.
        changed = {name: value for name, value in put.items() if self._saved.get(name) != value}
        statement = statements.save_subscriber(self._name, self._token, self._saves, changed, until)
        # Deliveries end before the lease can have run out.
        allowed = self._safe_until - self._lease.total_seconds() / 4 - sent
        saving = asyncio.ensure_future(self._save_as(statement))
        await asyncio.wait((saving,), timeout=allowed)
        if not saving.done() or not saving.result():
            raise LeaseLost
        self._saves, self._saved = self._saves + 1, put
        self._safe_until = sent + self._lease.total_seconds()

    async def _save_as(self, statement: WriteMany) -> bool:
        """Return whether a save took effect, also where its answer was lost; False where the database is away."""
        with suppress(StoreUnavailable):
            return bool(await self._runtime.store.run(statement)) or await self._is_saved()
        return False

    async def _is_saved(self) -> bool:
        for found in await self._runtime.store.run(statements.find_meta(self._name, "subscribers")):
            lease = found.get("lease") or {}
            return bool(lease.get("token") == self._token and found["saves"] == self._saves + 1)
        return False
