"""Between a parent and its children a process can die at any write: nothing is lost, and no child is started twice."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, NoReturn

import pytest
from pymongo.errors import AutoReconnect

from streamline import Context, NonRetriableError, Settings, Worker, Workflow
from streamline.engine.ended.closer import Closer
from streamline.errors import StoreUnavailable
from tests.clocks import MovableClock
from tests.stress.saboteur import Saboteur
from tests.waiting import eventually, status_of

# Whoever is cut off from the database soon finds that it can do no more, and stops.
DYING = {
    "worker": Worker(lease="2s", poll_interval="100ms", drain=0, cancel_grace=0),
    "settings": Settings(patience="50ms"),
}
HEIR = Worker(lease="400ms", poll_interval="100ms")


class Family:
    """A parent that waits for one child, under names of its own, and what they have done."""

    def __init__(self, name: str, *, ends: str = "done") -> None:
        self.did: list[str] = []
        self.child: Workflow[Any, Any, Any] = Workflow(f"child-{name}")
        self.parent: Workflow[Any, Any, Any] = Workflow(f"parent-{name}")

        async def work() -> str:
            self.did.append("work")
            return "grown"

        @self.child.step
        async def grow(ctx: Context[Any]) -> str:
            result = await ctx.call("work", work)
            if ends == "failed":
                raise NonRetriableError("bad")
            return result

        @self.parent.step(on_error="skip")
        async def raise_child(ctx: Context[Any]) -> str:
            return str(await ctx.start_child(self.child))

        @self.parent.step
        async def after(ctx: Context[Any]) -> Any:
            self.did.append("after")
            return ctx.outputs.get("raise_child")

    @property
    def workflows(self) -> tuple[Workflow[Any, Any, Any], ...]:
        return self.parent, self.child


def cut_off(app: Any) -> Any:
    """Return what makes an app's process as good as dead: no command of its leaves any more."""
    driver = app._open_session.runtime.store.driver

    async def refuse(*_: Any, **__: Any) -> NoReturn:
        raise AutoReconnect("cut off")

    def die() -> NoReturn:
        driver.command = driver.find = refuse
        raise AutoReconnect("cut off")

    return die


async def live(make_app: Any, family: Family, moment: str, at: int, run_id: str) -> tuple[bool, int]:
    """Start a run in a process that dies at one of its writes; return whether it did, and how many it made."""
    async with make_app(*family.workflows, prefix=run_id, **DYING) as app:
        saboteur = Saboteur(app, moment, at, cut_off(app))
        with suppress(StoreUnavailable):
            await app.start(family.parent, run_id=run_id)
        await eventually(lambda: is_over(app, saboteur, run_id))
        return saboteur.done, len(saboteur.writes)


async def is_over(app: Any, saboteur: Saboteur, run_id: str) -> bool:
    if saboteur.done:
        return True
    runs = app.database[f"{run_id}.runs"]
    ended = await runs.count_documents({"status": {"$in": ["done", "failed"]}, "owes_at": {"$exists": False}})
    return bool(ended == 2)


async def inherit(make_app: Any, family: Family, run_id: str) -> Any:
    """Let another process bring what is there to an end; return the parent."""
    clock = MovableClock()
    clock.move(seconds=60)
    async with make_app(*family.workflows, prefix=run_id, worker=HEIR, clock=clock) as app:
        run = await app.handle(run_id).wait("15s")
        runs = app.database[f"{run_id}.runs"]
        await eventually(lambda: owes_nothing(runs))
        children = [each async for each in runs.find({"parent.run_id": run_id})]
    return run, children


async def owes_nothing(runs: Any) -> bool:
    return await runs.find_one({"owes_at": {"$exists": True}}) is None


async def one_death(make_app: Any, moment: str, at: int, ends: str) -> None:
    name = f"{moment}-{at}"
    family = Family(name, ends=ends)
    died, _ = await live(make_app, family, moment, at, name)
    if (moment, at) == ("before", 1):
        return  # the run was never there
    run, children = await inherit(make_app, family, name)
    where = f"{moment} write {at} ({'died' if died else 'survived'})"
    assert run.status == "done", where
    assert run.output == ("grown" if ends == "done" else None), where
    assert [child["status"] for child in children] == [ends], where
    assert 1 <= family.did.count("work") <= 2, where  # the call that was under way may be done again
    assert 1 <= family.did.count("after") <= 2, where


