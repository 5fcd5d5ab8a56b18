"""Tenants: whose runs a verb is about, what has to say so, and what the engine does within the run's tenant."""

from __future__ import annotations

from typing import Any

import pytest

from streamline import Concurrency, Context, OnEvent, Tenancy, Workflow
from streamline.errors import (
    ForeignTenant,
    InvalidKey,
    InvalidPolicy,
    InvalidTenant,
    RunNotFound,
    ScheduleNotFound,
    TenantRequired,
)
from tests.waiting import eventually, status_of

STRICT = {"tenancy": Tenancy(required=True)}


def whose() -> Workflow[Any, Any, Any]:
    """A workflow that returns its tenant, after a child has returned its own."""
    child: Workflow[Any, Any, Any] = Workflow("child")

    @child.step
    async def tell(ctx: Context[Any]) -> Any:
        return ctx.tenant_id

    wf: Workflow[Any, Any, Any] = Workflow("whose")

    @wf.step
    async def ask(ctx: Context[Any]) -> Any:
        return [ctx.tenant_id, await ctx.start_child(child)]

    wf.child = child  # type: ignore[attr-defined]
    return wf


def waiter() -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow("waiter")

    @wf.step
    async def wait(ctx: Context[Any]) -> Any:
        return await ctx.wait_for("paid")

    return wf


async def test_every_verb_has_to_say_whose_runs_it_is_about(make_app: Any) -> None:
    wf = waiter()
    async with make_app(wf, worker=False, **STRICT) as app:
        for verb in (
            lambda: app.start(wf), lambda: app.start_many(wf, [1]), lambda: app.run(wf), lambda: app.get("r"),
            app.runs, app.count_runs, app.stats, app.versions,
            lambda: app.send_event("e"), lambda: app.cancel("r"), app.pending_waits,
            lambda: app.pause_workflow(wf), lambda: app.unpause_workflow(wf), lambda: app.remove_subscriber("s"),
            lambda: app.resume_hook("t"), lambda: app.fork("r", "wait"), lambda: app.handle("r").wait(),
        ):  # fmt: skip
            with pytest.raises(TenantRequired):
                await verb()
        for verb in (
            lambda: app.schedules, lambda: app.webhooks, app.events, lambda: app.subscriber("s"),
            lambda: app.on("*", print),
        ):  # fmt: skip
            with pytest.raises(TenantRequired):
                verb()


async def test_a_run_and_its_children_are_its_tenants(make_app: Any, runs: Any) -> None:
    wf = whose()
    async with make_app(wf, wf.child, **STRICT) as app:  # type: ignore[attr-defined]
        assert await app.tenant("acme").run(wf, timeout="20s") == ["acme", "acme"]
        assert {run["tenant_id"] async for run in runs.find()} == {"acme"}


async def test_a_run_of_another_tenant_is_simply_not_found(make_app: Any) -> None:
    wf = waiter()
    async with make_app(wf, **STRICT) as app:
        handle = await app.tenant("acme").start(wf)
        await status_of(handle, "waiting")
        other = app.tenant("other")
        for verb in (other.get, other.cancel, other.pause, other.retry):
            with pytest.raises(RunNotFound):
                await verb(handle.id)
        with pytest.raises(RunNotFound):
            await other.send_event("paid", run_id=handle.id)
        assert (await other.runs()).items == ()
        assert await other.send_event("paid", "theirs") == 0
        assert await app.tenant("acme").send_event("paid", "ours") == 1
        assert await handle.result("20s") == "ours"


async def test_a_run_that_is_driven_here_is_not_waited_for_by_another_tenant(make_app: Any) -> None:
    """Without a look at the database it would be waited for until it ends."""
    wf: Workflow[Any, Any, Any] = Workflow("busy")

    @wf.step
    async def stay(ctx: Context[Any]) -> None:
        await app._clock.sleep(600)

    async with make_app(wf, **STRICT) as app:
        handle = await app.tenant("acme").start(wf)
        await status_of(handle, "running")
        with pytest.raises(RunNotFound):
            await app.tenant("other").handle(handle.id).result("10s")
        await handle.cancel()


