"""inc, push, put, drop and save: atomic on what is stored, once, whatever happens to the handler."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel, Field

from streamline import Context, Continue, Done, RetryPolicy, Workflow
from streamline.errors import InvalidKey
from tests.integration.memo_runs import Silence, ended, one_step, taken_over
from tests.waiting import eventually, status_of

AGAIN = RetryPolicy(max_attempts=3, delay=0)


class Tally(BaseModel):
    n: int = 0
    share: float = 0.5
    names: list[str] = Field(default_factory=list)
    by_name: dict[str, int] = Field(default_factory=lambda: {"first": 1})


async def stored_state(runs: Any, run_id: str) -> Any:
    return (await runs.find_one({"_id": run_id})).get("state")


async def test_operations_are_stored_at_once_and_seen_by_the_handler(make_app: Any, runs: Any) -> None:
    async def handler(ctx: Context[Any, dict[str, Any]]) -> list[Any]:
        seen: list[Any] = []
        for operation in (
            ctx.inc("n", 2),
            ctx.inc("n", 0.5),
            ctx.push("list", {"a": 1}),
            ctx.push("list", None),
            ctx.put("", "map", {"x": 1}),
            ctx.put("map", "y", 2),
            ctx.drop("map", "x"),
            ctx.drop("map", "missing"),
        ):
            await operation
            assert ctx.state == await stored_state(runs, ctx.run_id)
            seen = [ctx.state]
        return seen

    run = await ended(make_app, handler, state=dict[str, Any])
    assert run.error is None
    assert run.state == run.output[0] == {"n": 2.5, "list": [{"a": 1}, None], "map": {"y": 2}}


async def test_operations_reach_into_nested_values(make_app: Any, runs: Any) -> None:
    async def handler(ctx: Context[Any, dict[str, Any]]) -> None:
        ctx.state = {"a": {"b": {"n": 1, "list": [1], "map": {}}}}
        await ctx.save()
        await ctx.inc("a.b.n", 4)
        await ctx.push("a.b.list", 2)
        await ctx.put("a.b.map", "k", "v")
        await ctx.drop("a", "nothing")
        assert ctx.state == await stored_state(runs, ctx.run_id)

    run = await ended(make_app, handler, state=dict[str, Any])
    assert run.error is None
    assert run.state == {"a": {"b": {"n": 5, "list": [1, 2], "map": {"k": "v"}}}}


async def test_operations_begin_with_the_defaults_of_the_states_type(make_app: Any, runs: Any) -> None:
    async def handler(ctx: Context[Any, Tally]) -> None:
        await ctx.inc("share", 0.25)
        await ctx.inc("n", 3)
        await ctx.push("names", "ann")
        await ctx.put("by_name", "ann", 5)
        assert ctx.state == Tally(n=3, share=0.75, names=["ann"], by_name={"first": 1, "ann": 5})
        assert ctx.state.model_dump() == await stored_state(runs, ctx.run_id)

    run = await ended(make_app, handler, state=Tally)
    assert run.error is None
    assert run.state == Tally(n=3, share=0.75, names=["ann"], by_name={"first": 1, "ann": 5})


async def test_an_operation_that_the_states_type_does_not_allow_changes_nothing(make_app: Any, runs: Any) -> None:
    async def handler(ctx: Context[Any, Tally]) -> str:
        await ctx.inc("n", 1)
        wrong: Any = "not a number"
        with pytest.raises(Exception, match=r"state|n"):
            await ctx.put("", "n", wrong)
        assert (await stored_state(runs, ctx.run_id))["n"] == 1
        return f"still {ctx.state.n}"

    run = await ended(make_app, handler, state=Tally)
    assert run.output == "still 1"
    assert run.state.n == 1


async def test_an_operation_counts_once_over_re_entries_and_attempts(make_app: Any) -> None:
    entered = []

    async def handler(ctx: Context[Any, Tally]) -> list[Any]:
        entered.append(ctx.attempt)
        await ctx.inc("n", 1)
        await ctx.push("names", "one")
        await ctx.sleep(0.01)
        await ctx.inc("n", 10)
        if ctx.attempt < 3:
            raise ValueError
        await ctx.push("names", "two")
        await ctx.sleep(0.01)
        return [ctx.state.n, ctx.state.names]

    run = await ended(make_app, handler, state=Tally, retry=AGAIN, max_attempts=None)
    assert run.output == [11, ["one", "two"]]
    assert run.state == Tally(n=11, names=["one", "two"])
    assert entered == [1, 1, 2, 3, 3]


async def test_an_operation_counts_once_where_its_worker_died(make_app: Any, runs: Any) -> None:
    silence = Silence()

    async def handler(ctx: Context[Any, Tally]) -> int:
        await ctx.inc("n", 1)
        await ctx.push("names", "once")
        await silence.falls()
        await ctx.inc("n", 1)
        return ctx.state.n

    async with taken_over(make_app, runs, one_step(handler, state=Tally), silence) as handle:
        assert await handle.result("20s") == 2
        assert (await handle.get()).state == Tally(n=2, names=["once"])


async def test_changes_before_a_sleep_are_not_applied_twice(make_app: Any) -> None:
    async def handler(ctx: Context[Any, Tally]) -> int:
        ctx.state.n += 1
        await ctx.sleep(0.01)
        ctx.state.n += 10
        await ctx.sleep(0.01)
        return ctx.state.n

    run = await ended(make_app, handler, state=Tally)
    assert (run.output, run.state.n) == (11, 11)


async def test_each_entry_and_attempt_begins_with_the_state_that_was_saved(make_app: Any) -> None:
    seen: list[int] = []

    async def handler(ctx: Context[Any, Tally]) -> int:
        seen.append(ctx.state.n)
        if ctx.state.n < 3:
            ctx.state.n += 1
            await ctx.save()
        ctx.state.n += 100  # not saved: forgotten with the entry
        await ctx.sleep(0.01, key=f"after-{len(seen)}" if len(seen) < 3 else "after-2")
        if ctx.attempt == 1:
            raise ValueError
        return ctx.state.n

    run = await ended(make_app, handler, state=Tally, retry=AGAIN, max_attempts=None)
    assert run.error is None
    assert seen == [0, 1, 2, 3]
    assert (run.output, run.state.n) == (103, 103)


async def test_a_batch_goes_on_where_its_saved_state_says_when_its_worker_died(make_app: Any, runs: Any) -> None:
    silence, done = Silence(), []

    async def handler(ctx: Context[Any, Tally]) -> int:
        for i in range(ctx.state.n, 6):
            if i == 4:
                await silence.falls()
            done.append(i)
            ctx.state.n = i + 1
            await ctx.save()
        return ctx.state.n

    async with taken_over(make_app, runs, one_step(handler, state=Tally), silence) as handle:
        assert await handle.result("20s") == 6
    assert done == [0, 1, 2, 3, 4, 5]


async def test_operations_keep_what_was_changed_and_not_saved(make_app: Any, runs: Any) -> None:
    async def handler(ctx: Context[Any, Tally]) -> list[str]:
        ctx.state.names.append("a")
        await ctx.inc("n", 1)
        await ctx.push("names", "b")
        ctx.state.names.append("c")
        return ctx.state.names

    run = await ended(make_app, handler, state=Tally)
    assert run.output == ["a", "b", "c"]
    assert (run.state.n, run.state.names) == (1, ["a", "b", "c"])


async def test_ten_branches_that_increment_do_not_lose_any(make_app: Any) -> None:
    async def handler(ctx: Context[Any, Tally]) -> int:
        async def item(value: int, index: int) -> None:
            for _ in range(3):
                await ctx.inc("n", 1)
            await ctx.push("names", str(value))

        await ctx.each("items", range(10), item)
        return ctx.state.n

    run = await ended(make_app, handler, state=Tally)
    assert (run.output, run.state.n) == (30, 30)
    assert sorted(run.state.names, key=int) == [str(n) for n in range(10)]


async def test_what_items_did_to_the_state_is_there_at_the_next_entry(make_app: Any) -> None:
    async def handler(ctx: Context[Any, Tally]) -> int:
        async def item(value: int, index: int) -> None:
            await ctx.inc("n", 1)

        await ctx.each("items", range(10), item)
        await ctx.sleep(0.01)
        return ctx.state.n

    run = await ended(make_app, handler, state=Tally)
    assert (run.output, run.state.n) == (10, 10)


async def test_what_some_items_did_to_the_state_is_there_while_others_wait(make_app: Any) -> None:
    async def handler(ctx: Context[Any, Tally]) -> int:
        async def item(value: int, index: int) -> None:
            await ctx.inc("n", 1)
            if index % 2:
                await ctx.sleep(0.01 * index)
            await ctx.inc("n", 1)

        await ctx.each("items", range(6), item)
        await ctx.inc("n", 100)
        return ctx.state.n

    run = await ended(make_app, handler, state=Tally)
    assert (run.output, run.state.n) == (112, 112)


async def test_what_a_call_did_to_the_state_is_there_at_the_next_entry(make_app: Any) -> None:
    async def handler(ctx: Context[Any, Tally]) -> int:
        async def count() -> None:
            await ctx.inc("n", 1)

        await ctx.call("count", count)
        await ctx.sleep(0.01)
        return ctx.state.n

    run = await ended(make_app, handler, state=Tally)
    assert (run.output, run.state.n) == (1, 1)


async def test_what_turns_did_to_the_state_is_there_at_the_next_turn(make_app: Any) -> None:
    async def handler(ctx: Context[Any, Tally]) -> int:
        async def body(state: int, i: int) -> Continue[int] | Done[int]:
            await ctx.inc("n", 1)
            await ctx.sleep(0.01)
            await ctx.push("names", str(i))
            return Done(ctx.state.n) if i == 3 else Continue(state)

        return await ctx.loop("turns", 0, body)

    run = await ended(make_app, handler, state=Tally)
    assert (run.output, run.state.n, run.state.names) == (4, 4, ["0", "1", "2", "3"])


async def test_steps_of_a_group_change_the_state_together(make_app: Any) -> None:
    wf: Workflow[Any, Tally, Any] = Workflow("group", state=Tally)

    async def member(ctx: Context[Any, Tally]) -> None:
        await ctx.inc("n", 1)
        await ctx.sleep(0.01)
        await ctx.push("names", ctx.step_id)

    for name in "abc":
        wf.step(name, group="g", max_attempts=1)(member)

    @wf.step
    async def after(ctx: Context[Any, Tally]) -> int:
        return ctx.state.n

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.error is None
    assert (run.output, sorted(run.state.names)) == (3, ["a", "b", "c"])


async def test_a_failed_run_keeps_what_was_stored_and_a_retry_does_not_count_it_again(make_app: Any) -> None:
    broken = [True]

    async def handler(ctx: Context[Any, Tally]) -> int:
        await ctx.inc("n", 1)
        ctx.state.n += 100  # forgotten: never stored
        if broken:
            raise ValueError
        return ctx.state.n

    wf = one_step(handler, state=Tally)
    async with make_app(wf) as app:
        handle = await app.start(wf)
        assert (await handle.wait("20s")).state.n == 1
        broken.clear()
        await handle.retry()
        assert await handle.result("20s") == 101


@pytest.mark.parametrize("key", ["a.b", "$a", "", "a\0b", 5], ids=repr)
async def test_keys_that_could_be_paths_or_operators_are_refused(make_app: Any, runs: Any, key: Any) -> None:
    async def handler(ctx: Context[Any, dict[str, Any]]) -> str:
        ctx.state = {"map": {"k": 1}}
        await ctx.save()
        with pytest.raises(InvalidKey):
            await ctx.put("map", key, 1)
        with pytest.raises(InvalidKey):
            await ctx.drop("map", key)
        assert await stored_state(runs, ctx.run_id) == ctx.state == {"map": {"k": 1}}
        return "refused"

    assert (await ended(make_app, handler, state=dict[str, Any])).output == "refused"


@pytest.mark.parametrize("path", ["$n", "a.$n", "a..b", "", ".a", "a.", "nothing.there"], ids=repr)
async def test_paths_that_lead_nowhere_are_refused(make_app: Any, path: str) -> None:
    async def handler(ctx: Context[Any, dict[str, Any]]) -> str:
        ctx.state = {"a": {"b": 1}}
        for operation in (ctx.inc(path, 1), ctx.push(path, 1)):
            with pytest.raises(InvalidKey):
                await operation
        return "refused"

    run = await ended(make_app, handler, state=dict[str, Any])
    assert run.output == "refused"


@pytest.mark.parametrize("amount", ["1", None, True], ids=repr)
async def test_only_numbers_can_be_added(make_app: Any, amount: Any) -> None:
    async def handler(ctx: Context[Any, Tally]) -> str:
        with pytest.raises(InvalidKey):
            await ctx.inc("n", amount)
        return "refused"

    assert (await ended(make_app, handler, state=Tally)).output == "refused"


async def test_hostile_values_are_stored_as_they_are(make_app: Any) -> None:
    async def handler(ctx: Context[Any, dict[str, Any]]) -> None:
        await ctx.push("list", "$secret")
        await ctx.put("", "map", {"k": "$$ROOT", "null": "\0"})

    run = await ended(make_app, handler, state=dict[str, Any])
    assert run.error is None
    assert run.state == {"list": ["$secret"], "map": {"k": "$$ROOT", "null": "\0"}}


@pytest.mark.parametrize("value", [{"$inc": 1}, {"a.b": 1}, [{"deep": {"$set": 1}}]], ids=repr)
async def test_values_with_keys_that_no_path_could_reach_are_refused(make_app: Any, value: Any) -> None:
    async def handler(ctx: Context[Any, dict[str, Any]]) -> str:
        with pytest.raises(InvalidKey):
            await ctx.push("list", value)
        with pytest.raises(InvalidKey):
            await ctx.put("", "map", value)
        ctx.state["x"] = 1
        return "refused"

    run = await ended(make_app, handler, state=dict[str, Any])
    assert (run.output, run.state) == ("refused", {"x": 1})


async def test_a_zombies_operation_changes_nothing(make_app: Any, runs: Any) -> None:
    silence, late, refused = Silence(), asyncio.Event(), []

    async def handler(ctx: Context[Any, Tally]) -> int:
        await ctx.inc("n", 1)
        if not silence.reached.is_set():
            silence.reached.set()
            await late.wait()
            try:
                await ctx.inc("n", 1000)
            except BaseException as error:
                refused.append(type(error).__name__)
                raise
        return ctx.state.n

    async with taken_over(make_app, runs, one_step(handler, state=Tally), silence) as handle:
        assert await handle.result("20s") == 1
        late.set()
        await eventually(lambda: refused)
        assert await stored_state(runs, handle.id) == Tally(n=1).model_dump()
    assert refused[0] in ("HeartbeatLost", "CancelledError")


async def test_state_of_a_parked_run_can_be_read(make_app: Any) -> None:
    async def handler(ctx: Context[Any, Tally]) -> None:
        await ctx.inc("n", 5)
        await ctx.wait("for ever")

    wf = one_step(handler, state=Tally)
    async with make_app(wf) as app:
        run = await status_of(await app.start(wf), "waiting")
    assert run.state == Tally(n=5)
