"""Whose runs triggers start: the event's tenant's, or where it has none, those of the tenant that the trigger names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from streamline import Context, OnCompletion, OnEvent, Tenancy, Workflow
from streamline.errors import InvalidPolicy, InvalidTenant, TenantRequired
from tests.clocks import MovableClock
from tests.waiting import eventually

STRICT = {"tenancy": Tenancy(required=True)}
FREE: dict[str, Any] = {"tenancy": None}


def telling(name: str, *triggers: Any, version: str = "1.0.0") -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow(name, version=version, triggers=triggers)

    @wf.step
    async def tell(ctx: Context[Any]) -> Any:
        return [ctx.tenant_id, ctx.input]

    return wf


def shop(payload: Any) -> Any:
    return payload["shop"]


@pytest.fixture
def inbox(database: Any) -> Any:
    return database["streamline.inbox"]


async def started(runs: Any, workflow: str) -> dict[str, Any]:
    found: dict[str, Any] = await eventually(
        lambda: runs.find_one({"workflow": workflow, "ended_at": {"$exists": True}})
    )
    return found


async def refused(inbox: Any, query: dict[str, Any]) -> list[tuple[str, str]]:
    event = await eventually(lambda: inbox.find_one({**query, "failures": {"$exists": True}}))
    assert event["triggers"] == []
    return [(each["workflow"], each["code"]) for each in event["failures"]]


async def test_an_event_of_no_tenant_starts_a_run_of_the_tenant_that_it_names(make_app: Any, runs: Any) -> None:
    wf = telling("welcome", OnEvent("sold", tenant=shop))
    async with make_app(wf, **STRICT) as app:
        assert await app.all_tenants().send_event("sold", {"shop": "acme"}) == 1
        (run,) = (await app.tenant("acme").runs("welcome")).items
        assert await app.tenant("acme").handle(run.id).result("20s") == ["acme", {"shop": "acme"}]
        assert (await app.tenant("other").runs()).items == ()
    assert await runs.count_documents({}) == 1


async def test_a_tenant_may_be_named_once_and_for_all(make_app: Any, runs: Any) -> None:
    wf = telling("audit", OnEvent("sold", input=shop, tenant="head-office"))
    async with make_app(wf, **FREE) as app:
        assert await app.send_event("sold", {"shop": "acme"}) == 1
        run = await started(runs, "audit")
    assert run["output"] == ["head-office", "acme"]


async def test_the_end_of_a_run_of_no_tenant_starts_a_run_of_the_tenant_that_it_names(make_app: Any, runs: Any) -> None:
    source = telling("import")
    report = telling("report", OnCompletion(source, tenant=lambda run: run.output[1]))
    audit = telling("audit", OnCompletion(source, tenant="head-office"))
    async with make_app(source, report, audit, **FREE) as app:
        await app.run(source, "acme", timeout="20s")
        reported, audited = await started(runs, "report"), await started(runs, "audit")
    assert reported["output"] == ["acme", [None, "acme"]]
    assert audited["output"] == ["head-office", [None, "acme"]]


async def test_a_tenants_event_starts_runs_of_that_tenant_only(make_app: Any, runs: Any, inbox: Any) -> None:
    wf = telling("welcome", OnEvent("sold", tenant=shop))
    async with make_app(wf, **STRICT) as app:
        acme = app.tenant("acme")
        assert await acme.send_event("sold", {"shop": "acme"}) == 1
        assert (await started(runs, "welcome"))["tenant_id"] == "acme"
        assert await acme.send_event("sold", {"shop": "other"}) == 0
        assert await refused(inbox, {"payload.shop": "other"}) == [("welcome", "tenant.foreign")]
    assert await runs.count_documents({}) == 1


async def test_the_end_of_a_tenants_run_starts_runs_of_that_tenant_only(make_app: Any, runs: Any, inbox: Any) -> None:
    source = telling("import")
    flows = (source, telling("report", OnCompletion(source)), telling("leak", OnCompletion(source, tenant="other")))
    async with make_app(*flows, **STRICT) as app:
        await app.tenant("acme").run(source, timeout="20s")
        assert (await started(runs, "report"))["tenant_id"] == "acme"
        assert await refused(inbox, {}) == [("leak", "tenant.foreign")]
    assert await runs.count_documents({}) == 2


@pytest.mark.parametrize("named", [None, "", {}, 5, ["acme"], "a\0b", "x" * 129], ids=repr)
async def test_what_cannot_be_a_tenant_is_a_dead_letter(make_app: Any, runs: Any, inbox: Any, named: Any) -> None:
    wf = telling("welcome", OnEvent("sold", tenant=lambda payload: named))
    clock = MovableClock()
    async with make_app(wf, worker=False, clock=clock, **STRICT) as app:
        assert await app.all_tenants().send_event("sold", {}) == 0
        assert await app.tenant("acme").send_event("sold", {}) == 0
        for _ in range(2):  # it is not tried again
            clock.move(minutes=1)
            await app.tick()
        events = [event async for event in inbox.find({})]
    assert [[(each["workflow"], each["code"]) for each in event["failures"]] for event in events] == [
        [("welcome", "tenant.invalid")]
    ] * 2
    assert await runs.count_documents({}) == 0


async def test_a_function_that_raises_is_a_dead_letter(make_app: Any, runs: Any, inbox: Any) -> None:
    async with make_app(telling("welcome", OnEvent("sold", tenant=shop)), **STRICT) as app:
        assert await app.all_tenants().send_event("sold", {"no": "shop"}) == 0
        assert await refused(inbox, {}) == [("welcome", "KeyError")]
    assert await runs.count_documents({}) == 0


async def test_where_tenants_are_required_an_event_of_none_starts_nothing_of_none(
    make_app: Any, runs: Any, inbox: Any
) -> None:
    """An app that requires no tenants may share the database; what it sends has no tenant."""
    wf = telling("welcome", OnEvent("sold"))
    async with make_app(wf, **STRICT), make_app(worker=False, **FREE) as free:
        await free.send_event("sold", {"shop": "acme"})
        assert await refused(inbox, {}) == [("welcome", "tenant.required")]
    assert await runs.count_documents({}) == 0


async def test_operators_send_to_nobody_unless_something_names_its_tenant(make_app: Any, inbox: Any) -> None:
    wf = telling("welcome", OnEvent("sold", match={"big": True}, tenant=shop), OnEvent("bought"))
    async with make_app(wf, worker=False, **STRICT) as app:
        operators = app.all_tenants()
        calls: list[Callable[[], Any]] = [
            lambda: operators.send_event("unknown", {}),
            lambda: operators.send_event("bought", {}),
            lambda: operators.send_event("sold", {"shop": "acme", "big": False}),
            lambda: operators.send_event("sold", {"shop": "acme", "big": True}, match={"input": 1}),
        ]
        for call in calls:
            with pytest.raises(TenantRequired):
                await call()
        assert await inbox.count_documents({}) == 0
        assert await operators.send_event("sold", {"shop": "acme", "big": True}) == 1


async def test_what_one_trigger_names_is_not_the_tenant_of_another(make_app: Any, runs: Any, inbox: Any) -> None:
    flows = (telling("named", OnEvent("sold", tenant=shop)), telling("unnamed", OnEvent("sold")))
    async with make_app(*flows, **STRICT) as app:
        assert await app.all_tenants().send_event("sold", {"shop": "acme"}) == 1
        assert await refused(inbox, {}) == [("unnamed", "tenant.required")]
    assert [run["workflow"] async for run in runs.find({})] == ["named"]


async def test_an_event_of_no_tenant_goes_on_no_run_of_a_tenant(make_app: Any, runs: Any) -> None:
    waiting: Workflow[Any, Any, Any] = Workflow("waiting")

    @waiting.step
    async def wait(ctx: Context[Any]) -> Any:
        return await ctx.wait_for("sold", timeout="20s", default="nothing")

    async with make_app(waiting, telling("welcome", OnEvent("sold", tenant=shop)), **STRICT) as app:
        handle = await app.tenant("acme").start(waiting)
        await eventually(lambda: runs.find_one({"_id": handle.id, "status": "waiting"}))
        assert await app.all_tenants().send_event("sold", {"shop": "acme"}) == 1
        await started(runs, "welcome")
        assert await handle.status() == "waiting"


async def test_whoever_starts_it_again_finds_the_run_though_it_would_name_another_tenant(
    make_app: Any, runs: Any, inbox: Any
) -> None:
    """Whoever started it has died before it noted that; meanwhile a newer version names other tenants."""
    old = telling("welcome", OnEvent("sold", tenant=shop))
    new = telling("welcome", OnEvent("sold", tenant="all-shops"), version="2.0.0")
    clock = MovableClock()
    async with make_app(old, worker=False, clock=clock, **STRICT) as app:
        assert await app.all_tenants().send_event("sold", {"shop": "acme"}) == 1
    await inbox.update_one({}, {"$set": {"triggers": ["welcome"]}})
    async with make_app(old, new, worker=False, clock=clock, **STRICT) as app:
        clock.move(minutes=1)
        await app.tick()
        event = await inbox.find_one({})
    assert (event["triggers"], "failures" in event) == ([], False)
    assert [run["tenant_id"] async for run in runs.find({})] == ["acme"]


async def test_of_many_processes_one_starts_the_run(make_app: Any, runs: Any) -> None:
    wf = telling("welcome", OnEvent("sold", tenant=shop))
    async with make_app(wf, **STRICT) as one, make_app(wf, **STRICT), make_app(worker=False, **STRICT) as stranger:
        apps = [one, stranger]
        sends = (apps[n % 2].all_tenants().send_event("sold", {"shop": f"shop-{n % 3}", "n": n}) for n in range(12))
        await asyncio.gather(*sends)
        await eventually(lambda: _are(runs, 12))
        found = [(run["tenant_id"], run["input"]["shop"]) async for run in runs.find({})]
    assert len(found) == 12
    assert all(tenant_id == named for tenant_id, named in found)


async def _are(runs: Any, count: int) -> bool:
    return bool(await runs.count_documents({"ended_at": {"$exists": True}}) >= count)


@pytest.mark.parametrize("trigger", [lambda tenant: OnEvent("e", tenant=tenant), lambda t: OnCompletion("w", tenant=t)])
def test_what_cannot_name_a_tenant_is_refused_when_it_is_declared(trigger: Any) -> None:
    for wrong in ("", "a\0b", "x" * 129):
        with pytest.raises(InvalidTenant) as refusal:
            trigger(wrong)
        assert refusal.value.field == "tenant"
    for wrong in (5, {}, ["acme"]):
        with pytest.raises(InvalidPolicy) as policy:
            trigger(wrong)
        assert policy.value.field == "tenant"
