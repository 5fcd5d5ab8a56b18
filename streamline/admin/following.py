"""Following what happens to runs: durable subscribers, and live observers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from streamline.admin.opened import Opened
from streamline.bus import Bus
from streamline.domain.dead_letter import DeadLetter
from streamline.domain.names import check_name, check_run_id
from streamline.domain.policies import RetryPolicy
from streamline.domain.run import Event
from streamline.engine.log.drivers import Handler, HandOver
from streamline.engine.log.observing import observe
from streamline.engine.log.subscribers import Beginning, Subscribers, check_position, stored_name
from streamline.engine.session import Session
from streamline.errors import AlreadyRegistered, InvalidPolicy
from streamline.features.subscriptions import PATIENT, Subscription, check_globs, matches
from streamline.store import Scope
from streamline.workflow import Workflow

HandlerT = TypeVar("HandlerT", bound=Handler)


class Subscriber:
    """A durable consumer of events: at least once each, those of one run in order.

    Use it as a decorator of the function that is called with each event, or iterate over it; an event is acknowledged
    when the function returns, or the next one is asked for. ``(event.run_id, event.seq)`` tells a repeated one.
    """

    def __init__(self, app: Following, name: str, subscription: Subscription, start: Beginning, scope: Scope) -> None:
        self._app = app
        self._name = name
        self._start: Beginning = start
        self._scope = scope
        self._stored_in: Session | None = None
        self.subscription = subscription
        self.handler: Handler | None = None

    @property
    def name(self) -> str:
        """Its name, within its tenant where it has one."""
        return self._name

    def __call__(self, handler: HandlerT) -> HandlerT:
        """Call `handler` with each event, in this process or another that declares the same; return it unchanged.

        Raises:
            AlreadyRegistered: This app has a handler for the subscriber.
            InvalidPolicy: It cannot be called.
        """
        if not callable(handler):
            raise InvalidPolicy("subscriber: a function of an event", field="handler")
        self._app.take_handler(self, handler)
        return handler

    def __aiter__(self) -> AsyncIterator[Event]:
        """Iterate over the events, one at a time, until the app is closed."""
        return self._iterate()

    async def position(self) -> int:
        """Return the position of the log up to which all events are handled, put aside or held back."""
        return await (await self._records()).position(self.subscription.name)

    async def lag(self) -> int:
        """Return how many entries of the log are after that position, whether or not they are wanted."""
        return await (await self._records()).lag(self.subscription.name)

    async def replay(self, after: int | datetime | None = None) -> None:
        """Go on from another place of the log; what is held back is forgotten, dead letters stay.

        Args:
            after: A position; an aware datetime, for what was logged at that instant or later; None for all that is
                kept.

        Raises:
            InvalidQuery, InvalidPolicy: It is none of these.
        """
        await (await self._records()).replay(self.subscription.name, after)

    async def dead_letters(self, limit: int = 100) -> tuple[DeadLetter, ...]:
        """Return events that were put aside, the oldest first; `limit` is 1 to 1,000."""
        return await (await self._records()).dead_letters(self.subscription.name, limit)

    async def retry(self, letters: Sequence[DeadLetter | int] | None = None) -> int:
        """Let dead letters, or those at the given positions, be delivered once more; return how many there are.

        One that is delivered is removed; one that fails stays. They no longer keep the order of their runs.
        """
        return await (await self._records()).retry(self.subscription.name, letters)

    async def discard(self, letters: Sequence[DeadLetter | int] | None = None) -> int:
        """Remove dead letters, or those at the given positions; return how many there were."""
        return await (await self._records()).discard(self.subscription.name, letters)

    async def store(self, session: Session) -> None:
        """Store it where it is not, once for each opening of the app."""
        if self._stored_in is not session:
            await session.subscribers(self._scope).create(self.subscription, self._start)
            self._stored_in = session

    async def _records(self) -> Subscribers:
        return (await self._stored()).subscribers(self._scope)

    async def _stored(self) -> Session:
        session = self._app.opened()
        await self.store(session)
        return session

    async def _iterate(self) -> AsyncGenerator[Event, None]:
        session, hand_over = await self._stored(), HandOver()
        driver = session.drivers.start(replace(self.subscription, concurrency=1), hand_over.deliver)
        try:
            while (event := await hand_over.next(session.drivers.closed)) is not None:
                yield event
        finally:
            await session.drivers.stop(driver)

    def __repr__(self) -> str:
        """Name it."""
        return f"<subscriber {self.name}>"


class Following(Opened):
    """``subscriber``, ``remove_subscriber``, ``events`` and ``on``."""

    _bus: Bus
    _subscribers: dict[str, Subscriber]

    def subscriber(
        self,
        name: str,
        on: Sequence[str] | str = "*",
        *,
        workflow: Workflow[object, object, object] | str | None = None,
        start: Beginning = "now",
        max_attempts: int | None = None,
        retry: RetryPolicy | None = None,
        concurrency: int = 10,
    ) -> Subscriber:
        """Return a durable subscriber to what happens to runs; of all processes, one at a time drives it.

        Its position is kept in the database. Whatever happens after it is stored for the first time is delivered at
        least once, across restarts and whoever dies; events of one run come in order.

        Args:
            name: Its name within the deployment, or within the tenant; as a workflow's.
            on: Globs over event types, such as ``["run.*", "step.failed"]``.
            workflow: Only events of runs of this workflow, of any version.
            start: Where a new one begins: ``"now"``, or ``"beginning"`` for all that the log has.
            max_attempts: How often an event is tried before it is put aside; short for `retry`.
            retry: When a failed event is tried again; default 10 attempts, from one second to five minutes apart.
            concurrency: Events of different runs that are handled at once; 1 to 1,000.

        Raises:
            InvalidName, InvalidKey, InvalidPolicy: An argument is not of the allowed form; names the field.
        """
        if start not in ("now", "beginning"):
            raise InvalidPolicy('start: "now" or "beginning"', field="start")
        if max_attempts is not None and retry is not None:
            raise InvalidPolicy("max_attempts, retry: give one of them", field="max_attempts")
        policy = replace(PATIENT, max_attempts=max_attempts) if max_attempts is not None else retry or PATIENT
        scope, key = self._scope, stored_name(check_name(name, "name"), self._scope)
        tenants = None if scope.everything else frozenset({scope.tenant_id})
        subscription = Subscription(key, on, _name_of(workflow), policy, concurrency, tenants)
        return Subscriber(self, name, subscription, start, scope)

    async def remove_subscriber(self, name: str) -> None:
        """Remove a subscriber, its position and its dead letters; raise `SubscriberNotFound`.

        A process that declares it stores it again when it is opened the next time.
        """
        scope = self._scope
        await self._open_session.subscribers(scope).remove(stored_name(check_name(name, "name"), scope))

    def events(
        self,
        on: Sequence[str] | str = "*",
        *,
        workflow: Workflow[object, object, object] | str | None = None,
        run_id: str | None = None,
        after: int | None = None,
    ) -> AsyncIterator[Event]:
        """Iterate over what happens to runs, live, in the order of the log, until the app is closed.

        Args:
            on: Globs over event types.
            workflow: Only events of runs of this workflow.
            run_id: Only events of this run.
            after: The `position` of an event after which to begin; 0 for all that the log has; None for what comes from
                when the first event is asked for.

        Raises:
            InvalidKey, InvalidName, InvalidQuery: An argument is not of the allowed form; names the field.
        """
        globs, name = check_globs(on), _name_of(workflow)
        if name is not None:
            check_name(name, "workflow")
        place = None if after is None else check_position(after)
        run = None if run_id is None else check_run_id(run_id)
        runtime, scope = self._open_session.runtime, self._scope

        def is_wanted(event: Event) -> bool:
            return scope.admits_tenant(event.tenant_id) and matches(event, globs, name)

        return observe(runtime, is_wanted, run, place)

    def on(self, event: str, callback: Callable[[Event], Awaitable[None] | None]) -> Callable[[], None]:
        """Call back with events of runs that this process writes, once they are stored.

        Args:
            event: A glob over event types, such as ``"run.*"`` or ``"step.failed"``.
            callback: Plain or async; what it raises is logged and changes nothing.

        Returns:
            A function that ends it.
        """
        if not isinstance(event, str) or not callable(callback):
            raise InvalidPolicy("on: a glob over event types, and a function of an event", field="event")
        scope = self._scope

        def tell(said: Event) -> Awaitable[None] | None:
            return callback(said) if scope.admits_tenant(said.tenant_id) else None

        return self._bus.on(event, tell)

    def opened(self) -> Session:
        """Return what exists while the app is open; raise `AppClosed` or `WrongLoop`."""
        return self._open_session

    def take_handler(self, subscriber: Subscriber, handler: Handler) -> None:
        """Let a function handle a subscriber's events, from now on or from when the app is opened."""
        key = subscriber.subscription.name
        if key in self._subscribers:
            raise AlreadyRegistered(f"subscriber {subscriber.name!r} has a handler in this app", field="name")
        subscriber.handler = handler
        self._subscribers[key] = subscriber
        if self._session is not None:
            self._drive(subscriber, self._session)

    async def _begin_following(self, session: Session) -> None:
        for subscriber in tuple(self._subscribers.values()):
            await subscriber.store(session)
            self._drive(subscriber, session)

    def _drive(self, subscriber: Subscriber, session: Session) -> None:
        assert subscriber.handler is not None
        deliver = session.drivers.calling(subscriber.handler)
        session.drivers.start(subscriber.subscription, deliver, lambda: subscriber.store(session))


def _name_of(workflow: Workflow[object, object, object] | str | None) -> str | None:
    return workflow.name if isinstance(workflow, Workflow) else workflow
