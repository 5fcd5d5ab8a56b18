"""Whose runs an app is about."""

from __future__ import annotations

from dataclasses import dataclass

from streamline.domain.names import is_storable
from streamline.errors import InvalidPolicy, InvalidTenant

TENANT_MAX = 128


@dataclass(frozen=True, slots=True)
class Tenancy:
    """Whether an app has tenants.

    Args:
        required: Whether every verb must say whose runs it is about: those of one tenant, ``app.tenant("acme")``, or
            for operators those of all, ``app.all_tenants()``. Without it, verbs that do not say are about the runs
            that belong to no tenant.

    Raises:
        InvalidPolicy: ``required`` is not a bool.
    """

    required: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not isinstance(self.required, bool):
            raise InvalidPolicy("required: True or False", field="required")


def check_tenant(value: object) -> str:
    """Return `value` if it may name a tenant; raise `InvalidTenant` otherwise."""
    if not isinstance(value, str) or not 1 <= len(value) <= TENANT_MAX or "\0" in value or not is_storable(value):
        raise InvalidTenant(f"tenant: a string of 1 to {TENANT_MAX} characters without NUL", field="tenant")
    return value


def checked_tenancy(tenancy: object) -> Tenancy:
    """Return the tenancy, none that is required for None; raise `InvalidPolicy` for anything else."""
    if tenancy is None:
        return Tenancy(required=False)
    if not isinstance(tenancy, Tenancy):
        raise InvalidPolicy("tenancy: a Tenancy", field="tenancy")
    return tenancy