@pytest.mark.slow
@pytest.mark.parametrize("ends", ["done", "failed"])
@pytest.mark.parametrize("moment", ["before", "applied"])
async def test_a_death_at_any_write_loses_neither_parent_nor_child(
    make_app: Any, client: Any, database_name: str, moment: str, ends: str
) -> None:
    _, writes = await live(make_app, Family("sound", ends=ends), "before", 0, "sound")
    assert writes >= 8
    points = list(range(1, writes + 2))
    for begin in range(0, len(points), 4):
        await asyncio.gather(*(one_death(make_app, moment, at, ends) for at in points[begin : begin + 4]))


async def test_a_child_whose_process_died_before_it_told_is_told_of_by_another(
    make_app: Any, runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = Family("mute")
    telling = Closer.close

    async def die(self: Closer, run: dict[str, Any]) -> None:
        """The process ends right after the write that ended the child."""

    monkeypatch.setattr(Closer, "close", die)
    async with make_app(*family.workflows) as app:
        handle = await app.start(family.parent)
        await eventually(lambda: runs.find_one({"parent.run_id": handle.id, "status": "done"}))
        parent = await status_of(handle, "waiting")
        assert parent.due_at is None
    monkeypatch.setattr(Closer, "close", telling)
    clock = MovableClock()
    clock.move(seconds=10)
    async with make_app(*family.workflows, worker=HEIR, clock=clock) as app:
        assert await app.handle(handle.id).result("10s") == "grown"
        await eventually(lambda: owes_nothing(runs))
    assert family.did == ["work", "after"]


async def test_what_an_ended_parent_owes_its_children_is_done_by_another_process(
    make_app: Any, runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    child: Workflow[Any, Any, Any] = Workflow("child")
    wf: Workflow[Any, Any, Any] = Workflow("parent")

    @child.step
    async def wait(ctx: Context[Any]) -> None:
        await ctx.wait("for ever")

    @wf.step
    async def ask(ctx: Context[Any]) -> None:
        await ctx.start_child(child)

    telling = Closer.close

    async def die(self: Closer, run: dict[str, Any]) -> None:
        """The process ends right after the write that cancelled the parent."""

    async with make_app(wf, child) as app:
        handle = await app.start(wf)
        found = await eventually(lambda: runs.find_one({"parent.run_id": handle.id, "status": "waiting"}))
        monkeypatch.setattr(Closer, "close", die)
        await handle.cancel()
        assert await app.handle(found["_id"]).status() == "waiting"
    monkeypatch.setattr(Closer, "close", telling)
    clock = MovableClock()
    clock.move(seconds=10)
    async with make_app(wf, child, worker=HEIR, clock=clock) as app:
        await status_of(app.handle(found["_id"]), "cancelled")
        await eventually(lambda: owes_nothing(runs))


async def test_a_parent_cancelled_while_it_starts_a_detached_child_leaves_none_behind(make_app: Any, runs: Any) -> None:
    """The cancellation comes between the child's insert and the parent's record of it."""
    child: Workflow[Any, Any, Any] = Workflow("child")
    wf: Workflow[Any, Any, Any] = Workflow("parent")

    @child.step
    async def wait(ctx: Context[Any]) -> None:
        await ctx.wait("for ever")

    @wf.step
    async def send_off(ctx: Context[Any]) -> None:
        await ctx.start_child(child, wait=False)
        await ctx.wait("for ever")

    async with make_app(wf, child) as app, make_app(wf, child, worker=False) as other:
        driver = app._open_session.runtime.store.driver
        send = driver.command

        async def command(asked: Any) -> Any:
            answer = await send(asked)
            if asked.get("insert") == "streamline.runs" and "parent" in asked["documents"][0]:
                await other.cancel(asked["documents"][0]["parent"]["run_id"])
            return answer

        driver.command = command
        handle = await app.start(wf, delay="50ms")
        assert (await handle.wait("20s")).status == "cancelled"
        found = await eventually(lambda: runs.find_one({"parent.run_id": handle.id}))
        await eventually(lambda: ended(runs, found["_id"]), within=5)


async def ended(runs: Any, run_id: str) -> bool:
    return bool((await runs.find_one({"_id": run_id}))["status"] == "cancelled")


@pytest.mark.parametrize("first", ["end", "park"])
async def test_a_childs_end_and_its_parents_parking_come_in_either_order(make_app: Any, runs: Any, first: str) -> None:
    family = Family("order")
    gate, parked = asyncio.Event(), asyncio.Event()
    async with make_app(*family.workflows) as app, make_app(family.child, worker=HEIR) as other:
        driver = app._open_session.runtime.store.driver
        send = driver.command

        async def command(asked: Any) -> Any:
            if first == "end" and is_parking(asked):
                gate.set()
                await eventually(
                    lambda: runs.find_one({"parent.name": "", "owes_at": {"$exists": False}, "status": "done"})
                )
            answer = await send(asked)
            if is_parking(asked):
                parked.set()
            return answer

        def is_parking(asked: Any) -> bool:
            rows = asked.get("updates", ())
            return any("steps.0.waits" in (row["u"].get("$set") or {}) for row in rows if isinstance(row["u"], dict))

        driver.command = command
        if first == "park":
            for each in (app, other):
                hold(each, parked)
        handle = await app.start(family.parent)
        assert await handle.result("20s") == "grown"
        events = [event.type async for event in handle.events()]
    assert parked.is_set() or first == "end"
    assert events.count("run.waiting") >= (1 if first == "park" else 0)
    assert family.did == ["work", "after"]


def hold(app: Any, until: asyncio.Event) -> None:
    """Let no child of this app's end before `until`."""
    driver = app._open_session.runtime.store.driver
    send = driver.command

    async def command(asked: Any) -> Any:
        if any(
            "output" in (row["u"].get("$set") or {}) for row in asked.get("updates", ()) if isinstance(row["u"], dict)
        ):
            await until.wait()
        return await send(asked)

    driver.command = command


async def test_a_parent_in_one_process_hears_of_its_child_in_another(make_app: Any, runs: Any) -> None:
    family = Family("apart")
    idle = Worker(lease="30s", poll_interval="1h")
    async with make_app(family.parent, worker=idle) as parents, make_app(family.child, worker=idle) as children:
        handle = await parents.start(family.parent)
        assert await handle.result("10s") == "grown"
        assert await children.handle(handle.id).result("5s") == "grown"
    assert family.did == ["work", "after"]


async def test_a_child_with_a_short_retention_is_kept_until_its_parent_has_heard(
    make_app: Any, runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    child: Workflow[Any, Any, Any] = Workflow("child", retention=0.001)
    wf: Workflow[Any, Any, Any] = Workflow("parent")

    @child.step
    async def grow(ctx: Context[Any]) -> str:
        return "grown"

    @wf.step
    async def ask(ctx: Context[Any]) -> str:
        return str(await ctx.start_child(child))

    telling = Closer.close

    async def die(self: Closer, run: dict[str, Any]) -> None:
        """The process ends right after the write that ended the child."""

    monkeypatch.setattr(Closer, "close", die)
    async with make_app(wf, child) as app:
        handle = await app.start(wf)
        found = await eventually(lambda: runs.find_one({"parent.run_id": handle.id, "status": "done"}))
        assert "expire_at" not in found
        monkeypatch.setattr(Closer, "close", telling)
        clock = MovableClock()
        clock.move(seconds=10)
        async with make_app(wf, child, worker=HEIR, clock=clock):
            assert await handle.result("10s") == "grown"
            await eventually(lambda: removed_or_expiring(runs, found["_id"]))


async def removed_or_expiring(runs: Any, run_id: str) -> bool:
    found = await runs.find_one({"_id": run_id})
    return found is None or "expire_at" in found


async def test_a_child_whose_parent_is_gone_ends_all_the_same(make_app: Any, runs: Any) -> None:
    gate = asyncio.Event()
    child: Workflow[Any, Any, Any] = Workflow("child")
    wf: Workflow[Any, Any, Any] = Workflow("parent")

    @child.step
    async def grow(ctx: Context[Any]) -> str:
        await gate.wait()
        return "grown"

    @wf.step
    async def ask(ctx: Context[Any]) -> str:
        return str(await ctx.start_child(child))

    async with make_app(wf, child) as app:
        handle = await app.start(wf)
        found = await eventually(lambda: runs.find_one({"parent.run_id": handle.id, "status": "running"}))
        await status_of(handle, "waiting")
        await runs.delete_one({"_id": handle.id})
        gate.set()
        assert await app.handle(found["_id"]).result("10s") == "grown"
        await eventually(lambda: owes_nothing(runs))
