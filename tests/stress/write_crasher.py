"""A process that starts a run, works on it and all that follows from it, and dies at one of its writes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from typing import Any

from streamline import Streamline
from streamline.errors import StreamlineError
from tests.stress.ledger import Ledger
from tests.stress.saboteur import kind_of
from tests.stress.target import Opening, tell_log


def live_until_a_write(options: dict[str, Any]) -> None:
    """Start a run and die at the `at`-th write, before it is sent or when it is applied; 0 is to live."""
    asyncio.run(_live(options))


async def _live(options: dict[str, Any]) -> None:
    opening = Opening(**options["opening"])
    ledger = Ledger(opening.ledger, options["name"])
    tell_log(ledger)
    async with opening.app(ledger) as app:
        counter = _Counter(app, ledger, options["moment"], options["at"])
        name, value = options["workflow"], {"n": options["at"], "pace": options["pace"]}
        ledger.write("asking", run=name)
        try:
            await app.start(name, value, run_id=name)
            await app.handle(name).wait(60)
        except StreamlineError as error:
            ledger.write("gave_up", run=name, error=repr(error))
            raise
        await asyncio.sleep(0.2)  # what follows from the end of the run is written, too
        ledger.write("survived", run=name, writes=counter.writes)


class _Counter:
    """Between the engine and its driver: counts what is written of runs and memos, heartbeats apart, and dies."""

    def __init__(self, app: Streamline, ledger: Ledger, moment: str, at: int) -> None:
        driver = app._open_session.runtime.store.driver
        self._send = driver.command
        self._collections = {driver.runs, driver.named("memo")}
        self._ledger = ledger
        self._moment = moment
        self._at = at
        self.writes = 0
        driver.command = self._command  # type: ignore[method-assign]

    async def _command(self, command: Mapping[str, Any]) -> dict[str, Any]:
        if not self._is_counted(command):
            return await self._send(command)
        self.writes += 1
        mine = self.writes == self._at
        if mine and self._moment == "before":
            self._die()
        answer = await self._send(command)
        if mine:
            self._die()
        return answer

    def _is_counted(self, command: Mapping[str, Any]) -> bool:
        kind = next(iter(command))
        if command[kind] not in self._collections or kind not in ("insert", "update", "delete"):
            return False
        return kind != "update" or kind_of(command, command[kind]) is not None

    def _die(self) -> None:
        self._ledger.write("kill", name=self._ledger.by)
        os.kill(os.getpid(), signal.SIGKILL)
