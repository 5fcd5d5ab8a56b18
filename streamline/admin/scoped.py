"""The verbs of an app within one tenant, or for operators over all of them."""

from __future__ import annotations

from typing import Any, NoReturn

from streamline.admin.bulk_verbs import Bulk
from streamline.admin.following import Following, Subscriber
from streamline.admin.housekeeping import Housekeeping
from streamline.admin.operators import Operators
from streamline.admin.probing import Probing
from streamline.admin.starting import Starting
from streamline.admin.webhook_verbs import Webhooks
from streamline.bus import Bus
from streamline.domain.tenancy import check_tenant
from streamline.engine.registry import Registry
from streamline.engine.session import Session
from streamline.errors import ForeignTenant
from streamline.schedules.schedule_verbs import Schedules
from streamline.store import EVERYTHING, Scope
from streamline.workflow import Workflow


class Verbs(Starting, Following, Operators, Housekeeping, Probing):
    """Everything that can be asked of an app, whoever's runs it is about."""

    @property
    def bulk(self) -> Bulk:
        """Operations on all runs that fit a filter: ``cancel``, ``retry``, ``rewind``, ``delete``."""
        return Bulk(lambda: self._open_session, self._scope)

    @property
    def schedules(self) -> Schedules:
        """Series of runs: ``create``, ``get``, ``list``, ``update``, ``pause``, ``resume``, ``trigger`` and more."""
        return Schedules(lambda: self._open_session, self._registry, self._handle_of, self._scope)

    @property
    def webhooks(self) -> Webhooks:
        """The endpoints outside that are told of events."""
        return Webhooks(lambda: self._open_session, self._scope)


class Scoped(Verbs):
    """Verbs that share an app's session and are about fewer, or more, of its runs.

    Args:
        app: The app.
        scope: The runs that the verbs are about.
    """

    def __init__(self, app: Verbs, scope: Scope) -> None:
        self._app = app
        self._runs = scope

    @property
    def _session(self) -> Session | None:  # type: ignore[override]
        return self._app._session

    @property
    def _registry(self) -> Registry:  # type: ignore[override]
        return self._app._registry

    @property
    def _bus(self) -> Bus:  # type: ignore[override]
        return self._app._bus

    @property
    def _subscribers(self) -> dict[str, Subscriber]:  # type: ignore[override]
        return self._app._subscribers

    @property
    def _scope(self) -> Scope:
        return self._runs


class Tenant(Scoped):
    """An app's verbs within one tenant: the runs of others are simply not there.

    Attributes:
        id: The tenant.
    """

    def __init__(self, app: Verbs, tenant_id: str) -> None:
        super().__init__(app, Scope(check_tenant(tenant_id)))
        self.id = tenant_id

    def tenant(self, tenant_id: str) -> Tenant:
        """Return the same tenant's verbs; raise `ForeignTenant` for another's."""
        if tenant_id != self.id:
            raise ForeignTenant("from within one tenant there is no way to another", field="tenant")
        return self

    def all_tenants(self) -> NoReturn:
        """Raise `ForeignTenant`: operators ask the app itself."""
        raise ForeignTenant("from within one tenant there is no way to the others", field="tenant")

    async def pause_workflow(self, workflow: Workflow[Any, Any, Any] | str) -> None:
        """Raise `ForeignTenant`: a workflow is held up for all its tenants, by operators."""
        raise ForeignTenant("a workflow is held up for all its tenants: ask the app itself", field="tenant")

    async def unpause_workflow(self, workflow: Workflow[Any, Any, Any] | str) -> None:
        """Raise `ForeignTenant`, as `pause_workflow`."""
        await self.pause_workflow(workflow)

    def __repr__(self) -> str:
        """Name the tenant."""
        return f"<tenant {self.id}>"


class AllTenants(Scoped):
    """An app's verbs over the runs of all tenants, for operators.

    What is new belongs to one tenant and is not begun here: `TenantRequired`.
    """

    def __init__(self, app: Verbs) -> None:
        super().__init__(app, EVERYTHING)
