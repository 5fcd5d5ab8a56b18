"""Calling up runs that wait in line for a slot: as soon as one is given back, and now and then whatever was heard.

That a slot is free is seen from the runs themselves, so nothing is lost where the process dies that gave one back:
the next look of any other finds the line and the free slot.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from streamline.domain.flow import Concurrency
from streamline.domain.transitions import gating
from streamline.engine.gates.slots import Slots, concurrency_of, throttle_of
from streamline.engine.gates.throttles import Throttles
from streamline.engine.pauses import within
from streamline.engine.runtime import SLOTS, Runtime
from streamline.engine.working.admission import Admission
from streamline.errors import StreamlineError
from streamline.settings import Worker
from streamline.store import statements
from streamline.store.statements.about_runs import EPOCH

logger = logging.getLogger("streamline.engine")

_KEYS_IN_A_PASS = 100
_BUSY_SECONDS = 1.0
_IDLE_FACTOR = 12
_ROUNDS = 20
_TAKING_SECONDS = 0.02  # by then those who may begin have, and it is known when the next may


class Lines:
    """Lets the first in line have what is free.

    Args:
        runtime: The app's parts.
        room: How many more runs this worker can take.
        admission: Takes runs.
        throttles: Say whose turn has not come.
        settings: How often to look.
    """

    def __init__(
        self,
        runtime: Runtime,
        room: Callable[[], int],
        admission: Admission,
        throttles: Throttles,
        settings: Worker,
    ) -> None:
        self._runtime = runtime
        self._room = room
        self._admission = admission
        self._throttles = throttles
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._period = settings.poll_seconds
        self._batch = settings.claim_batch
        self._served: dict[str, bool] = {}
        self._serving: set[asyncio.Future[None]] = set()
        self._after = ""
        self._has_ended = False
        self._news = asyncio.Event()

    def listen(self) -> Callable[[], None]:
        """Serve a line whenever a slot of its key is given back; return a function that ends it."""
        bus = self._runtime.bus
        facts = self._runtime.facts
        forget = (
            bus.on_freed(self.serve_soon), bus.on_hint(SLOTS, self._news.set), facts.on_change(self._news.set)
        )  # fmt: skip

        def end() -> None:
            self._has_ended = True
            for each in (*forget, *(timer.cancel for timer in self._timers.values())):
                each()

        return end

    async def run_once(self) -> float:
        """Serve lines that somebody waits in; return the pause until the next look."""
        self._news.clear()
        keys = await self._keys()
        for key in keys:
            await self._serve_alone(key)
        pause = self._period if self._is_concerned() else self._period * _IDLE_FACTOR
        if keys:
            pause = min(_BUSY_SECONDS, self._period)
        return pause * random.uniform(0.8, 1.2)

    def _is_concerned(self) -> bool:
        """Return whether anything that is started here is limited; what an older version has left in line can wait."""
        return any(definition.concurrency is not None for definition in self._runtime.registry.definitions)

    async def wait(self, seconds: float) -> None:
        """Return after so many seconds, or when another process says that a slot is free."""
        await within(seconds, self._news)

    def serve_soon(self, slot_key: str) -> None:
        """Serve a line in the background; once more where it is being served already."""
        if slot_key in self._served:
            self._served[slot_key] = True
            return
        self._served[slot_key] = False
        task = asyncio.ensure_future(self._serve_on(slot_key))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve_alone(self, slot_key: str) -> None:
        """Serve a line, unless it is being served already: two who take the same runs would waste their turns."""
        if slot_key in self._served:
            self._served[slot_key] = True
            return
        self._served[slot_key] = False
        try:
            await self.serve(slot_key)
        finally:
            again = self._served.pop(slot_key)
        if again:
            self.serve_soon(slot_key)

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
            # Those that a throttle puts off after all leave the line, and what is free is the next ones'.
            if not first or await self._call(first) == len(first):
                return

    async def _front(self, slot_key: str, limit: int) -> list[dict[str, Any]]:
        """Return the first in line whose turn has come; who is throttled lets others pass, and keeps its place."""
        throttle = throttle_of(self._runtime, slot_key.partition("/")[0], "")
        front, rooms = dict[str, dict[str, Any]](), dict[str, int]()
        full, opens = set[str](), dict[str, datetime]()
        while True:
            found = await self._runtime.store.run(statements.find_queued(slot_key, limit, sorted(full)))
            was_full = len(full)
            for run in (run for run in found if run["_id"] not in front):
                key = run.get("throttle_key")
                if throttle is None or not isinstance(key, str):
                    front[run["_id"]] = run
                    continue
                if key not in rooms:
                    rooms[key], opens[key] = await self._throttles.room(key, throttle)
                if rooms[key] > 0:
                    rooms[key] -= 1
                    front[run["_id"]] = run
                else:
                    full.add(key)
            if len(full) == was_full or len(found) < limit or len(front) >= limit:
                break
        if full:
            self._serve_at(slot_key, min(opens[key] for key in full))
        return sorted(front.values(), key=_rank)

    def _serve_at(self, slot_key: str, instant: datetime) -> None:
        if slot_key in self._timers:
            self._timers.pop(slot_key).cancel()
        seconds = max(_TAKING_SECONDS, (instant - self._runtime.clock.now()).total_seconds())

        def serve() -> None:
            del self._timers[slot_key]
            self.serve_soon(slot_key)

        if seconds < 2 * _BUSY_SECONDS and not self._has_ended:  # else a later look comes across it
            self._timers[slot_key] = asyncio.get_running_loop().call_later(seconds, serve)

    async def _first(self, slot_key: str, policy: Concurrency | None, limit: int) -> list[dict[str, Any]]:
        """Return those in front for whom there are slots."""
        queued = await self._front(slot_key, limit)
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


def _rank(run: Mapping[str, Any]) -> tuple[int, datetime, str]:
    """Return what puts runs in order: larger priority first, then older; damaged ones must not stand in the way."""
    priority, created_at = run.get("priority"), run.get("created_at")
    return (
        -priority if isinstance(priority, int) else 0,
        created_at if isinstance(created_at, datetime) else EPOCH,
        run["_id"],
    )
