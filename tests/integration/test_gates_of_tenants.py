"""Throttles, debounces and limits count within a tenant; a start that does not say whose it is stores nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streamline import Concurrency, Context, Debounce, Tenancy, Throttle, Workflow
from streamline.errors import TenantRequired

GATES: dict[str, dict[str, Any]] = {
    "limit": {"concurrency": Concurrency(1, key=lambda said: said["key"])},
    "throttle": {"throttle": Throttle(1, "1h", key=lambda said: said["key"])},
    "debounce": {"debounce": Debounce("1h", key=lambda said: said["key"])},
}


def held_back(**gate: Any) -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow("gated", **gate)

    @wf.step
    async def wait(ctx: Context[Any]) -> Any:
        return await ctx.wait("go")

    return wf


@pytest.mark.parametrize("gate", GATES)
async def test_each_tenant_passes_the_gate_for_itself(make_app: Any, runs: Any, gate: str) -> None:
    wf, said = held_back(**GATES[gate]), {"key": "the same"}
    async with make_app(wf, worker=False, tenancy=Tenancy(required=True)) as app:
        acme, other = app.tenant("acme"), app.tenant("other")
        first, second, third = await acme.start(wf, said), await acme.start(wf, said), await other.start(wf, said)
        assert len({first.id, third.id}) == 2
        stored = {run["_id"]: run async for run in runs.find({})}
    if gate == "debounce":
        assert second.id == first.id
        assert len({run["debounce_key"] for run in stored.values()}) == 2
    elif gate == "throttle":
        begin = {name: stored[each.id]["due_at"] for name, each in (("1", first), ("2", second), ("3", third))}
        assert begin["2"] - begin["1"] == timedelta(hours=1)
        assert begin["3"] - begin["1"] < timedelta(minutes=1)
    else:
        slots = [stored[each.id].get("slot") for each in (first, second, third)]
        assert slots == [0, None, 0]
    assert {run["tenant_id"] for run in stored.values()} == {"acme", "other"}


@pytest.mark.parametrize("gate", GATES)
async def test_a_start_without_a_tenant_stores_nothing(make_app: Any, database: Any, gate: str) -> None:
    wf = held_back(**GATES[gate])
    async with make_app(wf, worker=False, tenancy=Tenancy(required=True)) as app:
        for view in (app, app.all_tenants()):
            with pytest.raises(TenantRequired):
                await view.start(wf, {"key": "k"})
            with pytest.raises(TenantRequired):
                await view.start_many(wf, [{"key": "k"}])
        assert await database["streamline.runs"].count_documents({}) == 0
        assert await database["streamline.gates"].count_documents({}) == 0
