"""Whose runs a statement may see: joined to every filter at the one door."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streamline.errors import TenantRequired


@dataclass(frozen=True, slots=True)
class Scope:
    """The runs of one tenant, or all of them.

    Args:
        tenant_id: The tenant whose runs are in scope; None stands for runs that belong to no tenant.
        everything: Whether all runs are in scope, whatever their tenant.
    """

    tenant_id: str | None = None
    everything: bool = False

    def confine(self, query: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return `query` for this scope only; a condition on the tenant inside it can narrow, never widen."""
        if self.everything:
            return query
        scoped = {"tenant_id": {"$eq": self.tenant_id}}
        return {"$and": [scoped, query]} if "tenant_id" in query else {**scoped, **query}

    def admits(self, document: Mapping[str, Any]) -> bool:
        """Return whether a document is in scope."""
        return self.admits_tenant(document.get("tenant_id"))

    def admits_tenant(self, tenant_id: str | None) -> bool:
        """Return whether what belongs to a tenant, or to none, is in scope."""
        return self.everything or tenant_id == self.tenant_id

    def single(self) -> Scope:
        """Return itself where it is of one tenant, or of none; raise `TenantRequired` where it is of all."""
        if self.everything:
            raise TenantRequired("of which tenant? use app.tenant(...)", field="tenant")
        return self


EVERYTHING = Scope(everything=True)
UNTENANTED = Scope()
