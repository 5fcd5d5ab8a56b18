"""The relay: takes what marked runs have to tell into the log, so that others learn of it without reading the runs."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta

from streamline.engine.log.catching_up import CatchingUp
from streamline.engine.outbox import MARKED, RELAY
from streamline.engine.pauses import attempt, within
from streamline.engine.runtime import Runtime
from streamline.ids import new_token, new_worker_id
from streamline.store import statements

_LEASE = timedelta(seconds=2)
_PAUSE, _IDLE = 1.0, 60.0
_BATCH = 200
_PURGE_SECONDS, _RELEASE_SECONDS = 30.0, 2.0


async def relay_some(runtime: Runtime) -> int:
    """Relay the oldest marks; return how many runs there were."""
    found = await runtime.store.run(statements.find_marked(_BATCH))
    if found:
        await runtime.outbox.relay(found)
    return len(found)


async def relay_all(runtime: Runtime) -> None:
    """Relay what is marked, whoever else does."""
    while runtime.outbox.is_on and await relay_some(runtime) == _BATCH:
        pass


class Relay:
    """Relays where no other process does; a second one at the same time costs commands, nothing else."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._outbox = runtime.outbox
        self._worker, self._token = new_worker_id(), new_token()
        self._catching_up = CatchingUp(runtime)
        self._told, self._freed = asyncio.Event(), asyncio.Event()
        self._kept_until: float | None = None
        self._next_purge = 0.0
        self._forget = (
            runtime.bus.on_hint(MARKED, self._told.set),
            runtime.bus.on_hint(RELAY, self._freed.set),
            runtime.facts.on_change(self._told.set),
        )

    async def run_once(self) -> float:
        """Relay some runs; return the pause until the next look."""
        if not self._outbox.is_on:
            return _IDLE
        if not await self._is_mine():
            return random.uniform(0.5, 1.0) * _LEASE.total_seconds()
        more = await self._catching_up.go_on()
        count = await relay_some(self._runtime)
        await self._purge()
        return 0.0 if more or count == _BATCH else _PAUSE

    async def wait(self, seconds: float) -> None:
        """Wait so long, or until something is marked; where another process relays, until that one stops."""
        told = self._told if self._kept_until is not None or not self._outbox.is_on else self._freed
        await within(seconds, told)
        told.clear()

    async def stop(self) -> None:
        """Let another process relay at once."""
        for forget in self._forget:
            forget()
        self._outbox.is_relayed_here = False
        if self._kept_until is not None:
            release = statements.release_lease(RELAY, self._token, "meta")
            if await attempt(self._runtime.store.run(release), _RELEASE_SECONDS):
                self._runtime.hint(RELAY)

    async def _is_mine(self) -> bool:
        """Take the lease or keep it; it spares the others the work, and decides nothing."""
        now = self._runtime.clock.monotonic()
        if self._kept_until is not None and now < self._kept_until - _LEASE.total_seconds() / 2:
            return True
        instant = self._runtime.clock.now()
        lease = {"worker": self._worker, "token": self._token, "until": instant + _LEASE}
        taken = await self._runtime.store.run(statements.take_lease(RELAY, lease, instant, "meta"))
        self._kept_until = now + _LEASE.total_seconds() if taken else None
        self._outbox.is_relayed_here = bool(taken)
        return bool(taken)

    async def _purge(self) -> None:
        now = self._runtime.clock.monotonic()
        if now >= self._next_purge:
            self._next_purge = now + _PURGE_SECONDS * random.uniform(0.8, 1.2)
            await self._outbox.log.purge(self._runtime.clock.now() - self._runtime.settings.log_time)
