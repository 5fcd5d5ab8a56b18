"""Between the engine and its driver: counts the writes to runs and does harm at one of them.

Heartbeats are not counted: when they come is a matter of time, and the enumeration of crash points must not be.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from streamline import Streamline

Harm = Callable[[], Awaitable[None] | None]


class Saboteur:
    """Does harm once, at the `at`-th write that an app sends.

    Args:
        app: The app, open already: what it took to open it is not counted.
        moment: ``"before"`` the write is sent; ``"applied"``, when the database has carried it out and the engine does
            not know yet; or ``"after"``, when the engine has had its first moment with the answer.
        at: Which write, from 1; 0 for none.
        harm: What happens then.
    """

    def __init__(self, app: Streamline, moment: str, at: int, harm: Harm) -> None:
        driver = app._open_session.runtime.store.driver
        self._runs = driver.runs
        self._send = driver.command
        self._moment = moment
        self._at = at
        self._harm = harm
        self.writes: list[str] = []
        self.done = False
        driver.command = self._command  # type: ignore[method-assign]

    async def _command(self, command: Mapping[str, Any]) -> dict[str, Any]:
        kind = kind_of(command, self._runs)
        if kind is None:
            return await self._send(command)
        self.writes.append(kind)
        mine = len(self.writes) == self._at
        if mine and self._moment == "before":
            await self._do()
        answer = await self._send(command)
        if mine and self._moment == "applied":
            await self._do()
        if mine and self._moment == "after":
            asyncio.get_running_loop().call_later(0.002, self._harm)
        return answer

    async def _do(self) -> None:
        self.done = True
        doing = self._harm()
        if doing is not None:
            await doing


def kind_of(command: Mapping[str, Any], runs: str) -> str | None:
    """Return what a command does to runs: ``insert``, ``claim`` or ``advance``; None for anything else."""
    if command.get("insert") == runs:
        return "insert"
    if command.get("update") != runs:
        return None
    update = command["updates"][0]
    if not update.get("multi"):
        return "advance"
    return None if set(update["u"].get("$set", ())) <= {"lease.until"} else "claim"


def die() -> None:
    """End this process at once, as the kernel or a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)
