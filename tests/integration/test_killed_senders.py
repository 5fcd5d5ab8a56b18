"""A process dies at any of its writes while events are sent, waited for, emitted, or start runs: none is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, NoReturn

import pytest
from pymongo.errors import AutoReconnect

from streamline import CancelOn, Context, OnCompletion, OnEvent, Settings, Worker, Workflow
from streamline.errors import StoreUnavailable
from tests.clocks import MovableClock
from tests.waiting import eventually, status_of

DYING = {
    "worker": Worker(lease="2s", poll_interval="100ms", drain=0, cancel_grace=0),
    "settings": Settings(patience="50ms"),
}
HEIR = Worker(lease="400ms", poll_interval="100ms")
WRITES_MAX = 12


class Death:
    """Cuts an app off from its database at one of its writes to runs or inbox; its process is as good as dead."""

    def __init__(self, app: Any, moment: str, at: int) -> None:
        driver = app._open_session.runtime.store.driver
        self._driver, self._send = driver, driver.command
        self._ours = {driver.runs, driver.named("inbox")}
        self._moment, self._at = moment, at
        self.writes, self.done = 0, False
        driver.command = self._command

    async def _command(self, command: Mapping[str, Any]) -> Any:
        kind = next(iter(command))
        if kind not in ("insert", "update") or command[kind] not in self._ours:
            return await self._send(command)
        self.writes += 1
        if self.writes == self._at and self._moment == "before":
            self._die()
        answer = await self._send(command)
        if self.writes == self._at:
            self._die()
        return answer

    def _die(self) -> NoReturn:
        async def refuse(*_: Any, **__: Any) -> NoReturn:
            raise AutoReconnect("cut off")

        self.done = True
        self._driver.command = self._driver.find = refuse
        raise AutoReconnect("cut off")


POINTS = [(moment, at) for at in range(1, WRITES_MAX + 1) for moment in ("before", "applied")]
Act = Callable[[Any], Awaitable[Any]]


async def dies(app: Any, moment: str, at: int, act: Act) -> bool:
    """Let an app act until it dies; return whether it has been cut off, and not come through."""
    death = Death(app, moment, at)
    with suppress(StoreUnavailable):
        await act(app)
    if not death.done:
        await asyncio.sleep(0.05)
    return death.done


def listener(name: str = "listener") -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow(name, cancel_on=[CancelOn("stop")])

    @wf.step
    async def listen(ctx: Context[Any]) -> list[Any]:
        return [await ctx.wait_for("e"), await ctx.wait_for("e")]

    return wf


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "at"), [point for point in POINTS if point[1] <= 5])
async def test_a_sender_that_dies_leaves_an_event_that_others_bring(
    make_app: Any, runs: Any, database: Any, moment: str, at: int
) -> None:
    wf, started, clock = listener(), Workflow[Any, Any, Any]("started", triggers=[OnEvent("e")]), MovableClock()

    @started.step
    async def only(ctx: Context[Any]) -> Any:
        return ctx.input

    async with make_app(wf, started, worker=False) as app:
        handles = await app.start_many(wf, [1, 2])
        await app.tick()
        async with make_app(started, **{**DYING, "worker": False}) as dying:
            died = await dies(dying, moment, at, lambda app: app.send_event("e", "first"))
    clock.move(seconds=60)
    async with make_app(wf, started, worker=HEIR, clock=clock) as heir:
        lost = died and (moment, at) == ("before", 1)
        if lost:
            assert await database["streamline.inbox"].count_documents({}) == 0
            await heir.send_event("e", "first")
        owed = {"$or": [{"owed_at": {"$exists": True}}, {"triggers": {"$ne": []}}]}
        await eventually(lambda: _none(database["streamline.inbox"], owed))
        await eventually(lambda: _count(runs, {"listens": "e", "lease": None, "heard": {"$size": 1}}, 2))
        await heir.send_event("e", "second")
        outputs = [await heir.handle(handle.id).result("10s") for handle in handles]
        await eventually(lambda: _count(runs, {"workflow": "started", "status": "done"}, 2))
    assert outputs == [["first", "second"]] * 2
    assert await runs.count_documents({"workflow": "started"}) == 2


async def _none(collection: Any, query: Any) -> bool:
    return await collection.find_one(query) is None


async def _count(collection: Any, query: Any, count: int) -> bool:
    return bool(await collection.count_documents(query) == count)


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "at"), [point for point in POINTS if point[1] <= 6])
async def test_a_waiter_that_dies_gets_an_event_that_came_before_or_meanwhile(
    make_app: Any, runs: Any, moment: str, at: int
) -> None:
    wf, clock = listener(), MovableClock()
    async with make_app(worker=False) as sender:
        await sender.send_event("e", "early")
        async with make_app(wf, **DYING) as dying:
            await dies(dying, moment, at, lambda app: app.start(wf, run_id="one"))
            await sender.send_event("e", "later")
            await asyncio.sleep(0.1)
        if await runs.find_one({"_id": "one"}) is None:
            return  # it was never there
    clock.move(seconds=60)
    async with make_app(wf, worker=HEIR, clock=clock) as heir:
        assert await heir.handle("one").result("10s") == ["early", "later"]


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "at"), [point for point in POINTS if point[1] <= 8])
async def test_a_handler_that_dies_while_it_emits_is_heard_once_by_each(
    make_app: Any, runs: Any, database: Any, moment: str, at: int
) -> None:
    said: Workflow[Any, Any, Any] = Workflow("saying")
    after, clock = Workflow[Any, Any, Any]("after", triggers=[OnCompletion("saying")]), MovableClock()

    @said.step
    async def say(ctx: Context[Any]) -> str:
        await ctx.emit("e", "said")
        return "done"

    @after.step
    async def only(ctx: Context[Any]) -> Any:
        return ctx.input

    wf = listener()
    async with make_app(wf, after, worker=False) as app:
        handle = await app.start(wf)
        await app.tick()
        async with make_app(said, **DYING) as dying:
            await dies(dying, moment, at, lambda app: _run(app, said))
        if await runs.find_one({"_id": "saying"}) is None:
            return  # it was never there
    clock.move(seconds=60)
    async with make_app(wf, said, after, worker=HEIR, clock=clock) as heir:
        assert await heir.handle("saying").result("10s") == "done"
        await eventually(lambda: _count(runs, {"workflow": "after", "status": "done", "input": "done"}, 1))
        await eventually(lambda: _count(runs, {"workflow": "listener", "heard": {"$size": 1}, "lease": None}, 1))
        assert await database["streamline.inbox"].count_documents({"name": "e"}) == 1
        await heir.send_event("e", "end")
        assert await heir.handle(handle.id).result("10s") == ["said", "end"]
    assert await runs.count_documents({"workflow": "after"}) == 1


async def _run(app: Any, wf: Any) -> None:
    await app.start(wf, run_id="saying")
    await status_of(app.handle("saying"), "done")
    await asyncio.sleep(0.1)


@pytest.mark.parametrize("moment", ["before", "applied"])
@pytest.mark.parametrize("at", [1, 2, 3])
async def test_a_sender_that_dies_cancels_all_or_others_do(make_app: Any, runs: Any, moment: str, at: int) -> None:
    wf, clock = listener(), MovableClock()
    async with make_app(wf, worker=False) as app:
        await app.start_many(wf, range(3))
        async with make_app(**{**DYING, "worker": False}) as dying:
            died = await dies(dying, moment, at, lambda app: app.send_event("stop"))
    clock.move(seconds=60)
    async with make_app(worker=HEIR, clock=clock) as heir:
        if died and (moment, at) == ("before", 1):
            assert await heir.send_event("stop") == 3
        await eventually(lambda: _count(runs, {"status": "cancelled"}, 3))
