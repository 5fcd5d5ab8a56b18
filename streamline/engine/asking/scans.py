"""Slow questions: why they are, said once in a while; and the index that would help."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from streamline.domain.run import Event
from streamline.engine.runtime import Runtime
from streamline.store import Scope
from streamline.store.operations import Aggregate, Find
from streamline.store.shapes import missing_index, shape_of

logger = logging.getLogger("streamline.queries")

_AGAIN_SECONDS = 60.0
_SHAPES = 256
# A scan looks at this many runs at least, and at this many for each that it finds.
_MANY, _FAR_MORE = 1_000, 10


@dataclass(frozen=True, slots=True)
class _Slow:
    """A read that took long: its shape, the index that is missing, and how many runs it found."""

    shape: str
    index: str | None
    found: int


class Scans:
    """Lets the server explain reads that took long: one at a time, and each shape once a minute at most.

    It is done beside whoever asked, who has the answer by then.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._looked_at: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    def suspect(self, statement: Find | Aggregate, scope: Scope, seconds: float, found: int) -> None:
        """Look into a read that took so long to find so many, unless that was done lately or another one is on."""
        if seconds < self._runtime.settings.slow_query_seconds or not (self._task is None or self._task.done()):
            return
        query = scope.confine(statement.filter)
        shape, now = f"{statement.name}: {shape_of(query)}", self._runtime.clock.monotonic()
        if now - self._looked_at.get(shape, now - _AGAIN_SECONDS) < _AGAIN_SECONDS:
            return
        self._looked_at.pop(shape, None)
        if len(self._looked_at) >= _SHAPES:
            del self._looked_at[next(iter(self._looked_at))]
        self._looked_at[shape] = now
        self._task = asyncio.ensure_future(self._look(statement, scope, _Slow(shape, missing_index(query), found)))

    async def _look(self, statement: Find | Aggregate, scope: Scope, slow: _Slow) -> None:
        examined = await self._runtime.store.examined_by(statement, scope)
        if examined is not None and examined >= max(_MANY, _FAR_MORE * slow.found):
            self._say(slow, examined, scope)

    def _say(self, slow: _Slow, examined: int, scope: Scope) -> None:
        runs, now = self._runtime.store.driver.runs, self._runtime.clock.now()
        advice = f"create an index on {runs}: {slow.index}" if slow.index else "narrow it by workflow or created_after"
        logger.warning("%s: looked at %d runs to find %d; %s", slow.shape, examined, slow.found, advice)
        told = {"shape": slow.shape, "examined": examined, "found": slow.found, "advice": advice}
        self._runtime.bus.say(Event("", 0, "query.scanned", now, data=told, tenant_id=scope.tenant_id))

    async def close(self) -> None:
        """Look into nothing any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
