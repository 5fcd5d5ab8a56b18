"""``idempotency="forever"``: whoever starts with the key, whenever, gets the one run that holds it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from streamline import Concurrency, Debounce, Throttle
from streamline.errors import IdempotencyConflict, InvalidKey
from tests.integration.meters import Meter, working

GATES: dict[str, dict[str, Any]] = {
    "no gates": {},
    "all gates": {"concurrency": Concurrency(2), "throttle": Throttle(50, "1s")},
}
gates = pytest.mark.parametrize("gates", GATES.values(), ids=GATES)


async def forever(app: Any, wf: Any, value: Any = "v", key: str = "k", **options: Any) -> Any:
    return await app.start(wf, value, idempotency_key=key, idempotency="forever", **options)


@gates
async def test_every_caller_of_a_burst_gets_one_run(make_app: Any, runs: Any, gates: Any) -> None:
    meter = Meter()
    wf = working(meter, **gates)
    async with make_app(wf) as one, make_app(wf, worker=False) as two:
        handles = await asyncio.gather(*(forever((one, two)[i % 2], wf) for i in range(40)))
        assert len({handle.id for handle in handles}) == 1
        assert sum(handle.created for handle in handles) == 1
        meter.let_all_go()
        assert set(await asyncio.gather(*(handle.result("20s") for handle in handles))) == {"v"}
        assert await runs.count_documents({}) == len(meter.order) == 1


@gates
@pytest.mark.parametrize("end", ["done", "failed", "cancelled"])
async def test_the_key_stays_taken_when_the_run_has_ended(make_app: Any, runs: Any, gates: Any, end: str) -> None:
    meter = Meter(hold=end != "cancelled")
    meter = Meter(hold=end == "cancelled")
    wf, value = working(meter, **gates), "fail" if end == "failed" else "v"
    async with make_app(wf) as app:
        first = await forever(app, wf, value)
        if end == "cancelled":
            await first.cancel()
        assert (await first.wait("20s")).status == end
        for _ in range(2):
            again = await forever(app, wf, value)
            assert (again.id, again.created) == (first.id, False)
            assert (await again.wait("1s")).status == end
        many = await app.start_many(wf, [value, value], idempotency_key="k", idempotency="forever")
        assert {handle.id for handle in many} == {first.id}
        assert await runs.count_documents({}) == 1


@gates
async def test_it_stays_taken_over_a_restart(make_app: Any, gates: Any) -> None:
    wf = working(Meter(hold=False), **gates)
    async with make_app(wf) as app:
        first = await forever(app, wf)
        await first.result("20s")
    async with make_app(wf, worker=False) as app:
        again = await forever(app, wf)
        assert (again.id, again.created) == (first.id, False)
        assert await again.result("1s") == "v"


@gates
@pytest.mark.parametrize("has_ended", [True, False])
async def test_another_input_is_a_conflict(make_app: Any, runs: Any, gates: Any, has_ended: bool) -> None:
    meter = Meter(hold=not has_ended)
    wf = working(meter, **gates)
    async with make_app(wf) as app:
        first = await forever(app, wf)
        if has_ended:
            await first.result("20s")
        for start in (forever(app, wf, "w"), app.start_many(wf, ["w"], idempotency_key="k", idempotency="forever")):
            with pytest.raises(IdempotencyConflict) as raised:
                await start
            assert (raised.value.http_status, raised.value.field) == (409, "idempotency_key")
        assert await runs.count_documents({}) == 1
        meter.let_all_go()


class Order(BaseModel):
    number: int
    lines: dict[str, float] = {}


async def test_the_same_input_in_another_form_is_the_same(make_app: Any) -> None:
    wf = working(Meter(hold=False), input=Order, idempotency_key=lambda order: f"order:{order.number}")
    async with make_app(wf) as app:
        value = Order(number=1, lines={"b": 2.0, "a": 1.0})
        first = await app.start(wf, value, idempotency="forever")
        await first.wait("20s")
        for other in (value, {"number": 1, "lines": {"a": 1, "b": 2}}, {"number": "1", "lines": {"b": 2, "a": "1"}}):
            assert (await app.start(wf, other, idempotency="forever")).id == first.id
        with pytest.raises(IdempotencyConflict):
            await app.start(wf, {"number": 1}, idempotency="forever")
        assert (await app.start(wf, {"number": 2}, idempotency="forever")).created


@gates
async def test_a_run_that_was_started_otherwise_keeps_its_key_once_somebody_relies_on_that(
    make_app: Any, runs: Any, gates: Any
) -> None:
    meter = Meter()
    wf = working(meter, **gates)
    async with make_app(wf) as app:
        first = await app.start(wf, "v", idempotency_key="k")
        with pytest.raises(IdempotencyConflict):
            await forever(app, wf, "w")
        relying = await forever(app, wf)
        assert relying.id == first.id
        meter.let_all_go()
        await first.result("20s")
        again = await forever(app, wf)
        assert (again.id, again.created) == (first.id, False)
        assert await runs.count_documents({}) == 1


@gates
async def test_a_later_run_with_the_same_key_does_not_take_the_place_of_the_one_that_keeps_it(
    make_app: Any, gates: Any
) -> None:
    meter = Meter(hold=False)
    wf = working(meter, **gates)
    async with make_app(wf) as app:
        first = await forever(app, wf)
        await first.result("20s")
        meter.hold.clear()
        second = await app.start(wf, "other", idempotency_key="k")
        assert second.created
        assert (await app.start(wf, "third", idempotency_key="k")).id == second.id
        assert (await forever(app, wf)).id == first.id
        meter.let_all_go()
        await second.result("20s")
        assert (await forever(app, wf)).id == first.id


async def test_starts_that_race_with_the_end_of_another_run(make_app: Any, runs: Any) -> None:
    """Some rely on the key for ever while the run that holds it for now ends: from then on they agree."""
    wf = working(Meter(hold=False))
    async with make_app(wf) as app:
        for i in range(10):
            first = asyncio.ensure_future(app.start(wf, "v", idempotency_key=f"k{i}"))
            relying = await asyncio.gather(*(forever(app, wf, key=f"k{i}") for _ in range(5)))
            await first
            ids = {handle.id for handle in relying}
            assert len(ids) == 1
            assert (await forever(app, wf, key=f"k{i}")).id in ids


async def test_keys_are_kept_per_workflow(make_app: Any) -> None:
    one, two = working(Meter(hold=False), "one"), working(Meter(hold=False), "two")
    async with make_app(one, two) as app:
        first, second = await forever(app, one), await forever(app, two)
        assert first.created
        assert second.created


async def test_a_kept_key_is_no_obstacle_to_a_retry(make_app: Any) -> None:
    wf = working(Meter(hold=False))
    async with make_app(wf) as app:
        first = await forever(app, wf, "fail")
        await first.wait("20s")
        await first.retry()
        assert (await first.wait("20s")).status == "failed"
        assert (await forever(app, wf, "fail")).id == first.id


@pytest.mark.parametrize("value", ["for ever", "", None, True, 1])
async def test_how_a_key_is_kept_is_one_of_two(make_app: Any, runs: Any, value: Any) -> None:
    wf = working(Meter())
    async with make_app(wf, worker=False) as app:
        with pytest.raises(InvalidKey) as raised:
            await app.start(wf, 1, idempotency_key="k", idempotency=value)
        assert raised.value.field == "idempotency"
        assert await runs.count_documents({}) == 0


async def test_for_ever_needs_a_key(make_app: Any, runs: Any) -> None:
    wf = working(Meter())
    async with make_app(wf, worker=False) as app:
        with pytest.raises(InvalidKey) as raised:
            await app.start(wf, 1, idempotency="forever")
        assert raised.value.field == "idempotency_key"
        assert await runs.count_documents({}) == 0


async def test_a_kept_key_and_a_debounced_workflow(make_app: Any, runs: Any) -> None:
    wf = working(Meter(hold=False), debounce=Debounce("150ms"))
    async with make_app(wf) as app:
        first = await forever(app, wf)
        assert (await forever(app, wf)).id == first.id
        with pytest.raises(IdempotencyConflict):
            await forever(app, wf, "w")
        assert await first.result("20s") == "v"
        assert (await forever(app, wf)).id == first.id
        assert await runs.count_documents({}) == 1
