"""Catching up, once in the life of a deployment: with what was written before every process knew of the log."""

from __future__ import annotations

from datetime import datetime, timedelta

from streamline.engine.facts import FACTS_SECONDS
from streamline.engine.outbox import FACT
from streamline.engine.runtime import Runtime
from streamline.store import statements

_PAGE = 2000
_FIRST = ""
# By then every process has read that the log is wanted, and what it wrote before is stored.
_EVERYBODY_KNOWS = timedelta(seconds=3 * FACTS_SECONDS)


class CatchingUp:
    """Goes through the runs twice: at once, and when every process knows."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._after = _FIRST
        self._rounds = 0

    async def go_on(self) -> bool:
        """Look at some runs; return whether there is more to look at now."""
        facts, now = self._runtime.facts, self._runtime.clock.now()
        since: datetime | None = facts.get(f"{FACT}.since")
        if since is None or facts.get(f"{FACT}.caught_up") is not None:
            return False
        if self._rounds and self._after == _FIRST and now < since + _EVERYBODY_KNOWS:
            return False
        if await self._look_at_page(since, now):
            return True
        self._rounds += 1
        if self._rounds > 1:
            await facts.put(f"{FACT}.caught_up", now)
        return False

    async def _look_at_page(self, since: datetime, now: datetime) -> bool:
        found = await self._runtime.store.run(statements.find_runs_after(self._after, _PAGE))
        fresh = [run["_id"] for run in found if "updated_at" in run and run["updated_at"] >= since - _EVERYBODY_KNOWS]
        if fresh:
            await self._runtime.store.run(statements.mark_runs(fresh, now))
        self._after = found[-1]["_id"] if len(found) == _PAGE else _FIRST
        return self._after != _FIRST
