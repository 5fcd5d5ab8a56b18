"""Starting the children of a run, each once, and ending those that are no longer wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from streamline.domain.definition import Definition
from streamline.domain.gates import gate_of
from streamline.domain.payloads import check_input
from streamline.domain.transitions.birth import Order
from streamline.engine.control import Control
from streamline.engine.gates.entry import Entrance
from streamline.engine.gates.throttles import Throttles
from streamline.engine.held.limits import check_payload
from streamline.engine.primitives.families import Wanted
from streamline.engine.runtime import Runtime
from streamline.errors import IdempotencyConflict
from streamline.features.joining import child_id
from streamline.store import EVERYTHING, statements
from streamline.telemetry import carried


async def spawn(
    runtime: Runtime,
    parent: Mapping[str, Any],
    wanted: Sequence[Wanted],
    *,
    fan: str,
    policy: Any,
    on_parent_close: str,
) -> list[str]:
    """Insert children under ids that follow from their place: one that is there already is the same child.

    Raises:
        InvalidInput, SerializationError, PayloadTooLarge: An input is not of the allowed form; nothing is stored.
        IdempotencyConflict: Somebody else's run has the id of a child.
    """
    orders = [_order(runtime, parent, each, fan, policy, on_parent_close) for each in wanted]
    newborns = await Entrance(runtime, Throttles(runtime)).newborns(orders, None)
    inserts = [runtime.insertion(run, order.weight) for order, run in zip(orders, newborns, strict=True)]
    outcomes = await runtime.store.sheltered(lambda: runtime.store.insert_many(inserts))
    for insert, outcome in zip(inserts, outcomes, strict=True):
        if outcome == "inserted":
            runtime.newborn(insert.document)
    runtime.announce_newborns(newborns)
    await _check_kin(
        runtime, parent, fan, {i.run_id for i, outcome in zip(inserts, outcomes, strict=True) if outcome == "id_taken"}
    )
    return [order.run_id for order in orders]


async def _check_kin(runtime: Runtime, parent: Mapping[str, Any], fan: str, there: set[str]) -> None:
    """Raise `IdempotencyConflict` where a run that is there already is not the child that was to be inserted."""
    if not there:
        return
    found = await runtime.store.run(statements.find_children(parent["_id"], parent["born"], fan))
    if strangers := there - {child["_id"] for child in found}:
        raise IdempotencyConflict(f"run_id: {len(strangers)} ids of children are those of other runs", field="run_id")


async def close(runtime: Runtime, children: Sequence[Mapping[str, Any]], reason: str) -> None:
    """Cancel children."""
    control = Control(runtime)
    for child in children:
        if child["status"] != "missing":
            await control.cancel(child["_id"], EVERYTHING, reason=reason, by=None)


def _gate_of_child(definition: Definition, value: Any, tenant_id: str | None) -> dict[str, Any]:
    # Each child is a run of its own: it cannot be merged with another into one draft.
    gate = gate_of(definition, value, tenant_id)
    return {name: key for name, key in gate.items() if name != "debounce_key"}


def _order(
    runtime: Runtime, parent: Mapping[str, Any], wanted: Wanted, fan: str, policy: Any, on_parent_close: str
) -> Order:
    definition, now = wanted.definition, runtime.clock.now()
    encoded = check_input(definition.input, wanted.input)
    check_payload(runtime, definition.max_payload_bytes, encoded, "input")
    return Order(
        run_id=child_id(parent, fan, wanted.name),
        definition=definition,
        input=encoded.value,
        weight=encoded.size,
        priority=parent["priority"],
        tenant_id=parent.get("tenant_id"),
        parent={
            "run_id": parent["_id"],
            "born": parent["born"],
            "step": fan.partition(".")[0],
            "fan": fan,
            "name": wanted.name,
            "policy": policy,
            "wait": policy is not None,
            "on_close": on_parent_close,
        },
        root_run_id=parent.get("root_run_id", parent["_id"]),
        deadline_at=None if definition.run_timeout is None else now + definition.run_timeout,
        chain=parent.get("chain", 0),
        start_by=None if definition.start_by is None else now + definition.start_by,
        gate=_gate_of_child(definition, encoded.value, parent.get("tenant_id")),
        trace=carried(),
    )
