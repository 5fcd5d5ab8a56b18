"""The event log: everything that happens to runs, once, in dense positions, whoever relays and whoever dies."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streamline import Context, Settings, Streamline, Workflow
from streamline.engine.log import catching_up
from streamline.errors import InvalidKey, InvalidName, InvalidQuery
from streamline.store import statements
from tests.waiting import eventually

FAR = datetime(2100, 1, 1, tzinfo=UTC)


def telling(name: str = "teller", **options: Any) -> Workflow[Any, Any, Any]:
    """A workflow whose step says as many events as its input tells."""
    wf: Workflow[Any, Any, Any] = Workflow(name, input=int, **options)

    @wf.step
    async def tell(ctx: Context[int]) -> int:
        for i in range(ctx.input):
            await ctx.emit("said", i)
        return ctx.input

    return wf


@pytest.fixture
def log(database: Any) -> Any:
    """The collection of the log."""
    return database["streamline.log"]


async def switch_on(app: Streamline) -> None:
    """Let the app want the log, as a subscriber does."""
    await app._open_session.runtime.outbox.switch_on()


async def logged(log: Any, count: int) -> list[dict[str, Any]]:
    """The entries of the log, once there are so many."""

    async def enough() -> list[dict[str, Any]] | None:
        found = [entry async for entry in log.find().sort("_id")]
        return found if len(found) >= count else None

    return await eventually(enough)


def is_dense(entries: list[dict[str, Any]]) -> bool:
    first = entries[0]["_id"]
    return [entry["_id"] for entry in entries] == list(range(first, first + len(entries)))


def is_complete(entries: list[dict[str, Any]], run_id: str, count: int) -> bool:
    return [entry["seq"] for entry in entries if entry["run_id"] == run_id] == list(range(1, count + 1))


async def hold_relays_up(database: Any) -> None:
    """Let every process believe that another one relays."""
    lease = {"worker": "nobody", "token": "none", "until": FAR}
    await database["streamline.meta"].update_one({"_id": "relay"}, {"$set": {"lease": lease}}, upsert=True)


async def let_relays_go_on(database: Any) -> None:
    await database["streamline.meta"].update_one({"_id": "relay"}, {"$unset": {"lease": ""}})


async def test_where_nobody_wants_the_log_nothing_is_written_for_it(make_app: Any, runs: Any, log: Any) -> None:
    wf = telling()
    async with make_app(wf) as app:
        await app.run(wf, 3, timeout="20s")
        run = await runs.find_one({})
    assert not run.keys() & {"outbox_at", "relayed"}
    assert await log.count_documents({}) == 0


async def test_every_event_is_logged_once_and_in_order(
    make_app: Any, runs: Any, log: Any, tenant_id: str | None
) -> None:
    wf = telling()
    async with make_app(wf) as app:
        await switch_on(app)
        handles = [await app.start(wf, 5) for _ in range(5)]
        handles += await app.start_many(wf, [5] * 5)
        for handle in handles:
            await handle.result("20s")
        entries = await logged(log, 10 * 9)
        told = {handle.id: [event async for event in handle.events()] for handle in handles}

        async def is_unmarked() -> bool:
            return await runs.count_documents({"outbox_at": {"$exists": True}}) == 0

        await eventually(is_unmarked)
    assert is_dense(entries)
    assert entries[0]["_id"] == 1
    for run_id, events in told.items():
        mine = [entry for entry in entries if entry["run_id"] == run_id]
        assert [(entry["seq"], entry["event"]["type"], entry["event"]["at"]) for entry in mine] == [
            (event.seq, event.type, event.at) for event in events
        ]
        assert {(entry["workflow"], entry["version"], entry["tenant_id"]) for entry in mine} == {
            ("teller", "1.0.0", tenant_id)
        }


async def test_operators_children_and_forks_are_logged_like_any(make_app: Any, log: Any) -> None:
    wf, child = telling(), telling("child")
    parent: Workflow[Any, Any, Any] = Workflow("parent")

    @parent.step
    async def ask(ctx: Context[Any]) -> Any:
        return await ctx.start_child(child, 1)

    async with make_app(wf, parent, child) as app:
        await switch_on(app)
        await app.run(parent, timeout="20s")
        handle = await app.start(wf, 1, delay="1h")
        await handle.pause(reason="wait")
        await handle.unpause()
        await handle.cancel()
        done = await app.start(wf, 1)
        await done.result("20s")
        fork = await app.fork(done.id, "tell")
        await fork.result("20s")

        async def complete() -> bool:
            entries = [entry async for entry in log.find().sort("_id")]
            documents = await app.runs()
            counts = [len([e async for e in app.handle(run.id).events()]) for run in documents.items]
            return all(
                is_complete(entries, run.id, count) for run, count in zip(documents.items, counts, strict=True)
            ) and is_dense(entries)

        await eventually(complete)


async def test_a_run_says_more_than_it_keeps_and_all_of_it_is_logged(make_app: Any, runs: Any, log: Any) -> None:
    wf, count = telling(), 450
    async with make_app(wf) as app:
        await switch_on(app)
        handle = await app.start(wf, count)
        await handle.result("30s")
        entries = await logged(log, count + 4)
        seen = [event.seq async for event in handle.events()]
        late = [event.seq async for event in handle.events(after=200)]
        kept = (await runs.find_one({"_id": handle.id}))["events"]
    assert is_complete(entries, handle.id, count + 4)
    assert is_dense(entries)
    assert seen == list(range(1, count + 5))
    assert late == list(range(201, count + 5))
    assert len(kept) == 100


async def test_a_run_relays_itself_where_nobody_else_does(make_app: Any, runs: Any, log: Any, database: Any) -> None:
    wf, count = telling(), 300
    async with make_app(wf) as app:
        await switch_on(app)
        await hold_relays_up(database)
        handle = await app.start(wf, count)
        await handle.result("30s")
        assert await log.count_documents({}) >= count - 100
        kept = (await runs.find_one({"_id": handle.id}))["events"]
        assert len(kept) <= 101
        assert [event.seq async for event in handle.events()] == list(range(1, count + 5))
        await let_relays_go_on(database)
        entries = await logged(log, count + 4)
    assert is_complete(entries, handle.id, count + 4)


async def test_a_run_is_kept_until_its_events_are_logged(make_app: Any, runs: Any, log: Any, database: Any) -> None:
    wf = telling(retention={"done": "1ms"})
    async with make_app(wf) as app:
        await switch_on(app)
        await hold_relays_up(database)
        handle = await app.start(wf, 1)
        await handle.result("20s")
        run = await runs.find_one({"_id": handle.id})
        assert "outbox_at" in run
        assert "expire_at" not in run
        await let_relays_go_on(database)
        assert is_complete(await logged(log, 5), handle.id, 5)

        async def is_to_go() -> bool:
            stored = await runs.find_one({"_id": handle.id})
            return stored is None or ("expire_at" in stored and "outbox_at" not in stored)

        await eventually(is_to_go)


async def test_a_run_that_goes_on_before_the_relay_saw_its_end_is_not_removed(
    make_app: Any, runs: Any, log: Any, database: Any
) -> None:
    wf = telling(retention={"done": "1m"})
    async with make_app(wf) as app:
        await switch_on(app)
        await hold_relays_up(database)
        handle = await app.start(wf, 1)
        await handle.result("20s")
        ended = (await app._open_session.runtime.store.run(statements.find_unlogged(handle.id)))[0]
        async with make_app(worker=False) as operator:
            await app.pause_workflow("teller")
            await operator.rewind(handle.id, "tell")
            # The relay had read the run as it was before.
            await app._open_session.runtime.outbox.relay([ended])
            run = await runs.find_one({"_id": handle.id})
            assert run["status"] == "waiting"
            assert "expire_at" not in run
            assert "outbox_at" in run
            assert run["relayed"] == 5
            await let_relays_go_on(database)
            await app.unpause_workflow("teller")
        entries = await logged(log, 9)
    assert is_complete(entries, handle.id, len(entries))


async def test_what_is_relayed_twice_is_logged_once(make_app: Any, runs: Any, log: Any, database: Any) -> None:
    """The relay may die after any of its commands, and another may have read the same runs."""
    wf = telling()
    async with make_app(wf) as app, make_app(worker=False) as other:
        await switch_on(app)
        await hold_relays_up(database)
        handles = [await app.start(wf, n) for n in range(1, 8)]
        for handle in handles:
            await handle.result("20s")
        await switch_on(other)
        ours, theirs = (each._open_session.runtime for each in (app, other))
        found = await ours.store.run(statements.find_marked(100))
        assert len(found) == 7
        # Died in the middle of the first run: only part of it is there, and nothing is noted.
        await ours.outbox.log.append(
            [
                {"run_id": handles[3].id, "seq": seq, "workflow": "teller", "version": "1.0.0", "tenant_id": None,
                 "born": found[3]["born"], "event": found[3]["events"][seq - 1]}
                for seq in (1, 2)
            ]
        )  # fmt: skip
        await asyncio.gather(*(each.outbox.relay(found[i:] + found[:i]) for i in range(7) for each in (ours, theirs)))
        entries = await logged(log, 1)
    assert is_dense(entries)
    assert len(entries) == sum(n + 4 for n in range(1, 8))
    for n, handle in enumerate(handles, 1):
        assert is_complete(entries, handle.id, n + 4)
    assert await runs.count_documents({"outbox_at": {"$exists": True}}) == 0


async def test_what_a_run_says_while_it_is_relayed_keeps_it_marked(make_app: Any, runs: Any, log: Any) -> None:
    wf = telling()
    async with make_app(wf, worker=False) as app:
        await switch_on(app)
        handle = await app.start(wf, 1)
        outbox, store = app._open_session.runtime.outbox, app._open_session.runtime.store
        found = await store.run(statements.find_marked(1))
        await handle.pause()
        await outbox.relay(found)
        run = await runs.find_one({"_id": handle.id})
        assert (run["relayed"], "outbox_at" in run) == (1, True)
        await outbox.relay(await store.run(statements.find_marked(1)))
        run = await runs.find_one({"_id": handle.id})
        assert (run["relayed"], "outbox_at" in run) == (2, False)
    assert [entry["seq"] async for entry in log.find().sort("_id")] == [1, 2]


async def test_a_damaged_run_does_not_hold_up_the_others(make_app: Any, runs: Any, log: Any, database: Any) -> None:
    wf = telling()
    async with make_app(wf) as app:
        await switch_on(app)
        await hold_relays_up(database)
        for damage in ({"events": "x"}, {"events": [1, {"seq": "a"}, {"seq": 9}]}, {"event_seq": "x"}, {"rev": None}):
            handle = await app.start(wf, 1)
            await handle.result("20s")
            await runs.update_one({"_id": handle.id}, {"$set": damage})
        sound = await app.start(wf, 1)
        await sound.result("20s")
        await let_relays_go_on(database)

        async def is_sound() -> bool:
            return is_complete([entry async for entry in log.find().sort("_id")], sound.id, 5)

        await eventually(is_sound)


async def test_what_was_written_by_processes_that_did_not_know_is_caught_up_with(
    make_app: Any, log: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(catching_up, "_EVERYBODY_KNOWS", timedelta(seconds=3))
    wf = telling()

    async def learn_nothing() -> None: ...

    async with make_app(wf) as unaware, make_app() as app:
        monkeypatch.setattr(unaware._open_session.runtime.facts, "load", learn_nothing)
        before = await unaware.start(wf, 1)
        await before.result("20s")
        await switch_on(app)
        after = await unaware.start(wf, 1)
        await after.result("20s")
        assert not unaware._open_session.runtime.outbox.is_on
        entries = await logged(log, 5)
    assert is_complete(entries, after.id, 5)
    assert not [entry for entry in entries if entry["run_id"] == before.id], "the log begins when it is begun"


async def test_of_several_who_begin_the_log_the_first_says_since_when(make_app: Any, database: Any) -> None:
    async with make_app() as one, make_app() as two:
        await asyncio.gather(switch_on(one), switch_on(two))
        facts = await database["streamline.meta"].find_one({"_id": "facts"})
        relay = await database["streamline.meta"].find_one({"_id": "relay"})
    assert facts["log"]["since"] == relay["since"]


async def test_the_log_forgets_what_is_old_but_not_its_last_position(make_app: Any, log: Any) -> None:
    wf = telling()
    async with make_app(wf) as app:
        await switch_on(app)
        await app.run(wf, 1, timeout="20s")
        entries = await logged(log, 5)
        the_log = app._open_session.runtime.outbox.log
        await the_log.purge(entries[0]["logged_at"])
        assert await log.count_documents({}) == 5
        await the_log.purge(FAR)
        assert [entry["_id"] async for entry in log.find()] == [5]
    async with make_app(wf) as app:
        await app.run(wf, 1, timeout="20s")
        assert [entry["_id"] for entry in await logged(log, 6)] == [5, 6, 7, 8, 9, 10]


async def test_a_process_that_relays_hands_that_over_when_it_closes(make_app: Any, log: Any) -> None:
    wf = telling()
    async with make_app() as second:
        async with make_app(wf) as first:
            await switch_on(first)
            await first.run(wf, 1, timeout="20s")
            await logged(log, 5)
        handle = await second.start(wf, 1)
        await handle.cancel()
        assert is_complete(await logged(log, 7), handle.id, 2)


async def test_the_relay_is_not_in_the_way_of_transactions(make_app: Any, log: Any, database: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("payer")
    entered: list[str] = []

    @wf.step
    async def before(ctx: Context[Any]) -> None: ...

    @wf.step(transactional=True)
    async def pay(ctx: Context[Any]) -> None:
        entered.append(ctx.run_id)
        await database["payments"].insert_one({"run_id": ctx.run_id}, session=ctx.session)
        await asyncio.sleep(0.1)

    await database.create_collection("payments")
    async with make_app(wf) as app:
        await switch_on(app)
        handles = [await app.start(wf) for _ in range(5)]
        for handle in handles:
            await handle.result("20s")
        entries = await logged(log, 5 * 6)
    assert sorted(entered) == sorted(handle.id for handle in handles)
    assert all(is_complete(entries, handle.id, 6) for handle in handles)


async def test_a_tick_relays(make_app: Any, log: Any) -> None:
    wf = telling()
    async with make_app(wf, worker=False) as app:
        await switch_on(app)
        handle = await app.start(wf, 1)
        assert await log.count_documents({}) == 0
        assert await app.tick() == 1
        assert is_complete(await logged(log, 5), handle.id, 5)


async def observed(events: Any, count: int) -> list[Any]:
    seen = []
    async for event in events:
        seen.append(event)
        if len(seen) == count:
            break
    return seen


async def test_observers_follow_live_and_may_join_late(make_app: Any) -> None:
    wf, other = telling(), telling("other")
    async with make_app(wf, other) as app, make_app(worker=False) as elsewhere:
        early = asyncio.ensure_future(observed(elsewhere.events("run.*", workflow=wf), 4))
        both = asyncio.ensure_future(observed(app.events(["run.done", "said"]), 3))
        await eventually(lambda: elsewhere._open_session.runtime.outbox.is_on)
        await asyncio.sleep(0.2)  # they take the end of the log as it is when they ask first
        first = await app.start(wf, 1)
        await first.result("20s")
        await app.run(other, 0, timeout="20s")
        second = await app.start(wf, 0)
        await second.result("20s")
        events = await asyncio.wait_for(early, 20)
        assert [(event.run_id, event.type, event.workflow) for event in events] == [
            (run.id, kind, "teller") for run in (first, second) for kind in ("run.created", "run.done")
        ]
        assert [event.type for event in await asyncio.wait_for(both, 20)] == ["said", "run.done", "run.done"]
        late = await observed(elsewhere.events(after=0), 13)
        assert [event.position for event in late] == list(range(1, 14))
        behind = await observed(app.events(after=late[4].position), 8)
        assert behind == late[5:]
        mine = await observed(app.events(run_id=second.id, after=0), 4)
        assert [event.seq for event in mine] == [1, 2, 3, 4]
        assert {event.run_id for event in mine} == {second.id}


async def test_an_observer_ends_with_the_app(make_app: Any) -> None:
    async with make_app() as app:
        watching = asyncio.ensure_future(observed(app.events(), 1))
        await eventually(lambda: app._open_session.runtime.outbox.is_on)
    assert await asyncio.wait_for(watching, 5) == []


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"on": ""}, InvalidKey),
        ({"on": []}, InvalidKey),
        ({"on": [5]}, InvalidKey),
        ({"on": None}, InvalidKey),
        ({"workflow": "a b"}, InvalidName),
        ({"workflow": 5}, InvalidName),
        ({"run_id": 5}, InvalidKey),
        ({"after": -1}, InvalidQuery),
        ({"after": True}, InvalidQuery),
        ({"after": "1"}, InvalidQuery),
    ],
    ids=repr,
)
async def test_what_makes_no_sense_is_refused(make_app: Any, arguments: Any, error: type[Exception]) -> None:
    async with make_app(worker=False) as app:
        with pytest.raises(error):
            app.events(**arguments)


async def test_a_log_that_forgets_at_once_is_refused() -> None:
    with pytest.raises(Exception, match="log_retention: at least 60 s"):
        Settings(log_retention="59s")
