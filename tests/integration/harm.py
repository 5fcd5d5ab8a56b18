"""An app whose process dies at one of its writes, or never hears what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from pymongo.errors import AutoReconnect

from streamline import Streamline

WRITES = ("insert", "update", "delete")
MOMENTS = ("before", "applied", "lost")


class Harm:
    """Between an app and its driver: lets a write die, or its answer be lost.

    Args:
        app: The app, open already.
        at: At which write to the runs or the collections that are named, heartbeats apart, from 1; 0 for none.
        moment: ``"before"`` it is sent or when it is ``"applied"`` the process dies; or its answer is ``"lost"``.
        collections: Beside the runs.
    """

    def __init__(self, app: Streamline, at: int, moment: str, collections: tuple[Any, ...] = ("gates",)) -> None:
        self.driver = app._open_session.runtime.store.driver
        self._command, self._find = self.driver.command, self.driver.find
        self._collections = {self.driver.runs, *map(self.driver.named, collections)}
        self.at, self.moment, self.writes, self.dead = at, moment, list[str](), asyncio.Event()
        self.driver.command = self.command  # type: ignore[method-assign]
        self.driver.find = self.find  # type: ignore[method-assign]

    async def command(self, command: Mapping[str, Any]) -> dict[str, Any]:
        await self._silence()
        mine = self._is_counted(command) and len(self.writes) == self.at
        if mine and self.moment == "before":
            await self._die()
        answer = await self._command(command)
        if mine and self.moment == "applied":
            await self._die()
        await self._silence()
        if mine and self.moment == "lost":
            raise AutoReconnect("the answer was lost")
        return answer

    async def find(self, *arguments: Any) -> list[Any]:
        await self._silence()
        return await self._find(*arguments)

    def _is_counted(self, command: Mapping[str, Any]) -> bool:
        kind = next(iter(command))
        if kind not in WRITES or command[kind] not in self._collections:
            return False
        if kind == "update" and set(command["updates"][0]["u"].get("$max", ())) == {"lease.until"}:
            return False
        self.writes.append(kind)
        return True

    async def _die(self) -> None:
        self.dead.set()
        await self._silence()

    async def _silence(self) -> None:
        if self.dead.is_set():
            raise AutoReconnect("the process is dead")
