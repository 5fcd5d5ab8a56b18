"""An app that requires tenants, seen from within one of them: tests that know of no tenant run in strict mode."""

from __future__ import annotations

from typing import Any

from streamline import Streamline, Tenancy, Tenant

TENANT = "the-suite"
FOR_OPERATORS = frozenset({"pause_workflow", "unpause_workflow"})


class OneTenant:
    """Has the verbs of the tenant, and whatever else an app has."""

    def __init__(self, *args: Any, **options: Any) -> None:
        app = Streamline(*args, tenancy=Tenancy(required=True), **options)
        vars(self).update(_app=app, _verbs=app.tenant(TENANT))

    @property
    def __class__(self) -> Any:
        return Streamline

    async def __aenter__(self) -> Any:
        await self._app.__aenter__()
        return self

    async def __aexit__(self, *raised: Any) -> None:
        await self._app.__aexit__(*raised)

    def __getattr__(self, name: str) -> Any:
        if name in FOR_OPERATORS:
            return getattr(self._app.all_tenants(), name)
        return getattr(self._verbs if name in dir(Tenant) else self._app, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._app, name, value)
