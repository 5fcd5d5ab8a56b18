"""A run that this worker holds: its document, its lease, and the handler at work on it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

from streamline.domain.change import Change
from streamline.domain.definition import Definition
from streamline.engine.runtime import Runtime
from streamline.errors import HeartbeatLost, RunNotFound, StoreUnavailable

logger = logging.getLogger("streamline.engine")


_AWAY_PAUSE = 0.1


class Interruptible(Protocol):
    """Something that can be told to end."""

    def interrupt(self, verdict: str) -> None:
        """End, for the reason given."""
        ...


class Holding:
    """One held run.

    Attributes:
        run: The document; nobody else may write it while the lease stands, so this copy is current after each commit.
        safe_until: Monotonic instant up to which the lease certainly stands.
        lost: Whether the lease is gone: nothing may be done for the run any more.
        stopping: Whether the worker wants to let go of the run as soon as it can.
    """

    __slots__ = ("_lock", "_runtime", "definition", "handler", "lost", "run", "safe_until", "stopping", "token")

    def __init__(self, runtime: Runtime, run: dict[str, Any], definition: Definition, safe_until: float) -> None:
        self._runtime = runtime
        self._lock = asyncio.Lock()
        self.run = run
        self.definition = definition
        self.token: str = run["lease"]["token"]
        self.safe_until = safe_until
        self.handler: Interruptible | None = None
        self.lost = False
        self.stopping = False

    @property
    def over(self) -> bool:
        """Whether there is nothing left to do here."""
        return self.lost or "lease" not in self.run

    def lose(self, verdict: str = "lost") -> None:
        """Give up the run: somebody else has it, or has ended it."""
        self.lost = True
        if self.handler is not None:
            self.handler.interrupt(verdict)

    def stop(self) -> None:
        """End the handler so that the run can be released."""
        self.stopping = True
        if self.handler is not None:
            self.handler.interrupt("stopping")

    async def commit(self, build: Callable[[dict[str, Any]], Change]) -> None:
        """Write the change that `build` makes of the run, again on a fresh copy where an operator came in between.

        Raises:
            HeartbeatLost: The lease is gone, and with it the change.
        """
        async with self._lock:
            while not self.lost and self._runtime.clock.monotonic() < self.safe_until:
                before = self.run.get("cursor")
                if await self._try(build(self.run)) or await self._moved_on(before):
                    return
        self.lose()
        raise HeartbeatLost(f"run {self.run['_id']}: the lease was lost")

    async def _try(self, change: Change) -> bool:
        try:
            return await self._runtime.commit(self.run, change)
        except StoreUnavailable:
            # The lease decides how long to go on: the heartbeat ends this loop once it can no longer be trusted.
            logger.warning("run %s: the database is away; trying again while the lease stands", self.run["_id"])
            await self._runtime.clock.sleep(_AWAY_PAUSE)
            return False

    async def _moved_on(self, before: int | None) -> bool:
        """Read the run again; return whether the change had taken effect after all."""
        try:
            fresh = await self._runtime.read(self.run["_id"])
        except StoreUnavailable:
            return False
        except RunNotFound:
            fresh = {}
        if (fresh.get("lease") or {}).get("token") != self.token:
            self.lose()
            return False
        self.run = fresh
        return bool(fresh.get("cursor") != before)
