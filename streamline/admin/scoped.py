"""The verbs of an app within one tenant, or for operators over all of them."""

from __future__ import annotations

from typing import Any, NoReturn

from streamline.admin.operators import Operators
from streamline.admin.starting import Starting
from streamline.domain.tenancy import check_tenant
from streamline.engine.registry import Registry
from streamline.engine.session import Session
from streamline.errors import ForeignTenant, TenantRequired
from streamline.store import EVERYTHING, Scope
from streamline.workflow import Workflow


class Verbs(Starting, Operators):
    """Everything that can be asked of an app, whoever's runs it is about."""


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
    """An app's verbs over the runs of all tenants, for operators; new runs belong to one, and are not started here."""

    def __init__(self, app: Verbs) -> None:
        super().__init__(app, EVERYTHING)

    @property
    def _home(self) -> Scope:
        raise TenantRequired("a run belongs to one tenant: use app.tenant(...) to start it", field="tenant")
