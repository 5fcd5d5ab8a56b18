"""``cancel_on``: stored in the run, so that an event cancels it whoever drives it, and wherever it is sent from."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from pydantic import BaseModel

from streamline import CancelOn, Context, Debounce, Workflow
from streamline.errors import InvalidKey, InvalidName, InvalidPolicy
from tests.clocks import MovableClock
from tests.waiting import eventually, status_of


class User(BaseModel):
    user_id: str | None = None
    region: str = "eu"


def guarded(*rules: Any, name: str = "guarded", version: str = "1.0.0", **options: Any) -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow(
        name, version=version, input=User, cancel_on=rules or (CancelOn("user.deleted", match="user_id"),), **options
    )

    @wf.step
    async def first(ctx: Context[User]) -> None:
        await ctx.wait("begin")

    @wf.step
    async def second(ctx: Context[User]) -> None:
        await ctx.sleep("1h")

    return wf


async def test_an_event_cancels_the_runs_that_it_matches(make_app: Any) -> None:
    wf = guarded()
    async with make_app(wf) as app:
        ann, bob = [await app.start(wf, User(user_id=name)) for name in ("ann", "bob")]
        await status_of(ann, "waiting")
        await status_of(bob, "waiting")
        assert await app.send_event("user.deleted", {"user_id": "ann"}) == 1
        run = await ann.get()
        assert (run.status, run.cancel["reason"]) == ("cancelled", "event user.deleted")
        assert (await bob.get()).status == "waiting"
        assert await app.send_event("user.deleted", {"user_id": "ann"}) == 0


async def test_a_handler_at_work_is_ended(make_app: Any, runs: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("busy", cancel_on=[CancelOn("stop")])
    ended = list[str]()

    @wf.step
    async def work(ctx: Context[Any]) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.append("ended")

    async with make_app(wf) as app, make_app(worker=False) as other:
        handle = await app.start(wf)
        await eventually(lambda: runs.find_one({"status": "running"}))
        assert await other.send_event("stop") == 1
        await status_of(handle, "cancelled")
        await eventually(lambda: ended)
    assert (await runs.find_one({}))["error"]["code"] == "run.cancelled"


@pytest.mark.parametrize("at", ["born", "parked", "resumed"])
async def test_it_lasts_over_restarts_and_comes_from_processes_that_do_not_know_the_workflow(
    make_app: Any, at: str
) -> None:
    wf = guarded()
    async with make_app(wf, worker=at != "born") as app:
        handle = await app.start(wf, User(user_id="ann"))
        if at != "born":
            await status_of(handle, "waiting")
        if at == "resumed":
            await handle.resume()
            await eventually(lambda: _stands_at(handle, "second"))
    async with make_app(worker=False) as stranger:
        assert await stranger.send_event("user.deleted", {"user_id": "bob"}) == 0
        assert await stranger.send_event("user.deleted", {"user_id": "ann"}) == 1
        assert await stranger.handle(handle.id).status() == "cancelled"


async def _stands_at(handle: Any, step: str) -> bool:
    run = await handle.get()
    return bool(run.status == "waiting" and run.step(step).status == "waiting")


@pytest.mark.parametrize(
    ("match", "payload", "cancelled"),
    [
        (None, {"x": 1}, True),
        ("user_id", {"user_id": "ann"}, True),
        ("user_id", {"user_id": "bob"}, False),
        ("user_id", None, False),
        ({"user.id": lambda user: user.user_id}, {"user": {"id": "ann"}}, True),
        ({"user.id": lambda user: user.user_id}, {"user.id": "ann"}, False),
        ({"kind": "hard", "user": lambda user: user.user_id}, {"user": "ann"}, False),
        ({"kind": "hard", "user": lambda user: user.user_id}, {"user": "ann", "kind": "hard"}, True),
        (lambda user: {"user_id": user.user_id}, {"user_id": "ann"}, True),
        (lambda user: None, {"user_id": "ann"}, False),
        ("absent", {"user_id": "ann"}, False),
        ({"$where": "sleep(9)"}, {"$where": "sleep(9)"}, True),
    ],
    ids=lambda value: "function" if callable(value) else re.sub(" at 0x[0-9a-f]+", "", repr(value)),
)
async def test_what_an_event_has_to_match(make_app: Any, match: Any, payload: Any, cancelled: bool) -> None:
    wf = guarded(CancelOn("user.deleted", match=match))
    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf, User(user_id="ann"))
        assert await app.send_event("user.deleted", payload) == int(cancelled)
        assert (await handle.status() == "cancelled") is cancelled


async def test_a_run_without_the_value_is_not_cancelled_by_events_without_it(make_app: Any) -> None:
    wf = guarded()
    async with make_app(wf, worker=False) as app:
        await app.start(wf, User())
        assert await app.send_event("user.deleted", {}) == 0
        assert await app.send_event("user.deleted", {"user_id": None}) == 0


async def test_an_event_for_one_run_cancels_that_one_alone(make_app: Any) -> None:
    wf = guarded(CancelOn("stop"))
    async with make_app(wf, worker=False) as app:
        one, two = [await app.start(wf, User(user_id=name)) for name in "ab"]
        assert await app.send_event("stop", run_id=one.id) == 1
        assert [await one.status(), await two.status()] == ["cancelled", "draft"]


async def test_a_filter_narrows_what_is_cancelled(make_app: Any) -> None:
    wf = guarded(CancelOn("stop"))
    async with make_app(wf, worker=False) as app:
        one, two = [await app.start(wf, User(user_id="x", region=region)) for region in ("eu", "us")]
        assert await app.send_event("stop", match={"input.region": "us"}) == 1
        assert [await one.status(), await two.status()] == ["draft", "cancelled"]


async def test_a_run_that_begins_after_the_event_is_not_cancelled_by_it(make_app: Any) -> None:
    wf = guarded(CancelOn("stop"))
    async with make_app(wf, worker=False) as app:
        assert await app.send_event("stop") == 0
        handle = await app.start(wf, User())
        await app.tick()
        assert await app.send_event("stop", match={"input.region": "none"}) == 0
        assert await handle.status() == "waiting"


async def test_a_cancelled_run_is_compensated_where_its_workflow_says_so(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("saga", cancel_on=[CancelOn("stop")], compensate_on={"cancelled"})
    undone = list[Any]()

    @wf.step
    async def book(ctx: Context[Any]) -> int:
        return 5

    @book.compensate
    async def unbook(ctx: Context[Any], output: int) -> None:
        undone.append(output)
        await ctx.wait_for("stop")  # what is being undone cannot be cancelled, but it can wait

    @wf.step
    async def rest(ctx: Context[Any]) -> None:
        await ctx.sleep("1h")

    async with make_app(wf) as app:
        handle = await app.start(wf)
        await eventually(lambda: _stands_at(handle, "rest"))
        assert await app.send_event("stop") == 1
        await eventually(lambda: undone)
        await eventually(lambda: _count(app, {"listens": "stop", "lease": None}))
        assert await app.send_event("stop") == 1
        assert (await handle.wait("10s")).status == "compensated"
    assert undone == [5, 5]


async def _count(app: Any, query: dict[str, Any]) -> int:
    return int(await app.database["streamline.runs"].count_documents(query))


async def test_children_forks_retries_and_rewinds_are_cancelled_too(make_app: Any, runs: Any) -> None:
    wf = guarded(CancelOn("stop"))
    parent: Workflow[Any, Any, Any] = Workflow("parent")

    @parent.step
    async def spawn(ctx: Context[Any]) -> None:
        await ctx.start_child(wf, {"user_id": "kid"}, wait=False, on_parent_close="abandon")

    async with make_app(wf, parent, worker=False) as app:
        await app.start(parent)
        await app.tick()
        original = await app.start(wf, User(user_id="x"))
        forked = await app.fork(original.id, "first")
        assert await app.send_event("stop") == 3
        assert await runs.count_documents({"status": "cancelled"}) == 3
        assert await runs.count_documents({"listens": {"$exists": True}}) == 0
        await original.retry()
        await app.rewind(forked.id, "first")
        assert await app.send_event("stop") == 2


async def test_a_debounced_draft_is_cancelled_by_what_its_last_input_says(make_app: Any) -> None:
    wf = guarded(name="draft", debounce=Debounce("1h", key=lambda user: "one"))
    async with make_app(wf, worker=False) as app:
        draft = await app.start(wf, User(user_id="ann"))
        assert (await app.start(wf, User(user_id="bob"))).id == draft.id
        assert await app.send_event("user.deleted", {"user_id": "ann"}) == 0
        assert (await app.start(wf, User())).id == draft.id
        assert await app.send_event("user.deleted", {"user_id": "bob"}) == 0
        assert (await app.start(wf, User(user_id="eve"))).id == draft.id
        assert await app.send_event("user.deleted", {"user_id": "eve"}) == 1
        assert await draft.status() == "cancelled"


async def test_an_event_that_a_run_emits_cancels_others(make_app: Any) -> None:
    wf = guarded(CancelOn("stop"))
    sender: Workflow[Any, Any, Any] = Workflow("sender")

    @sender.step
    async def say(ctx: Context[Any]) -> None:
        await ctx.emit("stop")

    async with make_app(wf, sender) as app:
        handle = await app.start(wf, User())
        await status_of(handle, "waiting")
        await app.run(sender, timeout="10s")
        await status_of(handle, "cancelled")


@pytest.mark.parametrize(
    ("make", "error", "field"),
    [
        (lambda: CancelOn(""), InvalidName, "event"),
        (lambda: CancelOn("x", match=5), InvalidPolicy, "match"),
        (lambda: CancelOn("x", match=""), InvalidPolicy, "match"),
        (lambda: CancelOn("x", match={5: 1}), InvalidPolicy, "match"),
        (lambda: CancelOn("x", match={"a": object()}), InvalidPolicy, "match"),
        (lambda: Workflow("w", cancel_on=[5]), InvalidPolicy, "cancel_on"),
        (lambda: Workflow("w", cancel_on=CancelOn("x")), InvalidPolicy, "cancel_on"),
    ],
)
def test_what_cannot_cancel_is_refused(make: Any, error: Any, field: str) -> None:
    with pytest.raises(error) as refused:
        make()
    assert refused.value.field == field


@pytest.mark.parametrize(
    "match", [lambda user: 1 / 0, lambda user: 5, {"a": lambda user: 1 / 0}, lambda user: {"a": object()}]
)
async def test_a_function_that_fails_refuses_the_start(make_app: Any, runs: Any, match: Any) -> None:
    wf = guarded(CancelOn("stop", match=match))
    async with make_app(wf) as app:
        for start in (lambda: app.start(wf, User()), lambda: app.start_many(wf, [User()])):
            with pytest.raises(InvalidKey) as refused:
                await start()
            assert refused.value.field == "cancel_on"
        assert await runs.count_documents({}) == 0


@pytest.mark.parametrize("is_before", [True, False])
async def test_an_event_left_undelivered_cancels_only_runs_that_were_there(
    make_app: Any, database: Any, is_before: bool
) -> None:
    wf, clock = guarded(CancelOn("stop")), MovableClock()
    async with make_app(wf, worker=False, clock=clock) as app:
        before = [await app.start(wf, User())] if is_before else []
        await app.send_event("stop", match={"input.region": "nowhere"})
        await database["streamline.inbox"].update_one({}, {"$unset": {"match": ""}, "$set": {"owed_at": clock.now()}})
        clock.move(seconds=1)
        after = await app.start(wf, User())
        clock.move(seconds=60)
        await app.tick()
        assert [await run.status() for run in (*before, after)] == ["cancelled"] * is_before + ["waiting"]
        assert await database["streamline.inbox"].count_documents({"owed_at": {"$exists": True}}) == 0
