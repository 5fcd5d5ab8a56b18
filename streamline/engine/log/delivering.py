"""One process's tenure of a subscriber: reading on, delivering, holding back what fails, recording how far it is."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

from streamline.domain.durations import parse_duration
from streamline.domain.run import Event, read_entry
from streamline.engine.log.dead_letters import DeadLetters
from streamline.engine.log.keeping import Keeping, LeaseLost
from streamline.engine.pauses import within
from streamline.engine.runtime import Runtime
from streamline.errors import RetryAfter, WebhookFailed
from streamline.features.delivery_windows import Held, Window
from streamline.features.subscriptions import Subscription, is_final, told_of

logger = logging.getLogger("streamline.engine")

Delivery = Callable[[Event], Awaitable[None]]

AT_WORK_MAX = 1000
HELD_MAX = 200
_GRACE_SECONDS = 5.0


class Delivering:
    """Delivers events to one subscriber for as long as its lease stands.

    Events of one run are delivered in order, of different runs at the same time. Where one fails, its run is held back
    and tried again with growing pauses, and the other runs go on.

    Args:
        runtime: The app's parts.
        subscription: What is wanted.
        deliver: Gets each event; what it raises fails the delivery.
        record: The subscriber as it is stored, with the lease that was taken.
        safe_until: Monotonic instant up to which the lease certainly stands.
    """

    def __init__(
        self,
        runtime: Runtime,
        subscription: Subscription,
        deliver: Delivery,
        record: Mapping[str, Any],
        safe_until: float,
    ) -> None:
        self._runtime = runtime
        self._log = runtime.outbox.log
        self._subscription = subscription
        self._deliver = deliver
        self._window = Window(record["position"], record.get("held", ()))
        self._lanes: dict[str, deque[Event]] = {}
        self._slots = asyncio.Semaphore(subscription.concurrency)
        self._room = asyncio.Event()
        self._stopping = asyncio.Event()
        self._keeping = Keeping(runtime, record, self._window, safe_until)
        self._dead_letters = DeadLetters(runtime, subscription, self._attempt)
        self._reader: asyncio.Task[None] | None = None
        self._attempts = 0

    async def run(self) -> None:
        """Deliver until told to stop.

        Raises:
            LeaseLost: Another process drives the subscriber, or may.
        """
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                group.create_task(self._keeping.run(self._is_idle))
                self._reader = group.create_task(self._read())
                for held in self._window.held:
                    group.create_task(self._try_again(held))
                group.create_task(self._dead_letters.run(self._stopping))
        except ExceptionGroup as failed:
            raise (failed.subgroup(LeaseLost) or failed).exceptions[0] from failed

    def stop(self) -> None:
        """Begin nothing more; what is at work is let finish."""
        self._stopping.set()
        if self._reader is not None:
            self._reader.cancel()
        self._keeping.stop()

    async def save(self) -> None:
        """Record how far it came, where it was ended early and the lease stands."""
        await self._keeping.save()

    def look(self) -> None:
        """Somebody may have changed the record: find out by saving, and look for dead letters to be tried again."""
        self._keeping.stir()
        self._dead_letters.look()

    def _is_idle(self) -> bool:
        return not self._lanes and not self._attempts

    async def _read(self) -> None:
        async with aclosing(self._log.follow(self._window.read)) as following:
            async for entries in following:
                self._watch_gap(entries[0]["_id"])
                for entry in entries:
                    await self._has_room()
                    self._take(read_entry(entry))

    def _take(self, event: Event) -> None:
        assert event.position is not None
        if not self._subscription.wants(event):
            self._window.skip(event.position)
        elif self._window.begin(event.run_id, event.position):
            lane = self._lanes.get(event.run_id)
            if lane is None:
                lane = self._lanes[event.run_id] = deque()
                self._group.create_task(self._work(event.run_id, lane))
            lane.append(event)

    async def _has_room(self) -> None:
        """Wait while too much is at work, or so many runs are held back that nothing seems to get through."""
        while self._window.at_work >= AT_WORK_MAX or len(self._window.held) >= HELD_MAX:
            self._room.clear()
            await self._room.wait()

    async def _work(self, run_id: str, lane: deque[Event]) -> None:
        try:
            while lane and not self._stopping.is_set():
                error = await self._attempt(lane[0])
                event = lane.popleft()
                if error is None or await self._is_put_aside(event, error, 1):
                    self._settled(event)
                    continue
                held = self._held_by(event, error, 1)
                self._window.hold(held, [each.position or 0 for each in lane])
                lane.clear()
                self._group.create_task(self._try_again(held))
        finally:
            del self._lanes[run_id]
            self._changed()

    async def _try_again(self, held: Held) -> None:
        """Bring a run that is held back to where the others are."""
        behind: deque[Event] = deque(await self._event_of(held))
        while not self._stopping.is_set():
            await self._until_due(held)
            error = await self._attempt(behind[0]) if behind else None
            attempts = held.attempts + 1
            if error is not None and not await self._is_put_aside(behind[0], error, attempts):
                held = self._window.again(held, **self._failure(error, attempts))
                self._changed()
                continue
            if behind:
                behind.popleft()
            if not behind:
                behind += await self._following(held)
            if not behind:
                # Nothing was awaited since: what is read from now on goes the common way.
                self._window.release(held.run_id)
                self._changed()
                return
            place = {"seq": behind[0].seq, "position": behind[0].position}
            held = self._window.again(held, **place, attempts=0, due_at=self._runtime.clock.now())
            self._changed()

    async def _event_of(self, held: Held) -> list[Event]:
        found = await self._log.read_run(held.run_id, held.seq - 1, held.position, 1)
        if not found:
            self._miss(f"event {held.seq} of run {held.run_id}")
        return [read_entry(entry) for entry in found]

    async def _following(self, held: Held) -> list[Event]:
        """Return the next events that wait behind the one that was settled, none where there are none."""
        after = held.seq
        while True:
            until = self._window.behind(held.run_id)
            found = await self._log.read_run(held.run_id, after, until)
            if events := [event for event in map(read_entry, found) if self._subscription.wants(event)]:
                return events
            after = found[-1]["seq"] if found else after
            if not found and until == self._window.behind(held.run_id):
                return []

    async def _until_due(self, held: Held) -> None:
        seconds = (held.due_at - self._runtime.clock.now()).total_seconds()
        if seconds > 0:
            await within(seconds, self._stopping)

    async def _attempt(self, event: Event) -> BaseException | None:
        """Deliver an event; return what went wrong."""
        async with self._slots:
            if self._stopping.is_set():
                raise asyncio.CancelledError
            self._attempts += 1
            delivery = asyncio.ensure_future(self._guarded(event))
            try:
                return await asyncio.shield(delivery)
            except asyncio.CancelledError:
                delivery.cancel()
                await asyncio.wait((delivery,), timeout=_GRACE_SECONDS)
                raise
            finally:
                self._attempts -= 1

    async def _guarded(self, event: Event) -> BaseException | None:
        try:
            await self._deliver(event)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the delivery's failure
            return error
        return None

    async def _is_put_aside(self, event: Event, error: BaseException, attempts: int) -> bool:
        """Put an event aside for good where trying it again is of no use."""
        if not is_final(error, attempts, self._subscription.retry):
            return False
        await self._dead_letters.put_aside(event, error, attempts)
        return True

    def _held_by(self, event: Event, error: BaseException, attempts: int) -> Held:
        assert event.position is not None
        return Held(event.run_id, event.seq, event.position, **self._failure(error, attempts))

    def _failure(self, error: BaseException, attempts: int) -> dict[str, Any]:
        if isinstance(error, RetryAfter):
            pause = parse_duration(error.delay, "delay")
        else:
            pause = self._subscription.retry.pause_after(attempts, random.uniform(-1, 1))
        if isinstance(error, WebhookFailed) and error.after is not None:
            # Later, where the receiver asks for it; never sooner, or the attempts would be over in no time.
            pause = max(pause, error.after)
        told = told_of(error)
        logger.warning("subscriber %s: attempt %s failed: %s", self._subscription.name, attempts, told)
        return {"attempts": attempts, "due_at": self._runtime.clock.now() + pause, "error": told}

    def _settled(self, event: Event) -> None:
        assert event.position is not None
        self._window.settle(event.position)
        self._changed()

    def _changed(self) -> None:
        self._room.set()
        self._keeping.stir()

    def _watch_gap(self, first: int) -> None:
        if 0 < self._window.read < first - 1:
            self._miss(f"{first - 1 - self._window.read} events")

    def _miss(self, what: str) -> None:
        logger.error("subscriber %s: %s left the log before they were delivered", self._subscription.name, what)
