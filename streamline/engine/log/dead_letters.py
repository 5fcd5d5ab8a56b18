"""Events that a subscriber's handler has failed on for good: put aside, and tried again where somebody asks for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from streamline.domain.run import Event, entry_of, read_entry
from streamline.engine.pauses import within
from streamline.engine.runtime import Runtime
from streamline.features.subscriptions import Subscription, told_of
from streamline.store import statements
from streamline.telemetry import about

logger = logging.getLogger("streamline.engine")

_LOOK_SECONDS = 5.0
_BATCH = 100


class DeadLetters:
    """The dead letters of one subscriber, as its driver deals with them.

    Args:
        runtime: The app's parts.
        subscription: The subscriber.
        attempt: Delivers an event, and returns what went wrong.
    """

    def __init__(
        self,
        runtime: Runtime,
        subscription: Subscription,
        attempt: Callable[[Event], Awaitable[BaseException | None]],
    ) -> None:
        self._runtime = runtime
        self._name = subscription.name
        self._attempt = attempt
        self._told = asyncio.Event()

    def look(self) -> None:
        """Somebody may want some to be tried again."""
        self._told.set()

    async def put_aside(self, event: Event, error: BaseException, attempts: int) -> None:
        """Store an event that is not to be delivered any more, before what comes after it is."""
        told = told_of(error)
        fields = about({**event, "_id": event.run_id}, event.step, event.attempt)
        said = "subscriber %s: event %s of run %s: put aside: %s"
        logger.error(said, self._name, event.seq, event.run_id, told, extra=fields)
        letter = {
            "_id": f"{self._name}/{event.position}",
            "of": self._name,
            "tenant_id": event.tenant_id,
            "position": event.position,
            "entry": entry_of(event),
            "attempts": attempts,
            "error": told,
            "died_at": self._runtime.clock.now(),
        }
        await self._runtime.store.run(statements.insert_meta(letter, "subscribers"))

    async def run(self, stopping: asyncio.Event) -> None:
        """Deliver again what is asked for, one after the other, until told to stop."""
        while not stopping.is_set():
            found = await self._runtime.store.run(statements.find_asked_again(self._name, _BATCH))
            for letter in found:
                await self._redeliver(letter)
            if not found:
                await within(_LOOK_SECONDS, stopping, self._told)
                self._told.clear()

    async def _redeliver(self, letter: Mapping[str, Any]) -> None:
        error = await self._attempt(read_entry(letter["entry"]))
        if error is None:
            await self._runtime.store.run(statements.discard_dead(self._name, [letter["position"]]))
            return
        put = {"error": told_of(error), "attempts": letter["attempts"] + 1}
        await self._runtime.store.run(statements.settle_dead(letter["_id"], put))
