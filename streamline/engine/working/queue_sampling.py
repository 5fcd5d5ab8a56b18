"""Counting what is due, now and then, where somebody measures: whoever collects must not wait for the database."""

from __future__ import annotations

from streamline.engine.runtime import Runtime
from streamline.errors import StoreUnavailable
from streamline.store import statements
from streamline.telemetry import TELEMETRY, SeenQueue, Waiting

_SECONDS = 10.0
_SHARE_OF_COST = 20.0  # where many are due, counting them must not become work of its own


class QueueSampling:
    """Keeps the number of due runs, and since when the first of them is due, for the gauges."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._queue = SeenQueue(runtime.store.driver.database.name)

    async def run_once(self) -> float:
        """Count what is due, if anybody measures; return the pause until the next count."""
        TELEMETRY.look()
        if TELEMETRY.meters is None:
            self.stop()
            return _SECONDS
        clock = self._runtime.clock
        began, now = clock.monotonic(), clock.now()
        try:
            found = await self._runtime.store.run(statements.count_due(now))
        except StoreUnavailable:
            self.stop()  # an old number would look like a queue that does not move
            raise
        self._queue.waiting = [
            Waiting(each["_id"], each["n"], max(0.0, (now - each["oldest"]).total_seconds())) for each in found
        ]
        return max(_SECONDS, _SHARE_OF_COST * (clock.monotonic() - began))

    def stop(self) -> None:
        """Forget what was counted."""
        self._queue.waiting = ()
