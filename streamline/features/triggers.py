"""Which workflows are started by what: as every process of a deployment knows it, whether or not it serves them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from streamline.domain.definition import Definition
from streamline.domain.reactions import OnCompletion, OnEvent, Trigger, matches
from streamline.domain.tenancy import check_tenant
from streamline.domain.versions import order_of
from streamline.errors import ForeignTenant, TenantRequired

Known = Mapping[str, Mapping[str, Any]]


def announcement(definition: Definition) -> dict[str, Any]:
    """Return what every process has to know of what starts a workflow."""
    events = [each.announced() for each in definition.triggers if isinstance(each, OnEvent)]
    completions = [each.announced() for each in definition.triggers if isinstance(each, OnCompletion)]
    return {"version": definition.version, "events": events, "completions": completions}


def is_to_be_announced(wanted: Mapping[str, Any], known: Mapping[str, Any] | None) -> bool:
    """Return whether what is known of a workflow is out of date: of two versions the newer counts."""
    if known is None:
        return bool(wanted["events"] or wanted["completions"])
    return wanted != known and order_of(wanted["version"]) >= order_of(known["version"])


def started_by_event(known: Known, name: str, payload: Any) -> list[str]:
    """Return the workflows that an event starts."""
    return sorted(
        workflow
        for workflow, each in known.items()
        if any(rule["name"] == name and matches(rule.get("match"), payload) for rule in each["events"])
    )


def names_tenant(known: Known, name: str, payload: Any) -> bool:
    """Return whether something that an event of no tenant starts says whose it is."""
    return any(
        rule["name"] == name and rule.get("names_tenant", False) and matches(rule.get("match"), payload)
        for each in known.values()
        for rule in each["events"]
    )


def started_by_end(known: Known, workflow: str, status: str) -> list[str]:
    """Return the workflows that the end of another one's run starts."""
    return sorted(
        name
        for name, each in known.items()
        if any(rule["workflow"] == workflow and status in rule["statuses"] for rule in each["completions"])
    )


def trigger_of(definition: Definition, event: Mapping[str, Any]) -> OnEvent | OnCompletion | None:
    """Return the trigger of a workflow that an event is for, or None where this version has none."""
    for each in definition.triggers:
        if "of" in event:
            of = event["of"]
            if isinstance(each, OnCompletion) and each.name == of["workflow"] and of["status"] in each.statuses:
                return each
        elif isinstance(each, OnEvent) and each.event == event["name"] and matches(each.match, event["payload"]):
            return each
    return None


def owner_of(trigger: Trigger, told: Any, tenant_id: str | None, *, required: bool) -> str | None:
    """Return whose run a trigger starts; None where it belongs to nobody.

    Args:
        trigger: What starts it.
        told: The payload, or the ended run: what the trigger's functions are of.
        tenant_id: Whose event it is, or whose run has ended.
        required: Whether every run must belong to a tenant.

    Raises:
        InvalidTenant: The trigger names what cannot be a tenant.
        ForeignTenant: It names another tenant than the one whose event it is.
        TenantRequired: Neither the trigger nor the event says whose the run is, and it has to be said.
    """
    if trigger.tenant is None:
        if tenant_id is None and required:
            raise TenantRequired("whose run? the event has no tenant, and the trigger names none", field="tenant")
        return tenant_id
    named = check_tenant(trigger.tenant(told) if callable(trigger.tenant) else trigger.tenant)
    if tenant_id is not None and named != tenant_id:
        raise ForeignTenant("what happens within one tenant starts no run of another", field="tenant")
    return named


def started_id(event: Mapping[str, Any], workflow: str) -> str:
    """Return the id of the run that an event starts: the same whoever starts it, ordered by time as other ids are."""
    digest = hashlib.sha256("\0".join((event["_id"], workflow)).encode()).hexdigest()[:20]
    return f"{int(event['at'].timestamp() * 1000):012x}{digest}"


def emitted_id(*place: object) -> str:
    """Return the id of an event that a handler emits at a place: the same however often the handler is entered."""
    return hashlib.sha256("\0".join(map(str, place)).encode()).hexdigest()[:32]
