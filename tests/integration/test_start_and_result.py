"""Starting a run and getting its output."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from streamline import Context, Workflow
from streamline.errors import (
    IdempotencyConflict,
    InvalidInput,
    InvalidKey,
    InvalidPolicy,
    ResultTimeout,
    RunNotFound,
    StreamlineError,
    WorkflowNotFound,
)
from tests.waiting import eventually


class Order(BaseModel):
    order_id: str
    amount: int = 1


class Receipt(BaseModel):
    charge_id: str


def shop() -> Workflow[Order, Any, Any]:
    wf = Workflow("shop", input=Order)

    @wf.step
    async def reserve(ctx: Context[Order]) -> str:
        return f"reservation-{ctx.input.order_id}"

    @wf.step
    async def charge(ctx: Context[Order]) -> Receipt:
        return Receipt(charge_id=f"{ctx.output(reserve)}/{ctx.input.amount}")

    return wf


def counting() -> Workflow[Any, Any, Any]:
    wf = Workflow("counting")

    @wf.step
    async def count(ctx: Context[Any]) -> Any:
        return ctx.input

    return wf


async def test_steps_run_in_order_and_the_last_output_is_the_runs(make_app: Any) -> None:
    wf = shop()
    async with make_app(wf) as app:
        run = await app.start(wf, Order(order_id="7", amount=5))
        assert run.created
        assert await run.result("20s") == Receipt(charge_id="reservation-7/5")
        stored = await run.get()
    assert stored.status == "done"
    assert stored.output == Receipt(charge_id="reservation-7/5")
    assert stored.input == Order(order_id="7", amount=5)
    assert [(step.id, step.status, step.attempt) for step in stored.steps] == [
        ("reserve", "done", 1),
        ("charge", "done", 1),
    ]
    assert stored.steps[0].output == "reservation-7"


async def test_every_instant_of_a_finished_run_is_in_order(make_app: Any) -> None:
    wf = shop()
    async with make_app(wf) as app:
        run = await (await app.start(wf, Order(order_id="7"))).wait("20s")
    first, last = run.steps
    instants = [run.created_at, run.started_at, first.started_at, first.ended_at, last.started_at, last.ended_at]
    assert all(instants)
    assert instants == sorted(instants)
    assert run.ended_at == last.ended_at
    assert run.created_at.tzinfo is not None
    assert run.due_at is None
    assert run.worker is None


async def test_a_run_has_no_output_before_it_is_done(make_app: Any) -> None:
    wf, gate = Workflow("slow"), asyncio.Event()

    @wf.step
    async def first(ctx: Context[Any]) -> str:
        return "early"

    @wf.step
    async def second(ctx: Context[Any]) -> str:
        await gate.wait()
        return "late"

    async with make_app(wf) as app:
        handle = await app.start(wf)
        run = await eventually(lambda: at_step(handle, "second"))
        assert run.output is None
        assert run.status == "running"
        gate.set()
        assert await handle.result("20s") == "late"


async def at_step(handle: Any, step_id: str) -> Any:
    run = await handle.get()
    return run if run.step(step_id).status == "running" else None


async def test_a_mapping_is_read_as_the_input_type(make_app: Any) -> None:
    wf = shop()
    async with make_app(wf) as app:
        assert await app.run(wf, {"order_id": "9"}, timeout="20s") == Receipt(charge_id="reservation-9/1")


async def test_a_workflow_can_be_started_by_name(make_app: Any) -> None:
    async with make_app(shop()) as app:
        assert (await app.run("shop", Order(order_id="9"), timeout="20s")).charge_id == "reservation-9/1"


async def test_an_unknown_name_is_refused(make_app: Any) -> None:
    async with make_app(shop()) as app:
        with pytest.raises(WorkflowNotFound):
            await app.start("shops", {})


async def test_a_bad_input_is_refused_before_anything_is_stored(make_app: Any, runs: Any) -> None:
    wf = shop()
    async with make_app(wf) as app:
        for bad in (None, {}, {"order_id": 5}, {"order_id": "1", "amount": "many"}, "text", []):
            with pytest.raises(InvalidInput) as caught:
                await app.start(wf, bad)  # type: ignore[arg-type]
            assert str(caught.value.field).startswith("input")
        assert await runs.count_documents({}) == 0


async def test_a_chosen_id_is_kept_and_taken_only_once(make_app: Any) -> None:
    wf = counting()
    async with make_app(wf) as app:
        run = await app.start(wf, 1, run_id="my-run")
        assert run.id == "my-run"
        assert await run.result("20s") == 1
        with pytest.raises(IdempotencyConflict):
            await app.start(wf, 2, run_id="my-run")
        assert await app.handle("my-run").result("20s") == 1


async def test_run_ids_sort_by_time(make_app: Any) -> None:
    wf = counting()
    async with make_app(wf) as app:
        ids = []
        for i in range(3):
            ids.append((await app.start(wf, i)).id)
            await asyncio.sleep(0.002)
    assert ids == sorted(ids)


BAD_WISHES: list[tuple[dict[str, Any], type[StreamlineError]]] = [
    ({"idempotency_key": ""}, InvalidKey),
    ({"idempotency_key": 5}, InvalidKey),
    ({"idempotency_key": {"$ne": None}}, InvalidKey),
    ({"idempotency_key": "k" * 257}, InvalidKey),
    ({"idempotency_key": "\ud800"}, InvalidKey),
    ({"idempotency_key": "a\0b"}, InvalidKey),
    ({"run_id": ""}, InvalidKey),
    ({"run_id": {"$gt": ""}}, InvalidKey),
    ({"tags": "one"}, InvalidKey),
    ({"tags": [1]}, InvalidKey),
    ({"tags": [str(i) for i in range(33)]}, InvalidKey),
    ({"metadata": {"a.b": 1}}, InvalidKey),
    ({"metadata": {"$a": 1}}, InvalidKey),
    ({"metadata": [1]}, InvalidKey),
    ({"priority": "high"}, InvalidKey),
    ({"priority": True}, InvalidKey),
    ({"priority": 2**31}, InvalidKey),
    ({"delay": -1}, InvalidPolicy),
    ({"delay": float("nan")}, InvalidPolicy),
    ({"delay": "soon"}, InvalidPolicy),
    ({"run_at": datetime(2030, 1, 1)}, InvalidPolicy),
    ({"run_at": "2030-01-01"}, InvalidPolicy),
    ({"run_at": datetime(2030, 1, 1, tzinfo=UTC), "delay": 1}, InvalidPolicy),
]


async def test_a_bad_wish_is_refused_before_anything_is_stored(make_app: Any, runs: Any) -> None:
    wf = counting()
    async with make_app(wf) as app:
        for wish, error in BAD_WISHES:
            with pytest.raises(error) as caught:
                await app.start(wf, 1, **wish)
            assert str(caught.value.field).split("[")[0].split(" ")[0] in wish
        assert await runs.count_documents({}) == 0


@pytest.mark.parametrize("options", [{"priorty": 3}, {"timeuot": 5}, {"idempotency": "sometimes"}], ids=repr)
async def test_an_unknown_option_is_refused_before_anything_is_stored(make_app: Any, runs: Any, options: Any) -> None:
    wf = counting()
    async with make_app(wf, worker=False) as app:
        for start in (app.start, app.run):
            with pytest.raises((TypeError, StreamlineError)):
                await start(wf, 1, **{"timeout": 0.01} if start == app.run else {}, **options)
        assert await runs.count_documents({}) == 0


async def test_tags_metadata_and_priority_are_kept_and_seen_by_handlers(make_app: Any) -> None:
    wf, seen = Workflow("labelled"), []

    @wf.step
    async def look(ctx: Context[Any]) -> None:
        seen.append((ctx.tags, dict(ctx.metadata), ctx.run_id, ctx.workflow, ctx.version, ctx.step_id, ctx.attempt))

    async with make_app(wf) as app:
        handle = await app.start(wf, tags=["b", "a", "b"], metadata={"source": {"$weird": "a.b"}}, priority=-3)
        run = await handle.wait("20s")
    assert run.tags == ("b", "a")
    assert run.metadata == {"source": {"$weird": "a.b"}}
    assert run.priority == -3
    assert seen == [(("b", "a"), {"source": {"$weird": "a.b"}}, run.id, "labelled", "1.0.0", "look", 1)]


async def test_a_result_that_does_not_come_in_time_leaves_the_run_alone(make_app: Any) -> None:
    wf, gate = Workflow("slow"), asyncio.Event()

    @wf.step
    async def wait(ctx: Context[Any]) -> str:
        await gate.wait()
        return "late"

    async with make_app(wf) as app:
        run = await app.start(wf)
        with pytest.raises(ResultTimeout) as caught:
            await run.result(0.05)
        assert isinstance(caught.value, TimeoutError)
        gate.set()
        assert await run.result("20s") == "late"


async def test_a_run_that_does_not_exist_is_not_found(make_app: Any) -> None:
    async with make_app(counting()) as app:
        handle = app.handle("nobody")
        for ask in (handle.get, handle.status, handle.result, handle.wait, handle.cancel, handle.pause, handle.retry):
            with pytest.raises(RunNotFound):
                await ask()
        with pytest.raises(RunNotFound):
            await app.get({"$gt": ""})


async def test_many_waiters_get_the_same_result(make_app: Any) -> None:
    wf, gate = Workflow("popular"), asyncio.Event()

    @wf.step
    async def wait(ctx: Context[Any]) -> str:
        await gate.wait()
        return "here"

    async with make_app(wf) as app:
        run = await app.start(wf)
        waiters = [asyncio.ensure_future(app.handle(run.id).result("20s")) for _ in range(20)]
        await asyncio.sleep(0)
        gate.set()
        assert await asyncio.gather(*waiters) == ["here"] * 20


async def test_start_many_starts_each_once_and_in_order(make_app: Any, runs: Any) -> None:
    wf = counting()
    async with make_app(wf) as app:
        handles = await app.start_many(wf, list(range(40)), tags=["batch"], priority=2)
        assert all(handle.created for handle in handles)
        assert await asyncio.gather(*(handle.result("20s") for handle in handles)) == list(range(40))
        assert await runs.count_documents({"tags": "batch", "priority": 2}) == 40


async def test_start_many_stores_nothing_where_one_input_is_bad(make_app: Any, runs: Any) -> None:
    wf = shop()
    async with make_app(wf) as app:
        with pytest.raises(InvalidInput):
            await app.start_many(wf, [{"order_id": "1"}, {"order_id": 2}])
        assert await runs.count_documents({}) == 0


async def test_start_many_of_nothing_is_nothing(make_app: Any) -> None:
    wf = counting()
    async with make_app(wf) as app:
        assert await app.start_many(wf, []) == []


async def test_fifty_runs_at_once_do_not_mix(make_app: Any) -> None:
    wf = shop()
    async with make_app(wf) as app:
        handles = await asyncio.gather(*(app.start(wf, {"order_id": str(i), "amount": i}) for i in range(50)))
        results = await asyncio.gather(*(handle.result("30s") for handle in handles))
    assert [receipt.charge_id for receipt in results] == [f"reservation-{i}/{i}" for i in range(50)]


async def test_a_start_whose_caller_is_cancelled_still_gets_its_driver(make_app: Any, runs: Any) -> None:
    wf = counting()
    async with make_app(wf) as app:
        starting = asyncio.ensure_future(app.start(wf, 5, run_id="orphan"))
        await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting

        async def done() -> bool:
            return await runs.count_documents({"_id": "orphan", "status": "done"}) == 1

        await eventually(done)


@pytest.mark.parametrize("timeout", [-1, "soon", float("nan"), True], ids=repr)
async def test_a_timeout_that_makes_no_sense_is_refused(make_app: Any, timeout: Any) -> None:
    wf = counting()
    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        for ask in (handle.result, handle.wait):
            with pytest.raises(InvalidPolicy) as caught:
                await ask(timeout)
            assert caught.value.field == "timeout"


async def test_log_records_of_a_handler_say_where_they_come_from(make_app: Any, caplog: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("talking")

    @wf.step
    async def talk(ctx: Context[Any]) -> None:
        ctx.log.warning("seen %s", "it")

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    (record,) = [record for record in caplog.records if record.getMessage() == "seen it"]
    assert (record.run_id, record.workflow, record.step_id, record.attempt) == (run.id, "talking", "talk", 1)
    assert record.name == "streamline.workflow.talking"


async def test_an_app_without_a_worker_only_starts_and_asks(make_app: Any) -> None:
    wf = counting()
    async with make_app(wf, worker=False) as app:
        run = await app.start(wf, 1)
        assert await run.status() == "draft"
        with pytest.raises(ResultTimeout):
            await run.result(0.2)
        async with make_app(counting()):
            assert await run.result("20s") == 1


async def test_an_unregistered_workflow_object_can_be_started_for_others(make_app: Any) -> None:
    async with make_app(worker=False) as app:
        run = await app.start(counting(), 3)
        async with make_app(counting()):
            assert (await run.wait("20s")).status == "done"


async def test_a_delay_longer_than_the_timers_of_an_event_loop_is_kept(make_app: Any) -> None:
    wf = counting()
    async with make_app(wf) as app:
        run = await (await app.start(wf, 1, delay=timedelta(days=400))).get()
    assert run.status == "draft"
    assert run.due_at - run.created_at == timedelta(days=400)
