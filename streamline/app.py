"""The app: what a user holds, opens and asks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from streamline.admin.following import Subscriber
from streamline.admin.scoped import AllTenants, Tenant, Verbs
from streamline.bus import Bus
from streamline.clock import Clock, SystemClock
from streamline.domain.durations import Duration, parse_duration
from streamline.domain.names import check_prefix
from streamline.domain.tenancy import Tenancy, checked_tenancy
from streamline.embedded import EmbeddedServer
from streamline.engine.registry import Registry
from streamline.engine.session import Session
from streamline.engine.ticking import tick
from streamline.engine.timetable import SCHEDULES
from streamline.errors import DefinitionError, InvalidPolicy, StreamlineError, TenantRequired
from streamline.settings import Settings, Worker, checked_secret, checked_settings, checked_worker
from streamline.store import UNTENANTED, IndexIssue, Scope
from streamline.telemetry import detached
from streamline.workflow import Workflow


class Streamline(Verbs):
    """Durable workflows on a MongoDB database.

    Args:
        target: A ``mongodb://`` URI, a PyMongo ``AsyncMongoClient`` or a Motor client, or a database of either; a
            client you pass in is never closed here. Default ``MONGODB_URI``, else an embedded server.
        database: Name of the database; default the target's, else ``streamline``.
        workflows: What this process serves.
        prefix: Beginning of the names of the engine's collections.
        tenancy: Whether every verb has to say whose runs it is about; default no.
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
        tenancy: Tenancy | None = None,
        worker: bool | Worker = True,
        secret: str | bytes | None = None,
        settings: Settings | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.prefix = check_prefix(prefix)
        self._tenancy = checked_tenancy(tenancy)
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
        """Serve a workflow.

        Raises:
            AlreadyRegistered: Another one has its name and version.
            VersionMismatch: The app is open, and the deployment knows this version with other steps.
        """
        if not isinstance(workflow, Workflow):
            raise DefinitionError("workflows: Workflow objects", field="workflows")
        if self._session is not None:
            self._session.keep_definition(workflow.definition)
        self._registry.register(workflow.definition)
        self._bus.hint(SCHEDULES)  # some may be waiting for whoever serves it

    def tenant(self, tenant_id: str) -> Tenant:
        """Return the verbs of one tenant: its runs, and no others; raise `InvalidTenant`."""
        return Tenant(self, tenant_id)

    def all_tenants(self) -> AllTenants:
        """Return the verbs over the runs of all tenants, for operators."""
        return AllTenants(self)

    @property
    def _scope(self) -> Scope:
        if self._tenancy.required:
            raise TenantRequired("say whose runs: app.tenant(...), or for operators app.all_tenants()", field="tenant")
        return UNTENANTED

    @property
    def uri(self) -> str:
        """The connection string of the database in use."""
        return self._open_session.uri

    @property
    def database(self) -> Any:
        """The async database in use, of the driver in use."""
        return self._open_session.runtime.store.driver.database

    async def __aenter__(self) -> Self:
        """Connect, create missing indexes, and begin to work.

        Raises:
            StoreUnavailable: The database does not answer, or the embedded server does not start.
            UnsafeDeployment: The database or client is set up so that durability cannot be promised.
            IndexConflict: An index is there with another definition, or what is stored breaks a unique one.
        """
        if self._session is not None:
            raise StreamlineError("the app is open already")
        try:
            with detached():
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
                    self._tenancy,
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

    async def ensure_indexes(self, *, check: bool = False) -> list[IndexIssue]:
        """Create the indexes and collections that are missing; safe to repeat, and from several processes at once.

        Nothing is dropped or built again, so that processes of an older and a newer release may do it side by side.

        Args:
            check: Whether only to look: what is missing, different or unknown is returned, and nothing is created.

        Returns:
            What was found, where it is to be looked only; nothing otherwise.

        Raises:
            IndexConflict: An index of the same name has another definition, or stored documents break a unique one.
        """
        if check:
            return await self._open_session.check_indexes()
        await self._open_session.ensure_indexes()
        return []

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
