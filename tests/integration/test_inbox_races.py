"""Whoever sends an event and whoever waits for it meet at any moment: the event is taken, once, and in order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from streamline import Context, Settings, Workflow
from streamline.store import Scope
from tests.clocks import MovableClock
from tests.waiting import eventually

SLEEPING = {"worker": False}


def waiting_for(*names: str, **options: Any) -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow("waiting")

    @wf.step
    async def wait(ctx: Context[Any]) -> list[Any]:
        return [await ctx.wait_for(name, **options) for name in names]

    return wf


class Meanwhile:
    """Does something before or after the first look that an app takes at a collection."""

    def __init__(self, app: Any, collection: str, moment: str, act: Callable[[], Awaitable[Any]]) -> None:
        self._driver = app._open_session.runtime.store.driver
        self._find, self._collection = self._driver.find, collection
        self._moment, self._act = moment, act
        self.done = False
        self._driver.find = self._look

    async def _look(self, collection: str, statement: Any) -> Any:
        mine = statement.name == self._collection and not self.done
        self.done = self.done or mine
        if mine and self._moment == "before":
            await self._act()
        found = await self._find(collection, statement)
        if mine and self._moment == "after":
            await self._act()
        return found


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_an_event_that_comes_while_a_wait_is_being_opened_is_taken(make_app: Any, moment: str) -> None:
    wf = waiting_for("e")
    async with make_app(wf, **SLEEPING) as app, make_app(worker=False) as sender:
        handle = await app.start(wf)
        meanwhile = Meanwhile(app, "find_events", moment, lambda: sender.send_event("e", "meanwhile"))
        await app.tick()
        await app.tick()
        assert meanwhile.done
        assert await handle.result("5s") == ["meanwhile"]


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_wait_that_is_opened_while_an_event_is_being_brought_gets_it(make_app: Any, moment: str) -> None:
    wf = waiting_for("e")
    async with make_app(wf, **SLEEPING) as app, make_app(worker=False) as sender:
        handle = await app.start(wf)
        meanwhile = Meanwhile(sender, "find_listeners", moment, app.tick)
        await sender.send_event("e", "meanwhile")
        await app.tick()
        assert meanwhile.done
        assert await handle.result("5s") == ["meanwhile"]


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_an_event_taken_from_inside_while_it_is_offered_from_outside_is_taken_once(
    make_app: Any, moment: str
) -> None:
    wf = waiting_for("e", "e")
    async with make_app(wf, **SLEEPING) as app, make_app(worker=False) as sender:
        handle = await app.start(wf)
        await app.tick()
        # Between the offer's look at older events and its write, the run goes on by another event.
        act = lambda: sender.send_event("e", "second")  # noqa: E731
        Meanwhile(sender, "find_events", moment, act)
        await sender.send_event("e", "first")
        await app.tick()
        assert await handle.result("5s") == ["first", "second"]


async def test_an_event_that_another_sender_has_not_brought_yet_comes_first(make_app: Any, database: Any) -> None:
    wf = waiting_for("e", "e", "e")
    async with make_app(wf, **SLEEPING) as app:
        handle = await app.start(wf)
        await app.tick()
        inbox = database["streamline.inbox"]
        for n in (1, 2):  # as a sender leaves them that dies as soon as they are stored
            await app.send_event("e", n, match={"input.no": "body"})
        await inbox.update_many({}, {"$unset": {"match": ""}})
        await app.send_event("e", 3)
        await app.tick()
        assert await handle.result("5s") == [1, 2, 3]


async def test_two_waits_of_one_run_take_two_events(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("both")

    @wf.step
    async def wait(ctx: Context[Any]) -> list[Any]:
        async def branch(item: int, index: int) -> Any:
            return await ctx.wait_for("e")

        return await ctx.each("two", [1, 2], branch)

    for early in (0, 1, 2):
        async with make_app(wf, prefix=f"early{early}", **SLEEPING) as app:
            handle = await app.start(wf)
            for n in range(early):
                await app.send_event("e", n)
            await app.tick()
            for n in range(early, 2):
                await app.send_event("e", n)
            await app.tick()
            assert sorted(await handle.result("5s")) == [0, 1]


async def test_an_event_that_came_in_time_counts_even_where_the_run_wakes_late(make_app: Any, database: Any) -> None:
    clock = MovableClock()
    wf = waiting_for("e", timeout="1h", default="nobody")
    async with make_app(wf, clock=clock, **SLEEPING) as app:
        handle = await app.start(wf)
        await app.tick()
        await app.send_event("e", "in time", match={"input.no": "body"})
        await database["streamline.inbox"].update_one({}, {"$unset": {"match": ""}})
        clock.move(hours=2)
        await app.tick()
        assert await handle.result("5s") == ["in time"]


async def test_an_event_that_comes_too_late_is_for_a_later_wait(make_app: Any) -> None:
    clock = MovableClock()
    wf: Workflow[Any, Any, Any] = Workflow("patient")

    @wf.step
    async def wait(ctx: Context[Any]) -> list[Any]:
        return [await ctx.wait_for("e", timeout="1h", default="nobody"), await ctx.wait_for("e")]

    async with make_app(wf, clock=clock, **SLEEPING) as app:
        handle = await app.start(wf)
        await app.tick()
        clock.move(hours=2)
        assert await app.send_event("e", "late") == 0
        await app.tick()
        assert await handle.result("5s") == ["nobody", "late"]


async def test_a_wait_without_time_looks_for_what_is_there(make_app: Any) -> None:
    wf = waiting_for("e", "e", timeout=0, default=None)
    async with make_app(wf, **SLEEPING) as app:
        await app.send_event("e", 1)
        handle = await app.start(wf)
        await app.tick()
        assert await handle.result("5s") == [1, None]


async def test_what_is_sent_to_the_run_and_to_all_is_taken_in_order(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("late")

    @wf.step
    async def late(ctx: Context[Any]) -> list[Any]:
        await ctx.wait("begin")
        return [await ctx.wait_for("e") for _ in range(4)]

    async with make_app(wf, **SLEEPING) as app:
        handle = await app.start(wf)
        await app.tick()
        for n in range(4):
            await app.send_event("e", n, **({"run_id": handle.id} if n % 2 else {}))
        await handle.resume()
        await app.tick()
        assert await handle.result("5s") == [0, 1, 2, 3]


async def test_nothing_is_done_about_an_event_before_it_is_stored(make_app: Any, database: Any) -> None:
    async with make_app(**SLEEPING) as app:
        seen = list[int]()
        count = database["streamline.inbox"].count_documents

        async def look() -> None:
            seen.append(await count({"owed_at": {"$exists": True}}))

        Meanwhile(app, "find_listeners", "before", look)
        await app.send_event("e")
        assert seen == [1]
        assert await count({"owed_at": {"$exists": True}}) == 0


async def test_an_event_is_kept_for_a_set_time(make_app: Any, database: Any) -> None:
    wf = waiting_for("e")
    settings = Settings(event_retention="1s", event_early="1h")
    async with make_app(wf, settings=settings) as app:
        await app.send_event("e")
        event = await database["streamline.inbox"].find_one({})
        assert (event["expire_at"] - event["at"]).total_seconds() == 1
        await eventually(lambda: _is_empty(database["streamline.inbox"]))


async def _is_empty(collection: Any) -> bool:
    return await collection.find_one({}) is None


@pytest.mark.parametrize(("early", "output"), [("0s", "nobody"), ("1m", "nobody"), ("1h", "early")])
async def test_how_early_an_event_may_be_is_set(make_app: Any, early: str, output: str) -> None:
    clock = MovableClock()
    wf = waiting_for("e", timeout="1h", default="nobody")
    async with make_app(wf, clock=clock, settings=Settings(event_early=early), **SLEEPING) as app:
        await app.send_event("e", "early")
        clock.move(minutes=5)
        handle = await app.start(wf)
        await app.tick()
        clock.move(hours=2)
        await app.tick()
        assert await handle.result("5s") == [output]


async def test_no_event_reaches_another_tenants_runs(make_app: Any, runs: Any, database: Any) -> None:
    wf = waiting_for("e")
    async with make_app(wf, **SLEEPING) as app:
        _, theirs = [await app.start(wf, run_id=name) for name in ("ours", "theirs")]
        await runs.update_one({"_id": theirs.id}, {"$set": {"tenant_id": "theirs"}})
        await app.tick()
        assert await app.send_event("e", 1) == 1
        sending = app._open_session.sending
        asked = {"run_id": None, "match": None, "missing": None}
        assert await sending.send("e", 2, Scope("strangers"), **asked) == 0
        assert (await runs.find_one({"_id": "theirs"}))["status"] == "waiting"
        assert await sending.send("e", 3, Scope("theirs"), **asked) == 1
        await app.tick()
        outputs = {run["_id"]: run["output"] async for run in runs.find({})}
    assert outputs == {"ours": [1], "theirs": [3]}
