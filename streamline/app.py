"""The app: what a user holds, opens and asks."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack, overload

from typing_extensions import TypeVar

from streamline.admin.answers import Answers, OnApproval
from streamline.admin.following import Following, Subscriber
from streamline.admin.operators import Operators
from streamline.admin.queries import Queries
from streamline.admin.webhook_verbs import Webhooks
from streamline.bus import Bus
from streamline.clock import Clock, SystemClock
from streamline.domain.definition import Definition
from streamline.domain.durations import Duration, parse_duration
from streamline.domain.names import check_prefix
from streamline.domain.run import Event
from streamline.embedded import EmbeddedServer
from streamline.engine.registry import Registry
from streamline.engine.session import Session
from streamline.engine.starting.ordering import StartOptions, StartRules
from streamline.engine.ticking import tick
from streamline.engine.timetable import SCHEDULES
from streamline.errors import DefinitionError, InvalidPolicy, StreamlineError
from streamline.handle import RunHandle
from streamline.schedules.schedule_verbs import Schedules
from streamline.settings import Settings, Worker, checked_secret, checked_settings, checked_worker
from streamline.store import UNTENANTED
from streamline.workflow import Workflow

InputT = TypeVar("InputT", default=Any)
OutputT = TypeVar("OutputT", default=Any)


class Streamline(Answers, Following, Operators, Queries):
    """Durable workflows on a MongoDB database.

    Args:
        target: A ``mongodb://`` URI, a PyMongo ``AsyncMongoClient`` or a Motor client, or a database of either; a
            client you pass in is never closed here. Default ``MONGODB_URI``, else an embedded server.
        database: Name of the database; default the target's, else ``streamline``.
        workflows: What this process serves.
        prefix: Beginning of the names of the engine's collections.
        worker: Whether, or how, this process works on runs; with False it only starts them and asks.
        secret: The key from which hook tokens are derived; default ``STREAMLINE_SECRET``, else one that is generated
            once and kept in the database: whoever reads that can open hooks, so production sets its own.
        settings: Limits.
        clock: Where the time comes from; default the machine's clock, set to the server's time.

    Raises:
        DefinitionError: A workflow cannot be registered.
    """

    def __init__(
        self,
        target: Any = None,
        *,
        database: str | None = None,
        workflows: Sequence[Workflow[Any, Any, Any]] = (),
        prefix: str = "streamline",
        worker: bool | Worker = True,
        secret: str | bytes | None = None,
        settings: Settings | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.prefix = check_prefix(prefix)
        self._target = target
        self._database = database
        self._worker = checked_worker(worker)
        self._settings = checked_settings(settings)
        self._secret = checked_secret(secret)
        self._clock = clock or SystemClock()
        self._registry = Registry()
        self._server: EmbeddedServer | None = None
        self._bus = Bus()
        self._session: Session | None = None
        self._subscribers: dict[str, Subscriber] = {}
        for workflow in workflows:
            self.register(workflow)

    @classmethod
    def embedded(cls, path: str | os.PathLike[str] | None = None, **options: Any) -> Self:
        """Return an app on a private MongoDB of its own, on this machine only; it stops with the app, killed or not.

        Args:
            path: Where the data is kept; without it the data is temporary.
            options: As for `Streamline`.
        """
        return cls(EmbeddedServer(path), **options)

    def register(self, workflow: Workflow[Any, Any, Any]) -> None:
        """Serve a workflow; raise `AlreadyRegistered` where another one has its name and version."""
        if not isinstance(workflow, Workflow):
            raise DefinitionError("workflows: Workflow objects", field="workflows")
        self._registry.register(workflow.definition)
        self._bus.hint(SCHEDULES)  # some may be waiting for whoever serves it

    @property
    def uri(self) -> str:
        """The connection string of the database in use."""
        return self._open_session.uri

    @property
    def database(self) -> Any:
        """The async database in use, of the driver in use."""
        return self._open_session.runtime.store.driver.database

    @property
    def webhooks(self) -> Webhooks:
        """The endpoints outside that are told of events."""
        return Webhooks(lambda: self._open_session)

    async def __aenter__(self) -> Self:
        """Connect, create missing indexes, and begin to work.

        Raises:
            StoreUnavailable: The database does not answer, or the embedded server does not start.
            UnsafeDeployment: The database or client is set up so that durability cannot be promised.
        """
        if self._session is not None:
            raise StreamlineError("the app is open already")
        try:
            self._session = await Session.open(
                await self._resolved_target(),
                self._database,
                self.prefix,
                self._settings,
                self._clock,
                self._bus,
                self._registry,
                self._worker,
                self._secret,
            )
            await self._begin_following(self._session)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let running steps finish for a while, release what is unfinished, and disconnect."""
        session = self._session
        try:
            if session is not None:
                # While they finish, handlers of events may still use the app.
                await session.stop_following()
                self._session = None
                await session.close()
        finally:
            self._session = None
            await self._stop_server()

    @overload
    async def start(
        self,
        workflow: Workflow[InputT, Any, OutputT],
        input: InputT | Mapping[str, Any] | None = None,
        **options: Unpack[StartOptions],
    ) -> RunHandle[OutputT]: ...
    @overload
    async def start(self, workflow: str, input: Any = None, **options: Unpack[StartOptions]) -> RunHandle[Any]: ...

    async def start(
        self, workflow: Workflow[Any, Any, Any] | str, input: Any = None, **options: Unpack[StartOptions]
    ) -> RunHandle[Any]:
        """Start a run; once this returns, the run survives any crash.

        Args:
            workflow: The workflow, or the name of a registered one.
            input: Of the workflow's input type, or what pydantic can read as such.
            options: How to start it.
                ``idempotency_key``: at most one active run of the workflow holds it; all callers get that run's handle.
                ``idempotency``: ``"active"``, the key is free again once the run has ended; ``"forever"``, it stays
                taken, and all callers get the ended run's handle.
                ``priority``: larger goes first, then older; -2147483647 to 2147483647.
                ``delay``: how long to wait before the first step.
                ``run_at``: aware instant before which the first step does not begin.
                ``start_by``: instant, or duration from when it may, by which the first step must have begun.
                ``timeout``: how long the run may take, instead of the workflow's ``run_timeout``.
                ``tags``: up to 32 strings to find the run by.
                ``metadata``: anything to keep with the run; keys without dots.
                ``run_id``: chosen id; default a time-ordered one.
                ``session``: of this app's own client; the run is stored in its transaction, where one is under way, and
                begins when that is committed.

        Raises:
            InvalidInput, SerializationError, PayloadTooLarge, InvalidKey, InvalidPolicy: An argument is not of the
                allowed form; nothing is stored.
            WorkflowNotFound: No workflow of this name is registered.
            IdempotencyConflict: A run with the chosen id exists, or a key is kept for ever that was first used with
                another input.
            ConcurrencyLimitReached: Every slot is taken, and the workflow's limit refuses further runs.
            PyMongoError: With ``session``: the transaction is over, and the driver's ``with_transaction`` tries again.
            UnsafeDeployment: With ``session``: the database has no transactions.
            StoreUnavailable: The database did not answer; the run may or may not have been stored.
        """
        starter = self._open_session.starter
        return self._handle_of(await starter.start(self._definition(workflow), input, options, UNTENANTED))

    async def start_many(
        self,
        workflow: Workflow[InputT, Any, OutputT] | str,
        inputs: Sequence[InputT | Mapping[str, Any] | None],
        **options: Unpack[StartOptions],
    ) -> list[RunHandle[OutputT]]:
        """Start one run per input, in few round trips; all inputs are checked before the first run is stored.

        Args:
            workflow: As for `start`.
            inputs: One for each run; the handles come in the same order.
            options: As for `start`, for every run; ``run_id`` for a single input only.

        Raises:
            InvalidInput, SerializationError, PayloadTooLarge, InvalidKey, InvalidPolicy, WorkflowNotFound: As for
                `start`; nothing is stored.
            ConcurrencyLimitReached, IdempotencyConflict, StoreUnavailable: As for `start`; some of the runs may be
                stored.
        """
        starter = self._open_session.starter
        started = await starter.start_many(self._definition(workflow), inputs, options, UNTENANTED)
        return [self._handle_of(each) for each in started]

    @overload
    async def run(
        self,
        workflow: Workflow[InputT, Any, OutputT],
        input: InputT | Mapping[str, Any] | None = None,
        *,
        timeout: Duration | None = None,
        on_approval: OnApproval | None = None,
        **options: Unpack[StartRules],
    ) -> OutputT: ...
    @overload
    async def run(
        self,
        workflow: str,
        input: Any = None,
        *,
        timeout: Duration | None = None,
        on_approval: OnApproval | None = None,
        **options: Unpack[StartRules],
    ) -> Any: ...

    async def run(
        self,
        workflow: Workflow[Any, Any, Any] | str,
        input: Any = None,
        *,
        timeout: Duration | None = None,
        on_approval: OnApproval | None = None,
        **options: Unpack[StartRules],
    ) -> Any:
        """Start a run and return its output; arguments as for `start`, errors as for `RunHandle.result`.

        Args:
            workflow: As for `start`.
            input: As for `start`.
            options: As for `start`.
            timeout: How long to wait for the run, which goes on past it.
            on_approval: Asked to decide where the run wants an approval: takes the `Wait`, may be async, returns
                whether it is approved, or a `Decision`. Without it an approval is rejected.
        """
        handle = await self.start(workflow, input, **options)

        async def decide(run: Mapping[str, Any]) -> None:
            await self._decide_approvals(run, on_approval)

        return await self.result_of(handle.id, timeout, decide)

    @property
    def schedules(self) -> Schedules:
        """Series of runs: ``create``, ``get``, ``list``, ``update``, ``pause``, ``resume``, ``trigger`` and more."""
        return Schedules(lambda: self._open_session, self._registry, self._handle_of, UNTENANTED)

    def handle(self, run_id: str) -> RunHandle[Any]:
        """Return a handle of a run, without asking the database."""
        return RunHandle(self, run_id)

    async def tick(self, max_runs: int | None = None, budget: Duration | None = None) -> int:
        """Drive what is due now in one bounded pass without background tasks; return how many runs were taken.

        Args:
            max_runs: Runs taken at most.
            budget: After so long no more runs are taken, and unfinished ones are released.
        """
        seconds = None if budget is None else parse_duration(budget, "budget").total_seconds()
        if max_runs is not None and (isinstance(max_runs, bool) or not isinstance(max_runs, int) or max_runs < 0):
            raise InvalidPolicy("max_runs: a whole number of at least 0", field="max_runs")
        return await tick(self._open_session.runtime, self._worker or Worker(), max_runs=max_runs, budget=seconds)

    async def ensure_indexes(self) -> None:
        """Create the indexes and collections that are missing; safe to repeat, and from several processes at once."""
        await self._open_session.ensure_indexes()

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
        return self._bus.on(event, callback)

    async def _resolved_target(self) -> Any:
        target = self._target if self._target is not None else os.environ.get("MONGODB_URI") or EmbeddedServer()
        if not isinstance(target, EmbeddedServer):
            return target
        self._server = target
        return await target.start()

    async def _stop_server(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await server.stop()

    def _definition(self, workflow: Workflow[Any, Any, Any] | str) -> Definition:
        if isinstance(workflow, Workflow):
            return workflow.definition
        return self._registry.current(workflow)
