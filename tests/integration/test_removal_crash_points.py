"""A process dies at every write by which it removes a run: nothing is left behind, and nothing else goes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamline import Context, Settings, Worker, Workflow
from streamline.errors import RunNotFound, StoreUnavailable
from tests.clocks import MovableClock
from tests.integration.harm import MOMENTS, Harm
from tests.waiting import PATIENCE, eventually

IDLE = Worker(lease="60s", poll_interval="1h")
COLLECTIONS = ("memo", "inbox", "log", "meta")


def flow() -> Workflow[Any, Any, Any]:
    """A workflow that fails, with or without a spilled memo, or with children that have one."""
    wf: Workflow[Any, Any, Any] = Workflow("flow")

    @wf.step(max_attempts=1)
    async def end(ctx: Context[Any]) -> Any:
        async def call(n: int) -> str:
            return "x" * 40_000

        for n in range(3 if ctx.input != "plain" else 0):
            await ctx.call(f"c{n}", call, n)
        if ctx.input == "family":
            await ctx.join({name: (wf, name) for name in ("plain", "spilled")}, policy="settled")
        raise ValueError(ctx.input)

    return wf


async def prepared(make_app: Any, database: Any, kind: str) -> str:
    """A run of this kind that has ended and owes nothing, beside another one that is to stay."""
    runs = database["streamline.runs"]
    async with make_app(flow()) as app:
        for run_id in ("stays", "goes"):
            handle = await app.start("flow", kind if run_id == "goes" else "spilled", run_id=run_id)
            await handle.wait(PATIENCE)
        await eventually(lambda: owes_nothing(runs))
    return "goes"


async def owes_nothing(runs: Any) -> bool:
    return not await runs.count_documents({"owes_at": {"$exists": True}})


async def left(database: Any) -> dict[str, int]:
    """How many documents there are of the run that was to go, and of the one that was to stay."""
    found = {}
    for name in ("runs", "memo"):
        documents = [each async for each in database[f"streamline.{name}"].find({})]
        found[f"{name} of goes"] = sum("goes" in str(each) for each in documents)
        found[name] = sum("stays" in str(each) for each in documents)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "spilled", "family"])
async def test_a_process_dies_at_every_write_of_a_removal(make_app: Any, database: Any, kind: str) -> None:
    at, writes = 0, 99
    while at <= writes:
        for moment in MOMENTS[: 2 if kind == "family" else 3] if at else ("before",):
            for name in ("runs", "memo"):
                await database[f"streamline.{name}"].delete_many({})
            run_id = await prepared(make_app, database, kind)
            sent = await dies(make_app, run_id, at, moment)
            writes = sent if not at else writes
            if at and moment != "lost":
                assert (await left(database))["runs of goes"] > 0 or moment == "applied"
                clock = MovableClock()
                clock.move(seconds=10)
                async with make_app(flow(), worker=False, clock=clock) as heir:
                    if moment == "before" and at == 1:
                        # Nobody knows that it was to go.
                        assert (await heir.get(run_id)).status == "failed"
                        await heir.delete(run_id, children=True)
                    await heir.tick()
            assert await left(database) == {"runs of goes": 0, "memo of goes": 0, "runs": 1, "memo": 2}, (at, moment)
        at += 1
    assert writes == {"plain": 1, "spilled": 3, "family": 7}[kind]


async def dies(make_app: Any, run_id: str, at: int, moment: str) -> int:
    """Remove a run, and die at a write on the way; return how many were sent."""
    patience = "10s" if moment == "lost" else "200ms"
    async with make_app(flow(), worker=False, settings=Settings(patience=patience)) as app:
        harm = Harm(app, at, moment, COLLECTIONS)
        removing = asyncio.ensure_future(app.delete(run_id, children=True))
        if at and moment != "lost":
            with pytest.raises(StoreUnavailable):
                await removing
        else:
            await removing
        return len(harm.writes)


async def test_a_run_that_is_being_removed_is_not_begun_anew(make_app: Any, database: Any) -> None:
    run_id = await prepared(make_app, database, "spilled")
    await dies(make_app, run_id, 2, "before")
    async with make_app(flow(), worker=False) as app:
        for again in (app.retry(run_id), app.rewind(run_id, "end"), app.pin_output(run_id, "end", 1)):
            with pytest.raises(RunNotFound):
                await again
        assert await app.delete(run_id) == 1
        with pytest.raises(RunNotFound):
            await app.get(run_id)


async def test_two_remove_the_same_family_at_once(make_app: Any, database: Any) -> None:
    run_id = await prepared(make_app, database, "family")
    async with make_app(flow(), worker=False) as app, make_app(flow(), worker=False) as other:
        gone = await asyncio.gather(
            app.delete(run_id, children=True), other.delete(run_id, children=True), return_exceptions=True
        )
    assert all(isinstance(each, int | RunNotFound) for each in gone)
    assert await left(database) == {"runs of goes": 0, "memo of goes": 0, "runs": 1, "memo": 2}


async def test_a_run_that_is_retried_meanwhile_stays(make_app: Any, database: Any) -> None:
    run_id = await prepared(make_app, database, "spilled")
    async with make_app(flow(), worker=False) as app:
        store = app._open_session.runtime.store
        send, retried = store.run, False

        async def run(statement: Any, *scope: Any) -> Any:
            nonlocal retried
            if statement.name in ("advance_run", "remove_run") and not retried:
                retried = True
                await app.retry(run_id)
            return await send(statement, *scope)

        store.run = run  # type: ignore[method-assign, assignment]
        with pytest.raises(Exception, match="cancel it first"):
            await app.delete(run_id)
    stored = await database["streamline.runs"].find_one({"_id": run_id})
    assert stored["status"] == "waiting"
    assert "removed_at" not in stored
    assert (await left(database))["memo of goes"] == 2


async def test_the_log_has_the_events_of_a_run_before_it_goes(make_app: Any, database: Any) -> None:
    async with make_app(flow(), worker=False) as app:
        await app.subscriber("audit").position()
        handle = await app.start("flow", "plain", run_id="goes")
        await handle.cancel()
        stored = await database["streamline.runs"].find_one({"_id": "goes"})
        assert "outbox_at" in stored
        assert await handle.delete() == 1
        told = [each["event"]["type"] async for each in database["streamline.log"].find({"run_id": "goes"})]
    assert told == ["run.created", "run.cancelled"]


async def test_the_sweep_brings_events_into_the_log_before_it_removes_what_is_marked(
    make_app: Any, database: Any
) -> None:
    run_id = await prepared(make_app, database, "spilled")
    await dies(make_app, run_id, 2, "before")
    runs, clock = database["streamline.runs"], MovableClock()
    async with make_app(flow(), worker=False, clock=clock) as heir:
        await heir.subscriber("audit").position()
        begun = {"$set": {"outbox_at": clock.now(), "events.$[].at": clock.now()}}
        assert (await runs.update_one({"_id": run_id, "removed_at": {"$exists": True}}, begun)).matched_count == 1
        clock.move(seconds=10)
        await heir.tick()
        assert (await left(database))["runs of goes"] == 0
        told = [each["event"]["type"] async for each in database["streamline.log"].find({"run_id": run_id})]
    assert told[-1] == "run.failed"
