"""``ctx.wait_for`` and ``app.send_event``: an event reaches its run once, whether it comes before the wait or after."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from pydantic import BaseModel

from streamline import Context, Workflow
from streamline.errors import InvalidKey, NotWaiting, PayloadTooLarge, RunNotFound, SerializationError, WaitTimeout
from tests.clocks import MovableClock
from tests.waiting import status_of


class Paid(BaseModel):
    amount: int


def listening(*asked: dict[str, Any], got: list[Any] | None = None) -> Workflow[Any, Any, Any]:
    """A workflow that waits for one event after the other."""
    wf: Workflow[Any, Any, Any] = Workflow("listener")

    @wf.step(max_attempts=1)
    async def listen(ctx: Context[Any]) -> list[Any]:
        found = [await ctx.wait_for(**each) for each in asked]
        (got if got is not None else []).append(found)
        return found

    return wf


async def test_an_event_ends_the_wait_for_it(make_app: Any, runs: Any) -> None:
    wf = listening({"event": "paid"})
    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        await app.tick()
        (wait,) = (await handle.get()).waits
        assert (wait.kind, wait.name) == ("event", "paid")
        assert await app.send_event("paid", {"amount": 5}, run_id=handle.id) == 1
        assert "inbox" not in await runs.find_one({"_id": handle.id})
        assert await app.tick() == 1
        assert await handle.result("5s") == [{"amount": 5}]


@pytest.mark.parametrize("payload", [None, False, 0, "", [], {}])
async def test_a_falsy_payload_arrives_as_it_was_sent(make_app: Any, payload: Any) -> None:
    wf = listening({"event": "e", "default": "d"}, {"event": "early", "default": "d"})
    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        await app.send_event("early", payload, run_id=handle.id)
        await app.tick()
        await app.send_event("e", payload, run_id=handle.id)
        await app.tick()
        assert await handle.result("5s") == [payload, payload]


async def test_an_event_that_comes_before_the_run_has_begun_is_not_lost(make_app: Any) -> None:
    wf = listening({"event": "paid"})
    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        assert await app.send_event("paid", 1, run_id=handle.id) == 1
        assert await handle.status() == "draft"
        await app.tick()
        assert await handle.result("5s") == [1]


async def test_an_event_that_comes_in_an_earlier_step_is_not_lost(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("two")

    @wf.step
    async def first(ctx: Context[Any]) -> Any:
        return await ctx.wait("go")

    @wf.step
    async def second(ctx: Context[Any]) -> Any:
        return await ctx.wait_for("early")

    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        await app.tick()
        await app.send_event("early", "kept", run_id=handle.id)
        assert await app.tick() <= 1
        await handle.resume()
        await app.tick()
        assert await handle.result("5s") == "kept"


async def test_early_events_are_taken_in_the_order_in_which_they_came(make_app: Any) -> None:
    wf = listening(*({"event": "e"} for _ in range(5)))
    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        for i in range(5):
            await app.send_event("e", i, run_id=handle.id)
        await app.tick()
        assert await handle.result("5s") == [0, 1, 2, 3, 4]


async def test_an_event_is_taken_once(make_app: Any, runs: Any) -> None:
    clock = MovableClock()
    wf = listening({"event": "e"}, {"event": "e", "timeout": "1h", "default": "none"})
    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        await app.send_event("e", "only", run_id=handle.id)
        await app.tick()
        assert (await runs.find_one({"_id": handle.id})).get("inbox", []) == []
        clock.move(hours=2)
        await app.tick()
        assert await handle.result("5s") == ["only", "none"]


async def test_other_events_are_kept_for_who_waits_for_them(make_app: Any, runs: Any) -> None:
    wf = listening({"event": "b"}, {"event": "a"})
    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        await app.tick()
        await app.send_event("a", 1, run_id=handle.id)
        await app.send_event("never", 0, run_id=handle.id)
        assert await app.tick() == 0
        assert [event["name"] for event in (await runs.find_one({"_id": handle.id}))["inbox"]] == ["a", "never"]
        await app.send_event("b", 2, run_id=handle.id)
        await app.tick()
        assert await handle.result("5s") == [2, 1]


@pytest.mark.parametrize("early", [True, False], ids=["early", "late"])
async def test_only_an_event_that_matches_ends_the_wait(make_app: Any, *, early: bool) -> None:
    wf = listening({"event": "paid", "match": {"order.id": 7, "final": True}})
    payloads = [
        None,
        7,
        {"order": 7, "final": True},
        {"order": {"id": 8}, "final": True},
        {"order": {"id": 7}},
        {"order": {"id": "7"}, "final": True},
        {"order": {"id": 7}, "final": True, "n": 1},
        {"order": {"id": 7}, "final": True, "n": 2},
    ]
    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        if not early:
            await app.tick()
        for payload in payloads:
            await app.send_event("paid", payload, run_id=handle.id)
        await app.tick()
        assert await handle.result("5s") == [payloads[6]]


async def test_of_several_waits_each_takes_the_event_it_is_for(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("three")

    @wf.step
    async def listen(ctx: Context[Any]) -> dict[str, Any]:
        branches = {
            "one": lambda: ctx.wait_for("e", match={"n": 1}, key="one"),
            "any": lambda: ctx.wait_for("e", key="any"),
            "other": lambda: ctx.wait_for("other", key="other"),
        }
        return await ctx.gather("all", branches)

    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        await app.tick()
        for name, payload in (("other", 0), ("e", {"n": 2}), ("e", {"n": 1})):
            await app.send_event(name, payload, run_id=handle.id)
        await app.tick()
        assert await handle.result("5s") == {"one": {"n": 1}, "any": {"n": 2}, "other": 0}


async def test_events_and_waits_survive_a_restart_in_between(make_app: Any) -> None:
    got: list[Any] = []
    wf = listening({"event": "a"}, {"event": "b"}, {"event": "c"}, got=got)
    async with make_app(wf) as app:
        handle = await app.start(wf)
        await status_of(handle, "waiting")
        await app.send_event("c", 3, run_id=handle.id)
    async with make_app(worker=False) as asking:
        await asking.send_event("a", 1, run_id=handle.id)
    async with make_app(wf) as app:
        again = app.handle(handle.id)
        await status_of(again, "waiting")
        await app.send_event("b", 2, run_id=handle.id)
        assert await again.result("20s") == [1, 2, 3]
    assert got == [[1, 2, 3]]


async def test_event_waits_still_work_after_the_first_resume(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("mixed")

    @wf.step
    async def first(ctx: Context[Any]) -> Any:
        return [await ctx.wait("person"), await ctx.wait_for("machine")]

    @wf.step
    async def second(ctx: Context[Any]) -> Any:
        return [*ctx.output(first), await ctx.wait_for("machine")]

    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        await app.tick()
        await handle.resume("p")
        await app.tick()
        for i in (1, 2):
            await app.send_event("machine", i, run_id=handle.id)
            await app.tick()
        assert await handle.result("5s") == ["p", 1, 2]


async def test_an_event_that_nobody_sends_in_time(make_app: Any) -> None:
    clock, caught = MovableClock(), []
    wf: Workflow[Any, Any, Any] = Workflow("late")

    @wf.step
    async def listen(ctx: Context[Any]) -> list[Any]:
        try:
            await ctx.wait_for("a", timeout="1h")
        except WaitTimeout as error:
            caught.append(error.code)
        return [await ctx.wait_for("b", timeout="1h", default=None), await ctx.wait_for("a")]

    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        await app.tick()
        clock.move(hours=1, minutes=1)
        # Too late for the first wait, but not for a later one.
        assert await app.send_event("a", "kept", run_id=handle.id) == 1
        await app.tick()
        clock.move(hours=2)
        await app.tick()
        assert await handle.result("5s") == [None, "kept"]
    assert set(caught) == {"wait.timeout"}


async def test_a_model_is_what_the_handler_gets(make_app: Any) -> None:
    got: list[Any] = []
    wf: Workflow[Any, Any, Any] = Workflow("typed")

    @wf.step
    async def listen(ctx: Context[Any]) -> None:
        got.append(await ctx.wait_for("paid", model=Paid))

    async with make_app(wf, worker=False) as app:
        for payload in ({"amount": 5}, Paid(amount=5)):
            handle = await app.start(wf)
            await app.tick()
            await app.send_event("paid", payload, run_id=handle.id)
            await app.tick()
            assert await handle.status() == "done"
    assert got == [Paid(amount=5)] * 2


@pytest.mark.parametrize("early", [True, False], ids=["early", "late"])
async def test_an_event_that_does_not_fit_is_passed_over(make_app: Any, *, early: bool) -> None:
    clock, got = MovableClock(), []
    wf: Workflow[Any, Any, Any] = Workflow("typed")

    @wf.step(max_attempts=1)
    async def listen(ctx: Context[Any]) -> None:
        got.append(await ctx.wait_for("paid", model=Paid, timeout="1h", default="nobody"))
        got.append(await ctx.wait_for("paid", model=Paid, timeout="1h", default="nobody"))

    async with make_app(wf, worker=False, clock=clock) as app, make_app(worker=False) as sending:
        handle = await app.start(wf)
        if not early:
            await app.tick()
        for payload in ({"amount": "many"}, {"amount": 5}):
            await sending.send_event("paid", payload, run_id=handle.id)
            await app.tick()
        clock.move(hours=2)
        await app.tick()
        assert await handle.status() == "done"
    assert got[-2:] == [Paid(amount=5), "nobody"]


@pytest.mark.parametrize("end", ["done", "cancelled"])
async def test_no_event_reaches_a_run_that_has_ended(make_app: Any, runs: Any, end: str) -> None:
    wf = listening({"event": "e"})
    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        await app.tick()
        await (handle.cancel() if end == "cancelled" else app.send_event("e", run_id=handle.id))
        await app.tick()
        before = await runs.find_one({"_id": handle.id})
        assert before["status"] == end
        assert await app.send_event("e", "late", run_id=handle.id) == 0
        assert await runs.find_one({"_id": handle.id}) == before


async def test_an_event_for_a_run_that_is_not_there_is_an_error(make_app: Any) -> None:
    async with make_app(worker=False) as app:
        for run_id in ("nobody", {"$gt": ""}):
            with pytest.raises(RunNotFound):
                await app.send_event("e", run_id=run_id)


@pytest.mark.parametrize("name", ["", "a.b\0", None, 5, {"$gt": ""}], ids=repr)
async def test_an_event_needs_a_name(make_app: Any, runs: Any, name: Any) -> None:
    wf = listening({"event": "e"})
    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        before = await runs.find_one({"_id": handle.id})
        with pytest.raises(InvalidKey):
            await app.send_event(name, run_id=handle.id)
        assert await runs.find_one({"_id": handle.id}) == before


async def test_an_event_goes_to_no_other_run_and_is_no_resume(make_app: Any) -> None:
    wf = listening({"event": "e"})
    async with make_app(wf, worker=False) as app:
        one, two = await app.start_many(wf, [None] * 2)
        await app.tick()
        with pytest.raises(NotWaiting):
            await app.resume(one.id, "by hand")
        await app.send_event("e", "for one", run_id=one.id)
        await app.tick()
        assert [await one.status(), await two.status()] == ["done", "waiting"]


@pytest.mark.parametrize(
    ("payload", "expected"), [(object(), SerializationError), ("x" * 5_000_000, PayloadTooLarge)], ids=["odd", "large"]
)
async def test_an_event_that_cannot_be_stored_is_refused(
    make_app: Any, runs: Any, payload: Any, expected: type[Exception]
) -> None:
    wf = listening({"event": "e"})
    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        await app.tick()
        before = await runs.find_one({"_id": handle.id})
        with pytest.raises(expected):
            await app.send_event("e", payload, run_id=handle.id)
        assert await runs.find_one({"_id": handle.id}) == before


async def test_events_cannot_make_a_run_so_large_that_it_cannot_end(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("large")

    @wf.step(max_attempts=1)
    async def listen(ctx: Context[Any]) -> None:
        await ctx.wait("it")
        raise ValueError("x" * 3000)

    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        await app.tick()
        accepted = 0
        for size in (4_000_000, 1_000_000, 100_000, 10_000, 1_000, 100):
            with contextlib.suppress(PayloadTooLarge):
                for _ in range(10):
                    await app.send_event("e", "x" * size, run_id=handle.id)
                    accepted += size
        assert accepted <= 12 * 1024 * 1024
        await handle.resume("y")
        await app.tick()
        assert await handle.status() == "failed"


async def test_events_beyond_what_a_run_keeps_are_refused_and_none_that_was_accepted_is_lost(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("many")

    @wf.step
    async def listen(ctx: Context[Any]) -> list[Any]:
        await ctx.wait("begin")
        return [await ctx.wait_for("e", timeout=0, default=None) for _ in range(130)]

    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        await app.tick()
        accepted = []
        for i in range(120):
            try:
                await app.send_event("e", i, run_id=handle.id)
            except Exception:  # noqa: BLE001 - whichever: the sender hears of it
                break
            accepted.append(i)
        await handle.resume()
        await app.tick()
        got = [value for value in await handle.result("5s") if value is not None]
    assert got == accepted
    assert len(accepted) >= 100


async def test_events_from_many_senders_at_once_all_arrive_once(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("many")

    @wf.step
    async def listen(ctx: Context[Any]) -> list[Any]:
        return [await ctx.wait_for("e") for _ in range(30)]

    async with make_app(wf) as app, make_app(worker=False) as one, make_app(worker=False) as two:
        handle = await app.start(wf)
        senders = [app, one, two]
        await asyncio.gather(*(senders[i % 3].send_event("e", i, run_id=handle.id) for i in range(30)))
        assert sorted(await handle.result("30s")) == list(range(30))
