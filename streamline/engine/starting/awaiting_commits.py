"""Making runs known that were started in a transaction, once that is over: a commit calls nobody back.

What is told here is only a hint: a worker that looks for due runs finds them anyway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from streamline.engine.loops import end
from streamline.engine.runtime import Runtime
from streamline.errors import StoreUnavailable
from streamline.store import statements
from streamline.store.operations import Insert
from streamline.store.sessions import InSession

# The server ends a transaction after a minute; whoever has set it another limit waits for the next look of a worker.
_GIVE_UP_SECONDS: Final = 300.0
_FIRST_PAUSE, _SHARE_OF_WAIT, _LONGEST_PAUSE = 0.001, 0.1, 0.1


class AwaitingCommits:
    """Looks after the sessions that runs were started in, each for as long as its transaction is under way."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._started: dict[int, list[Insert]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, work: InSession, inserts: Sequence[Insert]) -> None:
        """Make these runs known once they are there."""
        if not work.in_transaction:
            self._tell(inserts)
            return
        key = id(work.session)
        if key in self._started:
            self._started[key] += inserts
            return
        self._started[key] = list(inserts)
        task = asyncio.ensure_future(self._watch(work, key))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Look no longer."""
        await end(tuple(self._tasks))

    async def _watch(self, work: InSession, key: int) -> None:
        """See when the transaction is over: asking the session costs nothing."""
        clock = self._runtime.clock
        began = clock.monotonic()
        try:
            while work.in_transaction and (waited := clock.monotonic() - began) < _GIVE_UP_SECONDS:
                await clock.sleep(min(_LONGEST_PAUSE, _FIRST_PAUSE + _SHARE_OF_WAIT * waited))
        finally:
            inserts = self._started.pop(key)
        with suppress(StoreUnavailable):
            self._tell(await self._committed(inserts))

    async def _committed(self, inserts: Sequence[Insert]) -> list[Insert]:
        marks = {insert.run_id: insert.mark for insert in inserts}
        found = await self._runtime.store.run(statements.find_marks(list(marks)))
        there = {each["_id"] for each in found if each.get("born") == marks[each["_id"]]}
        return [insert for insert in inserts if insert.run_id in there]

    def _tell(self, inserts: Sequence[Insert]) -> None:
        for insert in inserts:
            self._runtime.newborn(insert.document)
        for route, due_at in {(each.document["route"], each.document["due_at"]) for each in inserts}:
            self._runtime.announce(route, due_at)
