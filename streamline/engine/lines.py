"""Calling up runs that wait in line for a slot: as soon as one is given back, and now and then whatever was heard.

That a slot is free is seen from the runs themselves, so nothing is lost where the process dies that gave one back:
the next look of any other finds the line and the free slot.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

from streamline.domain.flow import Concurrency
from streamline.domain.transitions import gating
from streamline.engine.admission import Admission
from streamline.engine.gates.slots import Slots, concurrency_of
from streamline.engine.runtime import SLOTS, Runtime
from streamline.errors import StreamlineError
from streamline.settings import Worker
from streamline.store import statements

logger = logging.getLogger("streamline.engine")

_KEYS_IN_A_PASS = 100
_BUSY_SECONDS = 1.0
_ROUNDS = 20


class Lines:
    """Lets the first in line have what is free.

    Args:
        runtime: The app's parts.
        room: How many more runs this worker can take.
        admission: Takes runs.
        settings: How often to look.
    """

    def __init__(self, runtime: Runtime, room: Callable[[], int], admission: Admission, settings: Worker) -> None:
        self._runtime = runtime
        self._room = room
        self._admission = admission
        self._period = settings.poll_seconds
        self._batch = settings.claim_batch
        self._served: dict[str, bool] = {}
        self._serving: set[asyncio.Future[None]] = set()
        self._after = ""
        self._news = asyncio.Event()

    def listen(self) -> Callable[[], None]:
        """Serve a line whenever a slot of its key is given back; return a function that ends it."""
        bus = self._runtime.bus
        facts = self._runtime.facts
        forget = (
            bus.on_freed(self.serve_soon), bus.on_hint(SLOTS, self._news.set), facts.on_change(self._news.set)
        )  # fmt: skip

        def end() -> None:
            for each in forget:
                each()

        return end

    async def run_once(self) -> float:
        """Serve lines that somebody waits in; return the pause until the next look."""
        self._news.clear()
        keys = await self._keys()
        for key in keys:
            await self.serve(key)
        pause = min(_BUSY_SECONDS, self._period) if keys else self._period
        return pause * random.uniform(0.8, 1.2)

    async def wait(self, seconds: float) -> None:
        """Return after so many seconds, or when another process says that a slot is free."""
        waiting = asyncio.ensure_future(self._news.wait())
        try:
            await asyncio.wait((waiting,), timeout=seconds)
        finally:
            waiting.cancel()

    def serve_soon(self, slot_key: str) -> None:
        """Serve a line in the background; once more where it is being served already."""
        if slot_key in self._served:
            self._served[slot_key] = True
            return
        self._served[slot_key] = False
        task = asyncio.ensure_future(self._serve_on(slot_key))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def settle(self) -> None:
        """Return when lines that are being served have been."""
        if self._serving:
            await asyncio.wait(self._serving)

    async def serve(self, slot_key: str) -> None:
        """Give the free slots of a key to the first in its line."""
        workflow = slot_key.partition("/")[0]
        policy = concurrency_of(self._runtime, workflow, "")
        if self._runtime.registry.latest(workflow) is None or self._runtime.is_held_up(workflow):
            return
        limit = self._batch if policy is None else min(policy.limit, self._batch)
        for _ in range(_ROUNDS):
            first = await self._first(slot_key, policy, limit)
            # Those that a throttle puts off leave the line, and what is free is the next ones'.
            if not first or await self._call(first) == len(first):
                return

    async def _first(self, slot_key: str, policy: Concurrency | None, limit: int) -> list[dict[str, Any]]:
        """Return those in front for whom there are slots."""
        queued = await self._runtime.store.run(statements.find_queued(slot_key, limit))
        if not queued or policy is None:
            return queued
        return queued[: len(await Slots(self._runtime).free(slot_key, policy.limit))]

    async def _call(self, first: Sequence[dict[str, Any]]) -> int:
        """Take those in front where this worker can, and let others take the rest; return for how many that worked."""
        routes = self._runtime.routes
        taken = [run["_id"] for run in first if run["route"] in routes][: self._room()]
        count = await self._admission.take(taken) if taken else 0
        now = self._runtime.clock.now()
        for run in (run for run in first if run["_id"] not in taken):
            if await self._runtime.commit(run, gating.call_up(run, now)):
                self._runtime.announce(run["route"], now)
                count += 1
        return count

    async def _keys(self) -> list[str]:
        keys: list[str] = []
        while len(keys) < _KEYS_IN_A_PASS:
            found = await self._runtime.store.run(statements.find_queue(self._after))
            if not found:
                self._after = ""
                return keys
            key = found[0]["slot_key"]
            workflow = key.partition("/")[0]
            if self._runtime.registry.latest(workflow) is None:
                self._after = f"{workflow}0"  # past all keys of a workflow that others serve
                continue
            self._after = key
            keys.append(key)
        return keys

    async def _serve_on(self, slot_key: str) -> None:
        try:
            again = True
            while again:
                self._served[slot_key] = False
                await self.serve(slot_key)
                again = self._served[slot_key]
        except StreamlineError as error:
            logger.debug("a line was not served: %s", type(error).__name__)  # the next look does
        finally:
            del self._served[slot_key]
