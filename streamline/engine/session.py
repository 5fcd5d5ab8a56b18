"""An open app: its connection, its worker, and the verbs' machinery, from opening to closing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from typing import Any, Self

from streamline.bus import Bus
from streamline.clock import Clock
from streamline.domain.definition import Definition
from streamline.domain.tenancy import Tenancy
from streamline.engine.asking.known_definitions import KnownDefinitions
from streamline.engine.asking.run_pages import RunPages
from streamline.engine.control import Control
from streamline.engine.ended.closer import Closer
from streamline.engine.endings import Endings
from streamline.engine.event_log import EventLog
from streamline.engine.events.inbox_delivery import HINT, Delivery
from streamline.engine.events.replying import Replying
from streamline.engine.events.sending import Sending
from streamline.engine.facts import FACTS_SECONDS, Facts
from streamline.engine.index_keeping import check_all, ensure_all, refuse_missing, wakes_of
from streamline.engine.listening import Listening
from streamline.engine.log.drivers import Drivers
from streamline.engine.log.relay import Relay
from streamline.engine.log.subscribers import Subscribers
from streamline.engine.loops import Breaker, end, repeat
from streamline.engine.outbox import Outbox
from streamline.engine.outgoing.dispatching import Dispatching
from streamline.engine.registry import Registry
from streamline.engine.runtime import Runtime
from streamline.engine.secrets import shared_secret
from streamline.engine.starting.starter import Starter
from streamline.engine.timetable import Timetable
from streamline.engine.triggering import Triggers
from streamline.engine.vital_signs import VitalSigns
from streamline.engine.working.worker import ActiveWorker
from streamline.errors import AppClosed, WrongLoop
from streamline.features.tokens import TokenMaker
from streamline.settings import Settings, Worker
from streamline.store import (
    CALIBRATE_SECONDS,
    IndexIssue,
    Scope,
    Store,
    calibrate,
    check_deployment,
    connect,
)
from streamline.store.sessions import check_transactions
from streamline.telemetry import TELEMETRY

_CLOSE_SECONDS = 5.0


class Session:
    """What exists between opening and closing an app."""

    def __init__(self, runtime: Runtime, worker: ActiveWorker | None, uri: str) -> None:
        self.runtime = runtime
        self.worker = worker
        self.uri = uri
        self.starter = Starter(runtime, worker)
        self.control = Control(runtime)
        self.replying = Replying(runtime, self.control)
        period = worker.settings.beat_seconds if worker else _CLOSE_SECONDS
        self.closer = Closer(runtime, period)
        self.delivery = Delivery(runtime, self.control, self.starter, period)
        self.sending = Sending(runtime, self.control, self.starter, self.delivery)
        self.endings = Endings(runtime, worker.crew.held if worker else lambda _: None)
        self.pages = RunPages(runtime)
        self.drivers = Drivers(runtime)
        self.definitions = KnownDefinitions(runtime.store, runtime.clock, lenient=runtime.settings.development)
        self._loop = asyncio.get_running_loop()
        self._loops: list[asyncio.Task[None]] = []
        self.vital_signs = VitalSigns(runtime, worker, lambda: self._loops)
        self._forgets: list[Callable[[], None]] = []
        self._closing: set[asyncio.Task[None]] = set()
        self._dispatch: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        target: Any,
        database: str | None,
        prefix: str,
        settings: Settings,
        clock: Clock,
        bus: Bus,
        registry: Registry,
        worker: Worker | None,
        secret: str | bytes | None,
        tenancy: Tenancy,
    ) -> Self:
        """Connect, check the deployment, create what is missing, and start the worker."""
        TELEMETRY.look()
        driver = connect(target, database=database, prefix=prefix, settings=settings)
        store = Store(driver, settings, clock)
        try:
            await check_deployment(driver, clock, patience=settings.patience_seconds)
            if registry.has_transactions:
                check_transactions(store)
            wakes = await wakes_of(store, clock, settings)
            tokens = TokenMaker(secret or await shared_secret(store))
            facts = Facts(store, bus, wakes)
            await facts.load()
            outbox = Outbox(store, clock, facts, EventLog(store, clock, bus), bus, wakes)
            triggers = Triggers(facts, registry)
            runtime = Runtime(store, clock, bus, registry, settings, wakes, tokens, facts, outbox, triggers, tenancy)
            session = cls(runtime, ActiveWorker(runtime, worker) if worker else None, driver.uri)
            await (session.ensure_indexes() if settings.create_indexes else refuse_missing(store))
            await session.definitions.load()
            await session.definitions.keep(registry.served)
            session.listen()
            session.calibrate()
            session.keep_to_facts()
            session.close_runs()
            session.relay()
            await session.deliver_events()
            session.dispatch()
        except BaseException:
            await store.close()
            raise
        if session.worker is not None:
            session.worker.start()
            session.keep_to_schedules(session.worker.settings)
        return session

    def keep_definition(self, definition: Definition) -> None:
        """Keep a definition that is served from now on, soon; raise `VersionMismatch` where it is known as another."""
        self.definitions.check(definition)
        self._finish(self.definitions.keep((definition,)))

    def subscribers(self, scope: Scope) -> Subscribers:
        """Return the records of the subscribers in scope."""
        return Subscribers(self.runtime, scope)

    @staticmethod
    def checked(session: Session | None) -> Session:
        """Return the session of an open app; raise `AppClosed` or `WrongLoop` where it cannot be used here."""
        if session is None:
            raise AppClosed("the app is not open: use it inside `async with app:`")
        if asyncio.get_running_loop() is not session._loop:
            raise WrongLoop("the app was opened in another event loop")
        return session

    async def ensure_indexes(self) -> None:
        """Create the indexes and collections that are missing."""
        await ensure_all(self.runtime.store, self.runtime.wakes)

    async def check_indexes(self) -> list[IndexIssue]:
        """Return what is not as it should be of the indexes and collections."""
        return await check_all(self.runtime.store, self.runtime.clock, self.runtime.settings)

    def listen(self) -> None:
        """Begin to hear the wakes of other processes."""
        runtime = self.runtime
        if runtime.wakes is None:
            return
        look_at = _ignore if self.worker is None else self.worker.look_at
        listening = Listening(runtime.wakes, runtime.clock, runtime.registry, runtime.bus, look_at)
        self._loops.append(asyncio.ensure_future(listening.run()))

    def calibrate(self) -> None:
        """Keep the clock to the server's time, now and then."""
        driver, clock = self.runtime.store.driver, self.runtime.clock

        async def once() -> float:
            self.vital_signs.calibrated(await calibrate(driver, clock))
            return CALIBRATE_SECONDS

        self._keep("reading the server's clock", once)

    def keep_to_facts(self) -> None:
        """Keep to what is decided elsewhere for the whole deployment."""
        facts = self.runtime.facts

        async def once() -> float:
            await facts.load()
            return FACTS_SECONDS

        self._keep("reading the facts", once)
        self._forgets.append(facts.listen())

    async def hold_up(self, workflow: str) -> None:
        """Let no step of a workflow begin, anywhere."""
        await self.runtime.facts.put(f"paused.{workflow}", self.runtime.clock.now())

    async def let_go_on(self, workflow: str) -> None:
        """Let the steps of a workflow begin again."""
        await self.runtime.facts.drop(f"paused.{workflow}")

    def close_runs(self) -> None:
        """Do what follows from the end of runs: those that end here at once, others' where it was left undone."""
        self._forgets.append(self.runtime.bus.on_closed(self._close_soon))
        if self.worker is not None:
            self._keep("closing runs", self.closer.run_once)

    def relay(self) -> None:
        """Bring into the log what runs have to tell, where somebody wants it."""
        self._forgets.append(self.runtime.outbox.listen())
        self._relay = Relay(self.runtime)
        if self.worker is not None:
            self._keep("relaying events", self._relay.run_once, self._relay.wait)

    async def deliver_events(self) -> None:
        """Deliver events: those that are stored here at once, others' where that was left undone."""
        runtime, delivery = self.runtime, self.delivery
        await runtime.triggers.announce()
        self._forgets += (
            runtime.bus.on_posted(lambda event: self._finish(delivery.try_to_deliver(event))),
            runtime.bus.on_hint(HINT, lambda: self._finish(delivery.look())),
        )
        if self.worker is not None:
            self._keep("delivering events", delivery.run_once)

    def dispatch(self) -> None:
        """Have webhooks delivered, where somebody wants any."""
        self._dispatching = Dispatching(self.runtime)
        if self.worker is not None:
            self._dispatch = self._keep("dispatching webhooks", self._dispatching.run_once, self._dispatching.wait)

    def keep_to_schedules(self, settings: Worker) -> None:
        """Start what is due of the schedules whose workflows are served here."""
        timetable = Timetable(self.runtime, self.starter, self.control, settings.poll_seconds)
        self._forgets.append(timetable.listen())
        self._keep("keeping to schedules", timetable.run_once, timetable.wait)

    def _keep(
        self,
        name: str,
        run_once: Callable[[], Awaitable[float]],
        wait: Callable[[float], Awaitable[None]] | None = None,
    ) -> asyncio.Task[None]:
        """Begin a loop that goes on until the app is closed."""
        loop = asyncio.ensure_future(repeat(name, run_once, wait or self.runtime.clock.sleep, Breaker()))
        self._loops.append(loop)
        return loop

    def _close_soon(self, run: dict[str, Any]) -> None:
        if "owes_at" in run:
            self._finish(self.closer.close(run))

    def _finish(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside what goes on, and before the app is closed."""
        task = asyncio.ensure_future(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _finish_all(self) -> None:
        deadline = self.runtime.clock.monotonic() + self.runtime.settings.patience_seconds
        while self._closing and (left := deadline - self.runtime.clock.monotonic()) > 0:
            await asyncio.wait(self._closing, timeout=left)

    async def stop_following(self) -> None:
        """Let the handlers of events finish, and drive no subscriber any more."""
        if self._dispatch is not None:
            await end([self._dispatch])
        await asyncio.gather(self.drivers.close(_CLOSE_SECONDS), self._dispatching.stop(_CLOSE_SECONDS))

    async def close(self) -> None:
        """Stop working, let what was said and written leave, and disconnect."""
        await self.stop_following()
        if self.worker is not None:
            await self.worker.stop(self.worker.settings.drain_seconds)
        await self._finish_all()
        await self.pages.close()
        await self.starter.close()
        for forget in self._forgets:
            forget()
        self.runtime.outbox.log.close()
        await end(self._loops)
        await self.vital_signs.close()
        await self._relay.stop()
        if self.runtime.wakes is not None:
            await self.runtime.wakes.close()
        await self.runtime.store.close()


def _ignore(_: datetime) -> None:
    """Nobody here takes runs."""
