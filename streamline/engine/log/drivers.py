"""The subscribers that this process drives, or would if nobody else did; from opening the app to closing it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from streamline.domain.run import Event
from streamline.engine.log.delivering import Delivery
from streamline.engine.log.subscriber_driver import SubscriberDriver
from streamline.engine.runtime import Runtime
from streamline.engine.threads import in_thread
from streamline.features.subscriptions import Subscription

Handler = Callable[[Event], Awaitable[Any] | Any]

_THREADS = 32


class Drivers:
    """Starts and stops the drivers of subscribers."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._drivers: dict[str, SubscriberDriver] = {}
        self._threads: ThreadPoolExecutor | None = None
        self.closed = asyncio.Event()

    def start(
        self, subscription: Subscription, deliver: Delivery, prepare: Callable[[], Awaitable[object]] | None = None
    ) -> SubscriberDriver:
        """Drive a subscriber that is stored, whenever no other process does; arguments as for `SubscriberDriver`."""
        driver = SubscriberDriver(self._runtime, subscription, deliver, prepare)
        self._drivers[driver.id] = driver
        driver.start()
        return driver

    async def stop(self, driver: SubscriberDriver, drain: float = 0.0) -> None:
        """Drive a subscriber no more; what is at work is let finish for `drain` seconds."""
        self._drivers.pop(driver.id, None)
        await driver.stop(drain)

    async def close(self, drain: float) -> None:
        """Drive nothing any more."""
        self.closed.set()
        await asyncio.gather(*(self.stop(driver, drain) for driver in tuple(self._drivers.values())))
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def calling(self, handler: Handler) -> Delivery:
        """Return what delivers to a function: a coroutine function is awaited, a plain one runs in a thread."""
        is_async = inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
            getattr(handler, "__call__", None)  # noqa: B004 - an object with such a method is a handler, too
        )

        async def deliver(event: Event) -> None:
            result = handler(event) if is_async else await in_thread(self._pool(), handler, (event,))
            if inspect.isawaitable(result):
                await result

        return deliver

    def _pool(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="streamline-subscriber")
        return self._threads


class HandOver:
    """Hands events to somebody who asks for them one by one; asking for the next acknowledges the one before."""

    def __init__(self) -> None:
        self._offered: asyncio.Queue[tuple[Event, asyncio.Future[None]]] = asyncio.Queue()
        self._taken: asyncio.Future[None] | None = None

    async def deliver(self, event: Event) -> None:
        """Offer an event, and return once it is acknowledged."""
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._offered.put_nowait((event, answer))
        await answer

    async def next(self, closed: asyncio.Event) -> Event | None:
        """Acknowledge the event before and return the next; None once it is `closed`."""
        if self._taken is not None and not self._taken.done():
            self._taken.set_result(None)
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(closed.wait())]
        try:
            while not closed.is_set():
                offer = asyncio.ensure_future(self._offered.get())
                waits.append(offer)
                await asyncio.wait((waits[0], offer), return_when=asyncio.FIRST_COMPLETED)
                if offer.done() and not offer.result()[1].done():
                    # Whoever offered it has not lost the lease meanwhile.
                    event, self._taken = offer.result()
                    return event
            return None
        finally:
            for wait in waits:
                wait.cancel()
