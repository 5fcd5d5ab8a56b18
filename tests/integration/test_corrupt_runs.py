"""Runs that somebody has damaged: named, failed where possible, and no obstacle to the others."""

from __future__ import annotations

from typing import Any

import pytest

from streamline import Context, Worker, Workflow
from streamline.errors import CorruptRun
from tests.clocks import LONG_AGO
from tests.waiting import eventually


def echoing() -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow("echo", input=int)

    @wf.step
    async def first(ctx: Context[int]) -> int:
        return ctx.input

    @wf.step
    async def second(ctx: Context[int]) -> int:
        return ctx.output(first)

    return wf


SET: list[dict[str, Any]] = [
    {"steps": []},
    {"steps": "none"},
    {"steps": {"0": {"id": "first"}}},
    {"steps": [5]},
    {"steps": [{"status": "pending"}]},
    {"steps": [{"id": "first"}]},
    {"steps": [{"id": "elsewhere", "status": "pending"}]},
    {"steps": [{"id": 5, "status": "pending"}]},
    {"steps.0.status": "weird"},
    {"steps.0.memo": 5},
    {"steps.0.failures": "many"},
    {"cursor": -1},
    {"cursor": 2},
    {"cursor": 10**12},
    {"cursor": "0"},
    {"cursor": True},
    {"cursor": 0.5},
    {"rev": "1"},
    {"rev": None},
    {"event_seq": "1"},
    {"event_seq": None},
    {"recovery_count": "0"},
    {"events": None},
    {"events": {}},
    {"events": [5]},
    {"input": "five"},
    {"size": "large"},
]
UNSET = [
    "steps",
    "cursor",
    "rev",
    "event_seq",
    "recovery_count",
    "events",
    "input",
    "created_at",
    "version",
    "workflow",
]
DAMAGE = [{"$set": change} for change in SET] + [{"$unset": {name: ""}} for name in UNSET]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: repr(damage).replace("'", "")[:50])
async def test_a_damaged_run_is_failed_and_the_others_go_on(make_app: Any, runs: Any, damage: dict[str, Any]) -> None:
    wf = echoing()
    async with make_app(wf, worker=False) as starting:
        handles = await starting.start_many(wf, list(range(5)))
    await runs.update_one({"_id": handles[0].id}, damage)
    async with make_app(wf, worker=Worker(lease="800ms", poll_interval="100ms", max_recoveries=1)) as app:
        for i, handle in enumerate(handles[1:], start=1):
            assert await app.handle(handle.id).result("10s") == i

        async def settled() -> Any:
            found = await runs.find_one({"_id": handles[0].id})
            return found if found["status"] not in ("draft", "running", "waiting") else None

        stored = await eventually(settled, within=10)
        assert "lease" not in stored
        if stored["status"] == "failed":
            assert isinstance(stored["error"]["message"], str)
            assert stored["ended_at"] is not None
        assert await app.run(wf, 7, timeout="20s") == 7


@pytest.mark.parametrize("route", ["echo@9.9.9", "nobody@1.0.0", None, 5], ids=repr)
async def test_a_run_whose_route_nobody_serves_is_left_alone(make_app: Any, runs: Any, route: Any) -> None:
    wf = echoing()
    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf, 1)
        await runs.update_one({"_id": handle.id}, {"$set": {"route": route}})
        before = await runs.find_one({"_id": handle.id})
        assert await app.tick() == 0
        assert await runs.find_one({"_id": handle.id}) == before


@pytest.mark.parametrize(
    ("workflow", "version"), [("nobody", "1.0.0"), ("echo", "9.9.9"), (None, "1.0.0"), ("echo", 5)], ids=repr
)
async def test_a_run_whose_route_lies_is_no_obstacle(make_app: Any, runs: Any, workflow: Any, version: Any) -> None:
    wf = echoing()
    async with make_app(wf, worker=False) as starting:
        handles = await starting.start_many(wf, list(range(5)))
    await runs.update_one({"_id": handles[2].id}, {"$set": {"workflow": workflow, "version": version}})
    async with make_app(wf, worker=Worker(lease="60s", poll_interval="100ms")) as app:
        for i in (0, 1, 3, 4):
            assert await app.handle(handles[i].id).result("10s") == i


UNREADABLE: list[dict[str, Any]] = [
    {"$set": {"status": "weird"}},
    {"$unset": {"status": ""}},
    {"$set": {"steps": []}},
    {"$set": {"cursor": 7}},
    {"$set": {"steps": [{"id": "first", "status": "done", "error": 5}]}},
    {"$set": {"error": "text"}},
    {"$set": {"steps.0": {"status": "done"}}},
    {"$set": {"steps.0.progress": 5}},
    {"$set": {"input": "five"}},
    {"$set": {"steps.0.output": "five"}},
    {"$set": {"output": "five"}},
    {"$set": {"tags": 5}},
    {"$set": {"metadata": 5}},
    {"$set": {"lease": 5}},
    *[{"$unset": {name: ""}} for name in ("workflow", "version", "priority", "created_at", "attempt", "rev", "input")],
]


async def test_reading_a_damaged_run_names_it_as_corrupt(make_app: Any, runs: Any) -> None:
    wf = echoing()
    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf, 1)
        await app.tick()
        sound = await runs.find_one({"_id": handle.id})
        for damage in UNREADABLE:
            await runs.replace_one({"_id": handle.id}, sound)
            await runs.update_one({"_id": handle.id}, damage)
            with pytest.raises(CorruptRun) as caught:
                await handle.get()
            assert caught.value.code == "run.corrupt", damage
            assert handle.id in str(caught.value), damage


async def test_a_page_names_the_damaged_run_on_it(make_app: Any, runs: Any) -> None:
    wf = echoing()
    async with make_app(wf, worker=False) as app:
        handles = await app.start_many(wf, list(range(3)))
        await runs.update_one({"_id": handles[1].id}, {"$unset": {"steps": ""}})
        with pytest.raises(CorruptRun) as caught:
            await app.runs()
        assert handles[1].id in str(caught.value)
        assert await app.count_runs() == {"draft": 3}


@pytest.mark.parametrize(
    "damage",
    [{"$unset": {"steps": ""}}, {"$set": {"cursor": 9}}, {"$set": {"status": "weird"}}, {"$unset": {"event_seq": ""}}],
    ids=repr,
)
async def test_a_damaged_run_is_left_untouched_by_operators(make_app: Any, runs: Any, damage: dict[str, Any]) -> None:
    wf = echoing()
    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf, 1)
        await runs.update_one({"_id": handle.id}, damage)
        before = await runs.find_one({"_id": handle.id})
        for verb in (handle.cancel, handle.pause, handle.unpause, handle.retry):
            with pytest.raises(CorruptRun):
                await verb()
        assert await runs.find_one({"_id": handle.id}) == before


async def test_a_run_whose_lease_was_damaged_is_taken_over_in_the_end(make_app: Any, runs: Any) -> None:
    wf = echoing()
    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf, 1)
        lease = {"worker": 5, "token": {"$gt": ""}, "at": LONG_AGO, "until": LONG_AGO}
        await runs.update_one(
            {"_id": handle.id}, {"$set": {"status": "running", "lease": lease}, "$unset": {"due_at": ""}}
        )
        assert await app.tick() == 1
        assert await handle.status() == "done"
