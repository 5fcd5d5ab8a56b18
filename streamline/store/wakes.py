"""The wake channel: a small capped collection through which processes tell one another that something is due.

A wake is a hint, never the truth: it is unjournaled, may be lost, and nobody relies on it. One tailable cursor per
process reads it; what a process has to say while a wake is on its way is said in one further insert.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from pymongo.errors import CollectionInvalid, OperationFailure, PyMongoError

from streamline.clock import Clock
from streamline.store.driver import HINT, Driver

T = TypeVar("T")

logger = logging.getLogger("streamline.store")

_NAMESPACE_EXISTS = 48
_IDS_IN_A_WAKE = 500


@dataclass(frozen=True, slots=True)
class Wake:
    """What a process tells the others.

    Args:
        due: Routes of runs that fall due, with the earliest instant.
        ended: Ids of runs that have ended.
        fenced: Ids of runs that somebody has ended, each with the token of the lease that is over.
        news: Ids of runs that somebody has written while they are driven.
        hints: Names of what else there is to look at.
    """

    due: dict[str, datetime]
    ended: tuple[str, ...] = ()
    fenced: tuple[tuple[str, str], ...] = ()
    news: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()


class WakeChannel:
    """Sends wakes, gathered while one is in flight, and listens for those of other processes.

    Attributes:
        heard_at: Monotonic instant at which the server answered last, be it that there is nothing to hear.
    """

    def __init__(self, driver: Driver, clock: Clock, *, sender: str, size: int) -> None:
        self._driver = driver
        self._clock = clock
        self._sender = sender
        self._size = size
        self._due: dict[str, datetime] = {}
        self._ended: set[str] = set()
        self._fenced: set[tuple[str, str]] = set()
        self._news: set[str] = set()
        self._hints: set[str] = set()
        self._sending: asyncio.Task[None] | None = None
        self.heard_at = clock.monotonic()

    async def ensure(self) -> None:
        """Create the capped collection; a tailable cursor needs a first document to stand on."""
        try:
            await self._driver.command({"create": self._driver.wakes, "capped": True, "size": self._size})
        except (CollectionInvalid, OperationFailure) as error:
            if getattr(error, "code", _NAMESPACE_EXISTS) != _NAMESPACE_EXISTS:
                raise
            return
        await self._insert({"at": self._clock.now(), "by": self._sender})

    async def exists(self) -> bool:
        """Return whether the capped collection is there; any other one of its name would not do."""
        answer = await self._driver.command({"listCollections": 1, "filter": {"name": self._driver.wakes}})
        return any(each.get("options", {}).get("capped") for each in answer["cursor"]["firstBatch"])

    def due(self, route: str, at: datetime) -> None:
        """Tell the others that a run of this route falls due at an instant."""
        self._due[route] = min(at, self._due.get(route, at))
        self._send_soon()

    def ended(self, run_id: str) -> None:
        """Tell the others that a run has ended."""
        self._ended.add(run_id)
        self._send_soon()

    def fenced(self, run_id: str, token: str) -> None:
        """Tell the others that whoever drives this run under this lease has lost it."""
        self._fenced.add((run_id, token))
        self._send_soon()

    def news(self, run_id: str) -> None:
        """Tell whoever drives this run that somebody has written it."""
        self._news.add(run_id)
        self._send_soon()

    def hint(self, name: str) -> None:
        """Tell the others that there is something new of this name."""
        self._hints.add(name)
        self._send_soon()

    async def listen(self) -> AsyncIterator[Wake]:
        """Yield the wakes of other processes from now on; ends when the cursor does."""
        query = {"at": {"$gte": self._clock.now()}, "by": {"$ne": self._sender}}
        async for document in self._driver.tail(self._driver.wakes, query, self._heard):
            self._heard()
            yield _read(document)

    def _heard(self) -> None:
        self.heard_at = self._clock.monotonic()

    async def close(self) -> None:
        """Let what was said leave."""
        if self._sending is not None:
            await asyncio.wait({self._sending}, timeout=1.0)

    def _send_soon(self) -> None:
        if self._sending is None:
            self._sending = asyncio.ensure_future(self._send())

    async def _send(self) -> None:
        try:
            while self._due or self._ended or self._fenced or self._news or self._hints:
                await self._insert(self._gathered())
        except (PyMongoError, OSError) as error:
            logger.debug("a wake was lost: %s", type(error).__name__)
        finally:
            self._sending = None

    def _gathered(self) -> dict[str, Any]:
        due, self._due = self._due, {}
        wake: dict[str, Any] = {"at": self._clock.now(), "by": self._sender}
        if due:
            wake["due"] = [[route, at] for route, at in due.items()]
        wake |= _portion("ended", self._ended) | _portion("fenced", self._fenced)
        return wake | _portion("news", self._news) | _portion("hints", self._hints)

    async def _insert(self, document: dict[str, Any]) -> None:
        await self._driver.command({"insert": self._driver.wakes, "documents": [document], "writeConcern": HINT})


def _portion(name: str, ids: set[T]) -> dict[str, list[T]]:
    taken = [ids.pop() for _ in range(min(len(ids), _IDS_IN_A_WAKE))]
    return {name: taken} if taken else {}


def _read(document: dict[str, Any]) -> Wake:
    due = dict(document.get("due", ()))
    fenced = tuple((run_id, token) for run_id, token in document.get("fenced", ()))
    ended, news, hints = (tuple(document.get(name, ())) for name in ("ended", "news", "hints"))
    return Wake(due, ended, fenced, news, hints)
