"""Which gates a run has to pass before it begins, and under which keys: kept in the run from birth."""

from __future__ import annotations

from typing import Any

from streamline.domain.definition import Definition
from streamline.domain.flow import Key
from streamline.domain.names import check_key
from streamline.errors import InvalidKey


def gate_of(definition: Definition, stored: Any, tenant_id: str | None) -> dict[str, Any]:
    """Return the keys under which a run with this input passes its workflow's gates; empty where there are none.

    Args:
        definition: The workflow.
        stored: The validated input, as it is stored.
        tenant_id: The run's tenant: gates are per tenant.

    Raises:
        InvalidKey: A key's function fails, or returns what cannot be a key.
    """
    if not definition.is_gated:
        return {}
    gates = {
        "slot_key": definition.concurrency,
        "throttle_key": definition.throttle,
        "debounce_key": definition.debounce,
    }
    declared = {name: gate.key for name, gate in gates.items() if gate is not None}
    value = definition.input.decode(stored) if any(declared.values()) else None
    return {
        name: full_key(definition.name, tenant_id, _key_of(derive, value, name)) for name, derive in declared.items()
    }


def full_key(workflow: str, tenant_id: str | None, key: str) -> str:
    """Return the one text under which all processes know a key of a workflow of a tenant."""
    # The tenant says how long it is, so that no two read the same; a workflow's name has no slash.
    tenant = "-" if tenant_id is None else f"{len(tenant_id)}:{tenant_id}"
    return f"{workflow}/{tenant}/{key}"


def short_key(full: str) -> str:
    """Return the user's part of a full key."""
    _, _, rest = full.partition("/")
    if rest.startswith("-/"):
        return rest[2:]
    length, _, named = rest.partition(":")
    return named[int(length) + 1 :]


def _key_of(derive: Key | None, value: Any, field: str) -> str:
    if derive is None:
        return ""
    try:
        key = derive(value)
    except Exception as error:
        raise InvalidKey(f"{field}: its function raised {type(error).__name__}", field=field) from error
    if isinstance(key, int) and not isinstance(key, bool):
        key = str(key)
    return check_key(key, field)
