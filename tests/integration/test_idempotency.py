"""Idempotency keys: at most one active run holds one, and every caller gets that run."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from streamline import Context, NonRetriableError, Workflow
from streamline.errors import IdempotencyConflict, InvalidKey, RunFailed


def gated(gate: asyncio.Event, name: str = "gated", **options: Any) -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow(name, **options)

    @wf.step
    async def wait(ctx: Context[Any]) -> Any:
        await gate.wait()
        if ctx.input == "fail":
            raise NonRetriableError("as told")
        return ctx.input

    return wf


async def test_the_same_key_gives_the_same_run_while_it_is_active(make_app: Any, runs: Any) -> None:
    gate = asyncio.Event()
    wf = gated(gate)
    async with make_app(wf) as app:
        first = await app.start(wf, 1, idempotency_key="k")
        second = await app.start(wf, 2, idempotency_key="k")
        other = await app.start(wf, 3, idempotency_key="l")
        assert (first.created, second.created, other.created) == (True, False, True)
        assert first.id == second.id != other.id
        assert (await first.get()).idempotency_key == "k"
        gate.set()
        assert await second.result("20s") == 1
        assert await other.result("20s") == 3
        assert await runs.count_documents({}) == 2


async def test_the_key_of_a_draft_is_held_too(make_app: Any) -> None:
    wf = gated(asyncio.Event())
    async with make_app(wf, worker=False) as app:
        first = await app.start(wf, 1, idempotency_key="k", delay="1h")
        assert (await app.start(wf, 2, idempotency_key="k")).id == first.id


@pytest.mark.parametrize("end", ["done", "failed", "cancelled"])
async def test_a_key_is_free_again_after_the_run_is(make_app: Any, end: str) -> None:
    gate = asyncio.Event()
    wf = gated(gate)
    async with make_app(wf) as app:
        first = await app.start(wf, "fail" if end == "failed" else "go", idempotency_key="k")
        assert not (await app.start(wf, idempotency_key="k")).created
        if end == "cancelled":
            await first.cancel()
        gate.set()
        assert (await first.wait("20s")).status == end
        second = await app.start(wf, "again", idempotency_key="k")
        assert second.created
        assert second.id != first.id
        assert await second.result("20s") == "again"


async def test_two_workflows_do_not_share_keys(make_app: Any) -> None:
    gate = asyncio.Event()
    one, two = gated(gate, "one"), gated(gate, "two")
    async with make_app(one, two) as app:
        first = await app.start(one, 1, idempotency_key="k")
        second = await app.start(two, 2, idempotency_key="k")
        assert first.created
        assert second.created
        gate.set()
        assert (await first.result("20s"), await second.result("20s")) == (1, 2)


async def test_two_versions_of_a_workflow_share_keys(make_app: Any) -> None:
    gate = asyncio.Event()
    old, new = gated(gate, version="1.0.0"), gated(gate, version="2.0.0")
    async with make_app(old, new) as app:
        first = await app.start(old, 1, idempotency_key="k")
        assert (await app.start(new, 2, idempotency_key="k")).id == first.id
        gate.set()
        assert await first.result("20s") == 1


async def test_fifty_starts_at_once_make_one_run_and_all_get_it(make_app: Any, runs: Any) -> None:
    gate = asyncio.Event()
    wf = gated(gate)
    async with make_app(wf) as one, make_app(gated(gate)) as two:
        handles = await asyncio.gather(*((one, two)[i % 2].start(wf, i, idempotency_key="k") for i in range(50)))
        assert len({handle.id for handle in handles}) == 1
        assert sum(handle.created for handle in handles) == 1
        assert await runs.count_documents({}) == 1
        gate.set()
        winner = next(i for i, handle in enumerate(handles) if handle.created)
        assert await asyncio.gather(*(handle.result("20s") for handle in handles)) == [winner] * 50


async def test_starts_that_race_with_ends_always_get_a_run_that_exists(make_app: Any, runs: Any) -> None:
    gate = asyncio.Event()
    gate.set()
    wf = gated(gate)
    async with make_app(wf) as app:
        handles = []
        for _ in range(10):
            handles += await asyncio.gather(*(app.start(wf, 1, idempotency_key="k") for _ in range(10)))
        await asyncio.gather(*(handle.result("20s") for handle in handles))
        created = Counter(handle.id for handle in handles if handle.created)
        assert set(created.values()) == {1}
        assert created.keys() == {handle.id for handle in handles}
        assert await runs.count_documents({}) == len(created)


async def test_the_workflow_can_derive_the_key_from_the_input(make_app: Any) -> None:
    gate = asyncio.Event()
    wf = gated(gate, input=dict[str, int], idempotency_key=lambda given: f"order:{given['id']}")
    async with make_app(wf) as app:
        first = await app.start(wf, {"id": "7"})
        assert (await app.start(wf, {"id": 7})).id == first.id
        assert (await app.start(wf, {"id": 8})).created
        assert (await app.start(wf, {"id": 7}, idempotency_key="mine")).created
        assert (await first.get()).idempotency_key == "order:7"
        gate.set()


async def test_a_derived_key_may_be_none(make_app: Any, runs: Any) -> None:
    gate = asyncio.Event()
    gate.set()
    wf = gated(gate, idempotency_key=lambda _: None)
    async with make_app(wf) as app:
        assert (await app.start(wf, 1)).id != (await app.start(wf, 1)).id
        assert await runs.count_documents({"active_key": {"$exists": True}}) == 0


@pytest.mark.parametrize("bad", ["", 5, {"$ne": None}, "k" * 257, ["k"]], ids=repr)
async def test_a_bad_derived_key_starts_nothing(make_app: Any, runs: Any, bad: Any) -> None:
    wf = gated(asyncio.Event(), idempotency_key=lambda _: bad)
    async with make_app(wf) as app:
        with pytest.raises(InvalidKey) as caught:
            await app.start(wf, 1)
        assert caught.value.field == "idempotency_key"
        assert await runs.count_documents({}) == 0


async def test_a_key_function_that_raises_starts_nothing(make_app: Any, runs: Any) -> None:
    wf = gated(asyncio.Event(), idempotency_key=lambda given: given["missing"])
    async with make_app(wf) as app:
        with pytest.raises(InvalidKey) as caught:
            await app.start(wf, {})
        assert caught.value.field == "idempotency_key"
        assert isinstance(caught.value.__cause__, KeyError)
        assert await runs.count_documents({}) == 0


async def test_start_many_derives_keys_too(make_app: Any, runs: Any) -> None:
    gate = asyncio.Event()
    wf = gated(gate, idempotency_key=lambda given: f"k{given % 3}")
    async with make_app(wf) as app:
        handles = await app.start_many(wf, list(range(9)))
        assert [handle.created for handle in handles] == [True] * 3 + [False] * 6
        assert [handle.id for handle in handles[3:]] == [handle.id for handle in handles[:3]] * 2
        assert await runs.count_documents({}) == 3
        gate.set()


async def test_a_retried_run_takes_its_key_back(make_app: Any) -> None:
    gate = asyncio.Event()
    gate.set()
    wf = gated(gate)
    async with make_app(wf) as app:
        first = await app.start(wf, "fail", idempotency_key="k")
        with pytest.raises(RunFailed):
            await first.result("20s")
        gate.clear()
        await first.retry()
        assert (await app.start(wf, 1, idempotency_key="k")).id == first.id
        gate.set()


async def test_a_run_whose_key_another_holds_now_cannot_be_retried(make_app: Any) -> None:
    gate = asyncio.Event()
    gate.set()
    wf = gated(gate)
    async with make_app(wf) as app:
        first = await app.start(wf, "fail", idempotency_key="k")
        await first.wait("20s")
        gate.clear()
        second = await app.start(wf, "go", idempotency_key="k")
        with pytest.raises(IdempotencyConflict) as caught:
            await first.retry()
        assert caught.value.http_status == 409
        assert (await first.get()).status == "failed"
        gate.set()
        assert await second.result("20s") == "go"
