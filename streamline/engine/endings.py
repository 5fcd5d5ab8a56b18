"""Waiting for runs to end or change: hints first, and a look at the database in growing intervals."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from streamline.domain.run import Event, read_event
from streamline.domain.statuses import TERMINAL
from streamline.engine.runtime import Runtime
from streamline.errors import InvalidQuery, ResultTimeout
from streamline.store import Scope

OnAsking = Callable[[dict[str, Any]], Awaitable[None]]

_FIRST_LOOK, _LONGEST_LOOK, _GROWTH = 0.02, 1.0, 1.5
_HELD_LOOK = 5.0
_EVENTS = {"born": 1, "events": 1, "status": 1, "tenant_id": 1}


class Endings:
    """Lets callers wait for runs.

    Args:
        runtime: The app's parts.
        held: Returns the run as this process drives it, so that its end will be told here without a look, or None.
    """

    def __init__(self, runtime: Runtime, held: Callable[[str], Mapping[str, Any] | None]) -> None:
        self._runtime = runtime
        self._held = held

    async def wait(
        self, run_id: str, scope: Scope, timeout: float | None, on_asking: OnAsking | None = None
    ) -> dict[str, Any]:
        """Return the run's document once it has ended.

        Args:
            run_id: The run.
            scope: Where it is looked for.
            timeout: In seconds.
            on_asking: Told the run whenever it is seen to wait for somebody.

        Raises:
            RunNotFound: There is no such run in scope.
            ResultTimeout: It did not end within `timeout` seconds.
        """
        deadline = None if timeout is None else self._runtime.clock.monotonic() + timeout
        pause = _FIRST_LOOK
        while True:
            if not self._drives(run_id, scope):
                run = await self._runtime.read(run_id, scope)
                if run["status"] in TERMINAL:
                    return run
                if on_asking is not None and "waiting_since" in run:
                    await on_asking(run)
            left = _LONGEST_LOOK if deadline is None else deadline - self._runtime.clock.monotonic()
            if left <= 0:
                raise ResultTimeout(f"run {run_id} did not end within {timeout:g} s; it goes on", field="timeout")
            longest = _HELD_LOOK if self._drives(run_id, scope) else pause
            ended = await self._runtime.bus.end_of(run_id, longest if deadline is None else min(longest, left))
            if ended is not None and scope.admits(ended):
                return dict(ended)
            pause = min(pause * _GROWTH, _LONGEST_LOOK)

    def _drives(self, run_id: str, scope: Scope) -> bool:
        run = self._held(run_id)
        return run is not None and scope.admits(run)

    async def events(self, run_id: str, scope: Scope, after: int) -> AsyncIterator[Event]:
        """Yield the run's events with a number above `after`, as they come, until it has ended."""
        if isinstance(after, bool) or not isinstance(after, int):
            raise InvalidQuery("after: the number of an event", field="after")
        pause = _FIRST_LOOK
        while True:
            run = await self._runtime.read(run_id, scope, _EVENTS)
            fresh = [stored for stored in run["events"] if stored["seq"] > after]
            if fresh and fresh[0]["seq"] > after + 1 and self._runtime.outbox.is_on:
                async for event in self._from_log(run, after, fresh[0]["seq"]):
                    yield event
            for stored in fresh:
                yield read_event(run_id, stored, run.get("tenant_id"))
            if run["status"] in TERMINAL:
                return
            after, pause = (fresh[-1]["seq"], _FIRST_LOOK) if fresh else (after, min(pause * _GROWTH, _LONGEST_LOOK))
            await self._runtime.bus.changed(run_id, pause)

    async def _from_log(self, run: Mapping[str, Any], after: int, before: int) -> AsyncIterator[Event]:
        """Yield the events that the run keeps no more: the log had them before they went."""
        while found := await self._runtime.outbox.log.read_run(run["_id"], after):
            for entry in found:
                if entry["seq"] >= before:
                    return
                if entry.get("born") == run.get("born"):  # and not of another run that had the id
                    yield read_event(run["_id"], entry["event"], entry["tenant_id"])
            after = found[-1]["seq"]
