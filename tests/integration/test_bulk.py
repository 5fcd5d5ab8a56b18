"""Operations on many runs: each by its own guarded write, none too many, and safe to repeat."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from streamline import BulkFailure, BulkResult, Context, NonRetriableError, Settings, Tenancy, Workflow
from streamline.engine.control import Control
from streamline.errors import InvalidPolicy, InvalidQuery, StoreUnavailable, TenantRequired
from tests.clocks import LONG_AGO, MovableClock
from tests.waiting import eventually


def orders() -> Workflow[Any, Any, Any]:
    """Runs that fail while `broken` says so."""
    wf: Workflow[Any, Any, Any] = Workflow("order", input=dict)

    @wf.step
    async def pack(ctx: Context[dict[str, Any]]) -> str:
        return str(ctx.input["customer"])

    @wf.step
    async def send(ctx: Context[dict[str, Any]]) -> str:
        if ctx.input["customer"] in broken:
            raise NonRetriableError("no")
        return "sent"

    return wf


broken: set[str] = set()


@pytest.fixture(autouse=True)
def nobody_is_broken() -> Any:
    yield
    broken.clear()


async def stored(runs: Any) -> list[dict[str, Any]]:
    return [run async for run in runs.find().sort("_id")]


async def statuses(app: Any, **query: Any) -> dict[str, str]:
    return {run.id: run.status async for run in app.iter_runs(**query)}


async def start(app: Any, *customers: str, **options: Any) -> list[str]:
    """Start a run for each customer, one a millisecond, so that they have an order."""
    ids = []
    for customer in customers:
        ids.append((await app.start("order", {"customer": customer}, **options)).id)
        app._clock.move(milliseconds=1)
    return ids


async def test_runs_that_fit_are_cancelled_and_no_others(make_app: Any) -> None:
    async with make_app(orders(), worker=False, clock=MovableClock()) as app:
        (over,) = await start(app, "ann")
        await app.tick()
        ann, ben, another = await start(app, "ann", "ben", "ann")
        result = await app.bulk.cancel({"input.customer": "ann"}, reason="closed", by="me")
        assert result == BulkResult(matched=2, changed=2, run_ids=result.run_ids)
        assert sorted(result.run_ids) == sorted((ann, another))
        assert await statuses(app) == {over: "done", ann: "cancelled", ben: "draft", another: "cancelled"}
        cancel = (await app.get(ann)).cancel
        assert (cancel["reason"], cancel["by"]) == ("closed", "me")
        again = await app.bulk.cancel({"input.customer": "ann"})
        assert again == BulkResult()


async def test_a_limit_takes_the_oldest(make_app: Any) -> None:
    async with make_app(orders(), worker=False, clock=MovableClock()) as app:
        ids = await start(app, *"abcdef")
        assert (await app.bulk.cancel({}, limit=2)).matched == 2
        assert set((await app.bulk.cancel({"workflow": "order"}, limit=2)).run_ids) == set(ids[2:4])
        left = [run_id for run_id, status in (await statuses(app)).items() if status == "draft"]
        assert sorted(left) == sorted(ids[4:])
        assert (await app.bulk.cancel({"workflow": orders()}, limit=500)).changed == 2


async def test_a_dry_run_writes_nothing(make_app: Any, runs: Any) -> None:
    broken.add("ann")
    async with make_app(orders(), worker=False, clock=MovableClock()) as app:
        failed = await start(app, "ann", "ann")
        await app.tick()
        waiting = await start(app, "ann")
        before = await stored(runs)
        by_customer = {"input.customer": "ann"}
        assert await app.bulk.cancel(by_customer, dry_run=True) == BulkResult(1, run_ids=tuple(waiting), dry_run=True)
        assert await app.bulk.retry(by_customer, dry_run=True) == BulkResult(2, run_ids=tuple(failed), dry_run=True)
        rewound = await app.bulk.rewind(by_customer, "pack", limit=1, dry_run=True)
        assert rewound == BulkResult(1, run_ids=tuple(failed[:1]), dry_run=True)
        assert await stored(runs) == before


async def test_failed_runs_are_retried(make_app: Any) -> None:
    broken.update(("ann", "ben"))
    async with make_app(orders(), worker=False, clock=MovableClock()) as app:
        ann, ben, cid = await start(app, "ann", "ben", "cid")
        await app.tick()
        broken.clear()
        result = await app.bulk.retry({"workflow": "order"})
        assert (result.matched, result.changed) == (2, 2)
        await app.tick()
        assert await statuses(app) == dict.fromkeys((ann, ben, cid), "done")
        assert await app.bulk.retry({"workflow": "order", "status": ["done"]}) == BulkResult()


async def test_what_cannot_be_changed_is_counted_and_named(make_app: Any) -> None:
    broken.add("ann")
    async with make_app(orders(), worker=False, clock=MovableClock()) as app:
        (first,) = await start(app, "ann", idempotency_key="k")
        await app.tick()
        await start(app, "ann", idempotency_key="k")
        (other,) = await start(app, "ann")
        await app.tick(max_runs=0)
        result = await app.bulk.retry({"status": "failed"})
        assert (result.matched, result.changed, result.failed) == (1, 0, 1)
        (failure,) = result.failures
        assert isinstance(failure, BulkFailure)
        assert (failure.run_id, failure.code) == (first, "idempotency.conflict")
        assert (await app.get(other)).status == "draft"


async def test_runs_are_done_again_from_a_step(make_app: Any) -> None:
    async with make_app(orders(), worker=False, clock=MovableClock()) as app:
        wf = app._registry.latest("order")
        ids = await start(app, "ann", "ben")
        await app.tick()
        result = await app.bulk.rewind({"workflow": "order", "status": "done"}, wf.steps[1].id, by="me")
        assert (result.matched, result.changed) == (2, 2)
        assert set((await statuses(app)).values()) == {"waiting"}
        # A repeat finds none that is done, and the runs are carried out once more each.
        assert await app.bulk.rewind({"workflow": "order", "status": "done"}, "send") == BulkResult()
        await app.tick()
        run = await app.get(ids[0])
        assert (run.status, run.step("pack").generation, run.step("send").generation) == ("done", 0, 1)
        unknown = await app.bulk.rewind({"workflow": "order"}, "nowhere")
        assert (unknown.matched, unknown.failed, unknown.failures[0].code) == (2, 2, "step.not_found")


async def test_runs_that_are_started_meanwhile_are_left_alone(make_app: Any) -> None:
    async with make_app(orders(), worker=False, clock=MovableClock()) as app:
        old = await start(app, *"abc")
        new: list[Any] = []

        async def again(event: Any) -> None:
            new.append(await app.start("order", {"customer": "new"}))

        app.on("run.cancelled", again)
        app._clock.move(seconds=1)
        result = await app.bulk.cancel({"workflow": "order"})
        assert sorted(result.run_ids) == sorted(old)
        await eventually(lambda: len(new) == len(old))
        assert {(await handle.status()) for handle in new} == {"draft"}


async def test_of_two_who_do_it_at_once_each_run_is_changed_by_one(make_app: Any, runs: Any) -> None:
    broken.add("ann")
    async with make_app(orders(), worker=False, clock=MovableClock()) as app:
        await app.start_many("order", [{"customer": "ann"}] * 60)
        await app.tick()
        results = await asyncio.gather(*(app.bulk.retry({"status": "failed"}) for _ in range(3)))
        assert sum(result.changed for result in results) == 60
        assert all(result.failed == 0 and result.matched == result.changed + result.skipped for result in results)
        for run in await stored(runs):
            assert [event["type"] for event in run["events"]].count("run.retried") == 1


async def test_what_was_broken_off_is_repeated(make_app: Any, runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real, done, reached = Control.cancel, [0], asyncio.Event()

    async def slow(self: Control, run_id: str, *args: Any, **options: Any) -> bool:
        done[0] += 1
        if done[0] > 30:
            reached.set()
            await asyncio.sleep(60)
        return await real(self, run_id, *args, **options)

    async with make_app(orders(), worker=False) as app:
        await app.start_many("order", [{"customer": "ann"}] * 100)
        monkeypatch.setattr(Control, "cancel", slow)
        breaking = asyncio.ensure_future(app.bulk.cancel({"workflow": "order"}))
        await reached.wait()
        breaking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await breaking
        monkeypatch.undo()
        before = await app.count_runs(status="cancelled")
        assert 0 < before["cancelled"] < 100
        result = await app.bulk.cancel({"workflow": "order"})
        # Writes that were under way when it was broken off may have come in between.
        assert 0 < result.changed <= result.matched <= 100 - before["cancelled"]
        for run in await stored(runs):
            assert [event["type"] for event in run["events"]].count("run.cancelled") == 1


@pytest.mark.parametrize("moment", ["before", "applied"])
@pytest.mark.parametrize("at", [1, 2, 3])
async def test_what_a_cut_off_process_began_another_finishes(make_app: Any, runs: Any, moment: str, at: int) -> None:
    """Before a write, and after it has been applied but not acknowledged, the process is as good as dead."""
    async with make_app(orders(), worker=False) as heir:
        await heir.start_many("order", [{"customer": "ann"}] * 50)
        async with make_app(orders(), worker=False, settings=Settings(patience="50ms", batch=16)) as app:
            driver, writes = app._open_session.runtime.store.driver, itertools.count(1)
            send = driver.command

            async def command(document: Any) -> Any:
                number = next(writes)
                if number > at or (number, moment) == (at, "before"):
                    raise AutoReconnect("cut off")
                answer = await send(document)
                if number == at:
                    raise AutoReconnect("cut off")
                return answer

            driver.command = command
            with pytest.raises(StoreUnavailable):
                await app.bulk.cancel({"workflow": "order"}, reason="first")
            done = (await heir.count_runs(status="cancelled")).get("cancelled", 0)
            assert done < 50
            result = await heir.bulk.cancel({"workflow": "order"}, reason="second")
            assert 0 < result.changed <= 50 - done
            assert result.failed == 0
        for run in await stored(runs):
            assert run["status"] == "cancelled"
            assert [event["type"] for event in run["events"]].count("run.cancelled") == 1


async def test_that_the_database_is_away_is_said(make_app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(self: Control, *args: Any, **options: Any) -> bool:
        raise StoreUnavailable("away")

    async with make_app(orders(), worker=False) as app:
        await app.start_many("order", [{"customer": "ann"}] * 40)
        monkeypatch.setattr(Control, "cancel", away)
        with pytest.raises(StoreUnavailable):
            await app.bulk.cancel({"workflow": "order"})


async def test_more_runs_than_a_page_holds(make_app: Any, runs: Any) -> None:
    async with make_app(orders(), worker=False) as app:
        handle = await app.start("order", {"customer": "ann"}, delay="1h")
        model = await runs.find_one({"_id": handle.id})
        # Few instants, so that many of a page's edges lie within one of them.
        clones = [{**model, "_id": f"clone{i}", "created_at": LONG_AGO.replace(second=i % 3)} for i in range(1_100)]
        await runs.insert_many(clones)
        result = await app.bulk.cancel({"status": "draft", "workflow": "order"})
        assert (result.matched, result.changed, result.skipped, result.failed) == (1_101, 1_101, 0, 0)
        assert len(result.run_ids) == 100
        assert await runs.count_documents({"status": "cancelled"}) == 1_101


async def test_runs_that_have_ended_are_deleted(make_app: Any, runs: Any) -> None:
    broken.add("ben")
    async with make_app(orders(), worker=False, clock=MovableClock()) as app:
        ann, ben = await start(app, "ann", "ben")
        await app.tick()
        (live,) = await start(app, "ann")
        assert (await app.bulk.delete({"workflow": "order"}, dry_run=True)).run_ids == (ann, ben)
        assert await app.bulk.delete({"input.customer": "ann"}) == BulkResult(1, 1, run_ids=(ann,))
        assert await app.bulk.delete({"input.customer": "ann"}) == BulkResult()
        assert await app.bulk.delete({"status": "draft"}) == BulkResult()
        assert await statuses(app) == {ben: "failed", live: "draft"}
        results = await asyncio.gather(*(app.bulk.delete({"status": "failed"}) for _ in range(2)))
        assert sum(result.changed for result in results) >= 1
        assert [run["_id"] for run in await stored(runs)] == [live]
        with pytest.raises(InvalidPolicy):
            await app.bulk.delete({"status": "failed"}, children=None)


async def test_children_are_deleted_with_their_parents_by_choice(make_app: Any, runs: Any) -> None:
    kin: Workflow[Any, Any, Any] = Workflow("kin")

    @kin.step
    async def only(ctx: Context[Any]) -> None:
        if ctx.input == "parent":
            await ctx.join({f"c{i}": (kin, "child") for i in range(3)})

    async with make_app(kin, worker=False) as app:
        handles = await app.start_many(kin, ["parent"] * 4)
        while {await handle.status() for handle in handles} != {"done"}:
            await app.tick()
        assert await runs.count_documents({}) == 16
        result = await app.bulk.delete({"input": "parent"}, limit=2, children=True)
        assert (result.matched, result.changed) == (2, 2)
        assert await app.count_runs() == {"done": 8}
        assert (await app.bulk.delete({"input": "parent"})).changed == 2
        assert await app.count_runs() == {"done": 6}
        everything = await app.bulk.delete({"workflow": "kin"}, children=True)
        assert everything.matched == everything.changed + everything.skipped == 6
        assert await runs.count_documents({}) == 0


async def test_it_reaches_one_tenants_runs_or_all(make_app: Any) -> None:
    async with make_app(orders(), worker=False, tenancy=Tenancy(required=True)) as app:
        for tenant in ("acme", "apex", "zoo"):
            await app.tenant(tenant).start_many("order", [{"customer": "ann"}] * 3)
        with pytest.raises(TenantRequired):
            await app.bulk.cancel({"workflow": "order"})
        assert (await app.tenant("apex").bulk.cancel({"input.customer": "ann"})).changed == 3
        assert await app.tenant("acme").count_runs() == {"draft": 3}
        everybodys = app.all_tenants().bulk
        assert (await everybodys.cancel({}, limit=4)).changed == 4
        assert (await everybodys.cancel({"workflow": "order"})).changed == 2
        assert await app.all_tenants().count_runs() == {"cancelled": 9}


async def test_what_is_not_allowed_is_refused_before_anything_is_done(make_app: Any, runs: Any) -> None:
    async with make_app(orders(), worker=False) as app:
        await app.start("order", {"customer": "ann"})
        before = await stored(runs)
        for verb in (
            app.bulk.cancel,
            app.bulk.retry,
            lambda *args, **options: app.bulk.rewind(*args, "pack", **options),
        ):
            for given, options, field in (
                ({}, {}, "filter"),
                ({"tenant_id": "x"}, {"limit": 1}, "tenant_id"),
                ({"workflow": "order"}, {"limit": 0}, "limit"),
                ({"workflow": "order"}, {"limit": True}, "limit"),
                ({"workflow": "order"}, {"limit": "all"}, "limit"),
            ):
                with pytest.raises(InvalidQuery) as caught:
                    await verb(given, **options)
                assert caught.value.field == field
        assert await stored(runs) == before
