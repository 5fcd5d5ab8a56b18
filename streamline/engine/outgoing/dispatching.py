"""Having webhooks delivered: a driver for each endpoint that is enabled, as long as it is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from streamline.engine.log.subscriber_driver import HINT as RELEASED
from streamline.engine.log.subscriber_driver import SubscriberDriver
from streamline.engine.outgoing.endpoint_book import HINT, can_post
from streamline.engine.pauses import within
from streamline.engine.runtime import Runtime
from streamline.features.subscriptions import Subscription
from streamline.store import statements

if TYPE_CHECKING:
    from streamline.engine.outgoing.courier import Courier

logger = logging.getLogger("streamline.engine")

_LOOK_SECONDS = 5.0
_IDLE_SECONDS = 60.0
_SHORTEST_PAUSE = 0.05
_DRAIN_SECONDS = 1.0


@dataclass(slots=True)
class Served:
    """An endpoint that this process delivers to, when no other does."""

    stored: Mapping[str, Any]
    courier: Courier
    driver: SubscriberDriver

    def is_about(self, stored: Mapping[str, Any]) -> bool:
        """Return whether what is stored now is the same endpoint, with the same wishes."""
        mine = self.stored
        is_same = mine["webhook"].get("born") == stored["webhook"].get("born")
        return is_same and all(mine.get(name) == stored.get(name) for name in ("on", "workflow"))

    def is_elsewhere(self, stored: Mapping[str, Any], now: datetime) -> bool:
        """Return whether another process delivers."""
        return _held_for(stored, now) > 0 and stored["lease"]["worker"] != self.driver.id


class Dispatching:
    """Keeps to what is stored of endpoints: those that are new are served, those that are gone or disabled are not."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._served: dict[str, Served] = {}
        self._told = asyncio.Event()
        bus = runtime.bus
        self._forget = (
            bus.on_hint(HINT, self._told.set),
            bus.on_hint(RELEASED, self._told.set),
            runtime.facts.on_change(self._told.set),
        )

    async def run_once(self) -> float:
        """Look what is stored; return the pause until the next look."""
        if not self._runtime.outbox.is_on:
            return _IDLE_SECONDS  # the first endpoint switches it on
        found = await self._runtime.store.run(statements.find_webhooks())
        wanted = {stored["_id"]: stored for stored in found if "disabled_at" not in stored}
        if wanted and not can_post():
            return _LOOK_SECONDS  # others deliver
        now = self._runtime.clock.now()
        unwanted = [name for name, served in self._served.items() if not _is_wanted(served, wanted.get(name), now)]
        await asyncio.gather(*(self._dismiss(name, _DRAIN_SECONDS) for name in unwanted))
        pause = _LOOK_SECONDS
        for name, stored in wanted.items():
            if name in self._served:
                self._served[name].stored = stored
                self._served[name].courier.change(stored)
            elif (left := _held_for(stored, now)) > 0:
                # One read for all that others deliver to, rather than a driver for each that asks in vain.
                pause = min(pause, max(left, _SHORTEST_PAUSE))
            else:
                self._serve_if_possible(name, stored)
        return pause

    async def wait(self, seconds: float) -> None:
        """Wait so long, or until something is changed."""
        await within(seconds, self._told)
        self._told.clear()

    async def stop(self, drain: float) -> None:
        """Deliver no more; what is on its way has `drain` seconds."""
        for forget in self._forget:
            forget()
        await asyncio.gather(*(self._dismiss(name, drain) for name in tuple(self._served)))

    def _serve_if_possible(self, name: str, stored: Mapping[str, Any]) -> None:
        try:
            self._serve(name, stored)
        except Exception:
            # One that is damaged must not hold up the others.
            logger.exception("webhook endpoint %s cannot be delivered to", name)

    def _serve(self, name: str, stored: Mapping[str, Any]) -> None:
        from streamline.engine.outgoing.courier import Courier  # noqa: PLC0415 - needs an extra, here only

        subscription = Subscription(
            name,
            on=stored["on"],
            workflow=stored.get("workflow"),
            retry=self._runtime.settings.webhook_retry,
            tenants=frozenset({stored.get("tenant_id")}),
        )
        courier = Courier(self._runtime, stored)
        driver = SubscriberDriver(self._runtime, subscription, courier.deliver)
        self._served[name] = Served(stored, courier, driver)
        driver.start()

    async def _dismiss(self, name: str, drain: float) -> None:
        served = self._served.pop(name)
        await served.driver.stop(drain)
        await served.courier.close()


def _is_wanted(served: Served, stored: Mapping[str, Any] | None, now: datetime) -> bool:
    return stored is not None and served.is_about(stored) and not served.is_elsewhere(stored, now)


def _held_for(stored: Mapping[str, Any], now: datetime) -> float:
    """Return for how many seconds the lease of whoever delivers stands; not more than 0 where nobody does."""
    until: datetime | None = (stored.get("lease") or {}).get("until")
    return 0.0 if until is None else (until - now).total_seconds()