async def test_one_key_of_two_tenants_is_two_keys(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("limited", concurrency=Concurrency(1, on_limit="reject"))

    @wf.step
    async def wait(ctx: Context[Any]) -> Any:
        return await ctx.wait("go")

    async with make_app(wf, **STRICT) as app:
        first = await app.tenant("acme").start(wf, idempotency_key="k")
        second = await app.tenant("other").start(wf, idempotency_key="k")
        assert first.id != second.id
        assert (await app.tenant("acme").start(wf, idempotency_key="k")).id == first.id
        assert [queue.at_work for queue in (await app.tenant("acme").stats()).queues] == [1]
        assert sum((await app.all_tenants().count_runs()).values()) == 2


async def test_operators_see_all_and_begin_nothing(make_app: Any) -> None:
    wf = waiter()
    async with make_app(wf, **STRICT) as app:
        handle = await app.tenant("acme").start(wf)
        operators = app.all_tenants()
        assert (await operators.get(handle.id)).tenant_id == "acme"
        for verb in (
            lambda: operators.start(wf), lambda: operators.start_many(wf, [1]), lambda: operators.send_event("paid"),
            lambda: operators.schedules.create("s", wf, every="1h"), lambda: operators.schedules.get("s"),
            lambda: operators.webhooks.get("w"),
        ):  # fmt: skip
            with pytest.raises(TenantRequired):
                await verb()
        await status_of(handle, "waiting")
        assert await operators.send_event("paid", 7, run_id=handle.id) == 1
        assert await operators.handle(handle.id).result("20s") == 7


async def test_from_within_a_tenant_there_is_no_way_out(make_app: Any) -> None:
    wf = waiter()
    async with make_app(wf, worker=False, **STRICT) as app:
        acme = app.tenant("acme")
        assert acme.tenant("acme").id == "acme"
        for verb in (lambda: acme.tenant("other"), acme.all_tenants):
            with pytest.raises(ForeignTenant):
                verb()
        for verb in (acme.pause_workflow, acme.unpause_workflow):
            with pytest.raises(ForeignTenant):
                await verb(wf)
        for bad in ("", "x" * 129, "a\0b", None, 7, {"$ne": None}, "\ud800"):
            with pytest.raises(InvalidTenant):
                app.tenant(bad)
    with pytest.raises(InvalidPolicy):
        Tenancy(required="yes")  # type: ignore[arg-type]
    with pytest.raises(InvalidPolicy):
        make_app(wf, tenancy="acme")


async def test_schedules_webhooks_and_subscribers_of_one_name_are_two(make_app: Any, database: Any) -> None:
    wf = waiter()
    async with make_app(wf, worker=False, **STRICT) as app:
        acme, other = app.tenant("acme"), app.tenant("other")
        for tenant in (acme, other):
            made = await tenant.schedules.create("nightly", wf, daily="02:00")
            assert made.tenant_id == tenant.id
            await tenant.webhooks.create("hook", f"https://{tenant.id}.example.com/")
            assert await tenant.subscriber("audit").position() == 0
        await acme.schedules.delete("nightly")
        with pytest.raises(ScheduleNotFound):
            await acme.schedules.get("nightly")
        assert (await other.schedules.get("nightly")).id == "nightly"
        assert [each.id for each in (await app.all_tenants().schedules.list()).items] == ["nightly"]
        assert [each.tenant_id for each in await app.all_tenants().webhooks.list()] == ["acme", "other"]
        await acme.remove_subscriber("audit")
        stored = {each["_id"] async for each in database["streamline.subscribers"].find()}
        assert stored == {"webhook:acme:hook", "webhook:other:hook", "other/audit"}


async def test_what_is_told_is_told_to_the_tenant(make_app: Any) -> None:
    wf = whose()
    async with make_app(wf, wf.child, **STRICT) as app:  # type: ignore[attr-defined]
        live, heard = {"acme": [], None: []}, {"acme": [], None: []}  # type: ignore[var-annotated]
        views = {"acme": app.tenant("acme"), None: app.all_tenants()}
        for name, view in views.items():
            view.on("run.done", live[name].append)
            view.subscriber("audit", on="run.done")(heard[name].append)
        await eventually(lambda: app._open_session.runtime.outbox.is_on)
        for tenant in ("acme", "other"):
            await app.tenant(tenant).run(wf, timeout="20s")
        await eventually(lambda: len(heard[None]) == 4)
        await eventually(lambda: len(heard["acme"]) == 2)
        for told in (live, heard):
            assert [event.tenant_id for event in told["acme"]] == ["acme", "acme"]
            assert sorted(event.tenant_id for event in told[None]) == ["acme", "acme", "other", "other"]
        log = [event.tenant_id for event in await first_of(app.tenant("other").events("run.done", after=0), 2)]
        assert log == ["other", "other"]


async def first_of(events: Any, count: int) -> list[Any]:
    found = []
    async for event in events:
        found.append(event)
        if len(found) == count:
            break
    await events.aclose()
    return found


async def test_a_trigger_starts_a_run_of_the_events_tenant(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("started", triggers=[OnEvent("order.placed")])

    @wf.step
    async def tell(ctx: Context[Any]) -> Any:
        return ctx.tenant_id

    async with make_app(wf, **STRICT) as app:
        assert await app.tenant("acme").send_event("order.placed", {"n": 1}) == 1
        (run,) = (await app.tenant("acme").runs()).items
        assert await app.tenant("acme").handle(run.id).result("20s") == "acme"
        assert (await app.tenant("other").runs()).items == ()


async def test_an_occurrence_is_not_taken_away_by_whoever_chooses_its_id(make_app: Any) -> None:
    """Ids of runs are one for all tenants; those of occurrences can be told in advance."""
    wf = waiter()
    async with make_app(wf, **STRICT) as app:
        acme = app.tenant("acme")
        schedule = await acme.schedules.create("soon", wf, every="1s", count=1)
        (at,) = (each.at for each in schedule.preview(1))
        taken = f"acme/soon@{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"
        with pytest.raises(InvalidKey, match="those of schedules"):
            await app.tenant("other").start(wf, run_id=taken)

        async def decided() -> Any:
            found = await acme.schedules.get("soon")
            return found if found.ended else None

        assert (await eventually(decided)).failed == 0


async def test_without_tenancy_an_app_is_about_the_runs_of_no_tenant(make_app: Any) -> None:
    wf = whose()
    async with make_app(wf, wf.child, tenancy=None) as app:  # type: ignore[attr-defined]
        assert await app.run(wf, timeout="20s") == [None, None]
        assert await app.tenant("acme").run(wf, timeout="20s") == ["acme", "acme"]
        assert {run.tenant_id for run in (await app.runs()).items} == {None}
        assert {run.tenant_id for run in (await app.all_tenants().runs()).items} == {None, "acme"}
