"""A memo of more than 100 entries or 64 KB goes on in a collection of its own, and is removed with its run."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from streamline import Context, RetryPolicy, Worker, Workflow
from streamline.engine.ended.closer import MEMO_MARGIN
from tests.clocks import MovableClock
from tests.integration.memo_runs import SILENT, Silence, memo_of, one_step, taken_over
from tests.waiting import PATIENCE, eventually, status_of

MANY = 130
LARGE = "x" * 20_000
AGAIN = RetryPolicy(max_attempts=2, delay=0)


@pytest.fixture
def spilled(database: Any) -> Any:
    """The collection of memos."""
    return database["streamline.memo"]


class Caller:
    """A handler that makes many calls, and counts how often each was carried out."""

    def __init__(self, *, entries: int = MANY, size: int = 1) -> None:
        self.calls: Counter[int] = Counter()
        self.entries = entries
        self.value = "x" * size

    async def fetch(self, n: int) -> str:
        self.calls[n] += 1
        return f"{n}:{self.value}"

    async def all(self, ctx: Context[Any]) -> list[str]:
        return [await ctx.call(f"c{n}", self.fetch, n) for n in range(self.entries)]

    def is_right(self, found: list[str]) -> bool:
        return found == [f"{n}:{self.value}" for n in range(self.entries)] and set(self.calls.values()) == {1}


async def test_entries_past_a_hundred_spill_and_come_back_at_the_next_entry(
    make_app: Any, runs: Any, spilled: Any
) -> None:
    caller = Caller()

    async def handler(ctx: Context[Any]) -> bool:
        found = await caller.all(ctx)
        await ctx.wait("look")
        return caller.is_right(found)

    wf = one_step(handler)
    async with make_app(wf) as app:
        handle = await app.start(wf)
        await status_of(handle, "waiting")
        kept = set(await memo_of(runs, handle.id))
        beside = {document["address"] async for document in spilled.find({"run_id": handle.id})}
        assert {f"c{n}" for n in range(MANY)} <= kept | beside
        assert not kept & beside
        assert len(beside) >= MANY - 101
        await app.resume(handle.id)
        assert await handle.result(PATIENCE) is True
        await eventually(lambda: _is_empty(spilled))


async def _is_empty(collection: Any) -> bool:
    return await collection.count_documents({}) == 0


async def test_large_results_spill_and_keep_the_run_small(make_app: Any, runs: Any, spilled: Any) -> None:
    caller = Caller(entries=10, size=20_000)

    async def handler(ctx: Context[Any]) -> bool:
        found = await caller.all(ctx)
        await ctx.wait("look")
        return caller.is_right(found)

    wf = one_step(handler)
    async with make_app(wf) as app:
        handle = await app.start(wf)
        await status_of(handle, "waiting")
        stored = await runs.find_one({"_id": handle.id})
        assert len(str(stored)) < 100_000
        assert await spilled.count_documents({"run_id": handle.id}) >= 7
        await app.resume(handle.id)
        assert await handle.result(PATIENCE) is True
        await eventually(lambda: _is_empty(spilled))


async def test_a_few_small_results_do_not_spill(make_app: Any, spilled: Any) -> None:
    caller = Caller(entries=50, size=100)

    async def handler(ctx: Context[Any]) -> int:
        await caller.all(ctx)
        return await spilled.count_documents({})

    wf = one_step(handler)
    async with make_app(wf) as app:
        assert await app.run(wf, timeout=PATIENCE) == 0


async def test_items_and_turns_and_choices_spill_too(make_app: Any, spilled: Any) -> None:
    done: Counter[int] = Counter()

    async def handler(ctx: Context[Any]) -> list[Any]:
        async def item(value: int, index: int) -> int:
            done[value] += 1
            return value

        found = await ctx.each("items", range(250), item, concurrency=50)
        chosen = [await ctx.choose(f"n{n}", LARGE[: n + 1]) for n in range(3)]
        await ctx.sleep(0.01)
        return [found == list(range(250)), [len(each) for each in chosen], await spilled.count_documents({}) > 100]

    wf = one_step(handler)
    async with make_app(wf) as app:
        assert await app.run(wf, timeout=PATIENCE) == [True, [1, 2, 3], True]
        await eventually(lambda: _is_empty(spilled))
    assert set(done.values()) == {1}


async def test_whoever_takes_the_run_over_finds_what_was_spilled(make_app: Any, runs: Any, spilled: Any) -> None:
    caller, silence = Caller(), Silence()

    async def handler(ctx: Context[Any]) -> bool:
        found = await caller.all(ctx)
        await silence.falls()
        return caller.is_right(found)

    async with taken_over(make_app, runs, one_step(handler), silence) as handle:
        assert await handle.result(PATIENCE) is True
        await eventually(lambda: _is_empty(spilled))


async def test_a_failed_attempt_and_a_retried_run_keep_what_was_spilled(make_app: Any, spilled: Any) -> None:
    caller, broken = Caller(), [True]

    async def handler(ctx: Context[Any]) -> bool:
        found = await caller.all(ctx)
        if broken:
            raise ValueError
        return caller.is_right(found)

    wf = one_step(handler, retry=AGAIN, max_attempts=None)
    async with make_app(wf) as app:
        handle = await app.start(wf)
        assert (await handle.wait(PATIENCE)).status == "failed"
        broken.clear()
        await handle.retry()
        assert await handle.result(PATIENCE) is True
        await eventually(lambda: _is_empty(spilled))


async def test_a_step_that_is_done_again_finds_nothing_of_before(make_app: Any, spilled: Any) -> None:
    caller = Caller()
    wf: Workflow[Any, Any, Any] = Workflow("again")

    @wf.step
    async def first(ctx: Context[Any]) -> int:
        return len(await caller.all(ctx))

    @wf.step
    async def second(ctx: Context[Any]) -> int:
        if caller.calls[0] == 1:
            ctx.goto(first)
        return sum(caller.calls.values())

    async with make_app(wf) as app:
        assert await app.run(wf, timeout=PATIENCE) == 2 * MANY
        await eventually(lambda: _is_empty(spilled))


async def test_the_memos_of_two_runs_and_two_steps_are_kept_apart(make_app: Any, spilled: Any) -> None:
    wf: Workflow[int, Any, Any] = Workflow("two", input=int)

    async def step(ctx: Context[int]) -> bool:
        found = [await ctx.call(f"c{n}", lambda n=n: f"{ctx.input}.{ctx.step_id}.{n}") for n in range(MANY)]
        await ctx.sleep(0.01)
        return found == [f"{ctx.input}.{ctx.step_id}.{n}" for n in range(MANY)]

    wf.step("one", group="both", max_attempts=1)(step)
    wf.step("two", group="both", max_attempts=1)(step)
    async with make_app(wf) as app:
        handles = [await app.start(wf, n) for n in range(2)]
        for handle in handles:
            await handle.result(PATIENCE)
            assert [each.output for each in (await handle.get()).steps] == [True, True]
        await eventually(lambda: _is_empty(spilled))


async def test_another_app_removes_what_a_dead_process_left(make_app: Any, runs: Any, spilled: Any) -> None:
    """The run has ended, and its process died before it removed the memo: the run says that it owes that."""
    caller, clock = Caller(), MovableClock()

    async def handler(ctx: Context[Any]) -> bool:
        found = await caller.all(ctx)
        await ctx.wait("look")
        return caller.is_right(found)

    wf = one_step(handler)
    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        await app.tick()
        document = await spilled.find_one({"run_id": handle.id})
        assert document is not None
        await app.resume(handle.id)
        await app.tick()
        assert await handle.result(PATIENCE) is True
        await eventually(lambda: _is_empty(spilled))
    await spilled.insert_one(document)
    await runs.update_one({"_id": handle.id}, {"$set": {"spilled": True, "owes_at": clock.now()}, "$inc": {"rev": 1}})
    clock.move(seconds=10)
    async with make_app(wf, clock=clock, worker=Worker(lease="400ms")):
        await eventually(lambda: _is_empty(spilled))
        await eventually(lambda: _owes_nothing(runs, handle.id))


async def _owes_nothing(runs: Any, run_id: str) -> bool:
    return "owes_at" not in await runs.find_one({"_id": run_id})


async def test_a_run_gets_its_last_day_only_when_its_memo_is_removed(make_app: Any, runs: Any, spilled: Any) -> None:
    caller = Caller()

    async def handler(ctx: Context[Any]) -> int:
        return len(await caller.all(ctx))

    wf: Workflow[Any, Any, Any] = Workflow("short", retention="1h")
    wf.step("only")(handler)
    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait(PATIENCE)
        stored = await eventually(lambda: runs.find_one({"_id": run.id, "expire_at": {"$exists": True}}))
        assert await _is_empty(spilled)
    assert stored["expire_at"] - stored["ended_at"] == timedelta(hours=1)
    assert "owes_at" not in stored


@pytest.mark.parametrize("how", ["cancel", "fail"])
async def test_the_memo_of_a_run_that_can_be_retried_is_removed_with_the_run(
    make_app: Any, runs: Any, spilled: Any, how: str
) -> None:
    caller = Caller()

    async def handler(ctx: Context[Any]) -> None:
        await caller.all(ctx)
        await ctx.wait("look")
        raise ValueError

    wf: Workflow[Any, Any, Any] = Workflow("bad", retention="1h")
    wf.step("only", max_attempts=1)(handler)
    async with make_app(wf) as app:
        handle = await app.start(wf)
        await status_of(handle, "waiting")
        n = await spilled.count_documents({})
        await (handle.cancel() if how == "cancel" else app.resume(handle.id))
        stored = await eventually(lambda: runs.find_one({"_id": handle.id, "expire_at": {"$exists": True}}))
        # The server removes in no order: a run that is still there has its memo.
        assert n == await spilled.count_documents({"expire_at": stored["expire_at"] + MEMO_MARGIN}) > 0
        indexes = await spilled.index_information()
    assert any(
        index.get("expireAfterSeconds") == 0 and index["key"] == [("expire_at", 1)] for index in indexes.values()
    )


async def test_a_zombies_spilled_result_does_not_replace_what_its_heir_stored(
    make_app: Any, runs: Any, spilled: Any
) -> None:
    caller, silence, late = Caller(), Silence(), asyncio.Event()

    async def handler(ctx: Context[Any]) -> str:
        async def fetch() -> str:
            if not silence.reached.is_set():
                silence.reached.set()
                await late.wait()
                return "by the zombie"
            return "by the heir"

        await caller.all(ctx)
        said = await ctx.call("last", fetch)
        await ctx.wait("look")
        return said

    wf = one_step(handler)
    async with taken_over(make_app, runs, wf, silence) as handle:
        await status_of(handle, "waiting")
        late.set()
        await asyncio.sleep(0.1)
        async with make_app(wf, worker=SILENT) as app:
            await app.resume(handle.id)
            assert await handle.result(PATIENCE) == "by the heir"
