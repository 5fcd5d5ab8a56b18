"""``triggers``: events and ends of runs start runs of other workflows, each once, wherever they come from."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from streamline import Concurrency, Context, NonRetriableError, OnCompletion, OnEvent, Run, Settings, Workflow
from streamline.errors import InvalidName, InvalidPolicy
from tests.clocks import MovableClock
from tests.waiting import eventually


def simple(name: str, *triggers: Any, version: str = "1.0.0", **options: Any) -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow(name, version=version, triggers=triggers, **options)

    @wf.step
    async def only(ctx: Context[Any]) -> Any:
        if ctx.input == "fail":
            raise NonRetriableError("asked to")
        return ctx.input

    return wf


async def ended(runs: Any, workflow: str, count: int = 1) -> list[dict[str, Any]]:
    async def look() -> list[dict[str, Any]]:
        return [run async for run in runs.find({"workflow": workflow, "ended_at": {"$exists": True}})]

    await eventually(lambda: _has(look, count))
    return sorted(await look(), key=lambda run: run["created_at"])


async def _has(look: Any, count: int) -> bool:
    return len(await look()) >= count


async def settled(inbox: Any) -> None:
    query = {"$or": [{"owed_at": {"$exists": True}}, {"triggers": {"$ne": []}}]}
    await eventually(lambda: _none(inbox, query))


async def _none(inbox: Any, query: Any) -> bool:
    return await inbox.find_one(query) is None


@pytest.fixture
def inbox(database: Any) -> Any:
    return database["streamline.inbox"]


async def test_an_event_starts_a_run_with_its_payload(make_app: Any, runs: Any, inbox: Any) -> None:
    wf = simple("welcome", OnEvent("user.created"))
    async with make_app(wf) as app:
        assert await app.send_event("user.created", {"id": 7}) == 1
        assert await app.send_event("user.changed", {"id": 7}) == 0
        (run,) = await ended(runs, "welcome")
        await settled(inbox)
    assert (run["output"], run["chain"]) == ({"id": 7}, 1)


async def test_a_match_and_an_input_say_for_which_and_with_what(make_app: Any, runs: Any) -> None:
    class User(BaseModel):
        name: str

    wf = simple(
        "welcome", OnEvent("user.created", match={"user.vip": True}, input=lambda said: said["user"]), input=User
    )
    async with make_app(wf) as app:
        assert await app.send_event("user.created", {"user": {"vip": False, "name": "bob"}}) == 0
        assert await app.send_event("user.created", {"user": {"vip": True, "name": "ann"}}) == 1
        (run,) = await ended(runs, "welcome")
    assert run["input"] == {"name": "ann"}


async def test_several_workflows_may_be_started_by_one_event(make_app: Any, runs: Any) -> None:
    flows = [simple(f"flow{n}", OnEvent("go")) for n in range(3)]
    async with make_app(*flows) as app:
        assert await app.send_event("go", "x") == 3
        for n in range(3):
            await ended(runs, f"flow{n}")
    assert await runs.count_documents({}) == 3


async def test_a_process_that_does_not_serve_the_workflow_leaves_the_start_to_one_that_does(
    make_app: Any, runs: Any, inbox: Any
) -> None:
    wf = simple("welcome", OnEvent("user.created"))
    async with make_app(wf), make_app(worker=False) as stranger:
        await stranger.send_event("user.created", 1)
        await ended(runs, "welcome")
        await settled(inbox)
    async with make_app(worker=False) as stranger:
        assert await stranger.send_event("user.created", 2) == 0
    assert await runs.count_documents({}) == 1
    async with make_app(wf):
        one, two = await ended(runs, "welcome", 2)
        await settled(inbox)
    assert [one["input"], two["input"]] == [1, 2]


async def test_of_many_processes_that_serve_the_workflow_one_starts_the_run(
    make_app: Any, runs: Any, inbox: Any
) -> None:
    wf = simple("welcome", OnEvent("user.created"))
    async with make_app(wf) as one, make_app(wf), make_app(wf), make_app(worker=False) as stranger:
        await asyncio.gather(*((one if n % 2 else stranger).send_event("user.created", n) for n in range(20)))
        await ended(runs, "welcome", 20)
        await settled(inbox)
        assert sorted([run["input"] for run in await ended(runs, "welcome", 20)]) == list(range(20))
        assert await runs.count_documents({}) == 20


async def test_a_process_that_registers_later_is_known_at_once(make_app: Any, runs: Any) -> None:
    wf = simple("welcome", OnEvent("user.created"))
    async with make_app(worker=False) as early:
        assert await early.send_event("user.created", 1) == 0
        async with make_app() as late:
            late.register(wf)
            await late.tick()
            await early.send_event("user.created", 2)
            (run,) = await ended(runs, "welcome")
    assert run["input"] == 2


async def test_the_run_of_an_event_does_not_get_that_event_again(make_app: Any, runs: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("greedy", triggers=[OnEvent("go")])

    @wf.step
    async def only(ctx: Context[Any]) -> list[Any]:
        return [ctx.input, await ctx.wait_for("go", timeout="300ms", default="nothing")]

    async with make_app(wf) as app:
        await app.send_event("go", 1)
        (run,) = await ended(runs, "greedy")
    assert run["output"] == [1, "nothing"]


async def test_an_input_that_does_not_fit_is_a_dead_letter_and_no_loop(make_app: Any, runs: Any, inbox: Any) -> None:
    class User(BaseModel):
        name: str

    calls = list[Any]()

    def explode(payload: Any) -> Any:
        calls.append(payload)
        raise KeyError("name")

    flows = [simple("typed", OnEvent("go"), input=User), simple("bad", OnEvent("go", input=explode))]
    clock = MovableClock()
    async with make_app(*flows, worker=False, clock=clock) as app:
        assert await app.send_event("go", {"nobody": 1}) == 0
        for _ in range(3):
            clock.move(minutes=1)
            await app.tick()
        event = await inbox.find_one({})
    assert event["triggers"] == []
    assert {(each["workflow"], each["code"]) for each in event["failures"]} == {
        ("typed", "input.invalid"),
        ("bad", "KeyError"),
    }
    assert len(calls) == 1
    assert await runs.count_documents({}) == 0


async def test_the_end_of_a_run_starts_another(make_app: Any, runs: Any, inbox: Any) -> None:
    source = simple("import")
    report = simple("report", OnCompletion(source))
    alarm = simple("alarm", OnCompletion("import", status={"failed"}, input=_told))
    async with make_app(source, report, alarm) as app:
        await app.run(source, {"rows": 3}, timeout="10s")
        (reported,) = await ended(runs, "report")
        failing = await app.start(source, "fail")
        (alarmed,) = await ended(runs, "alarm")
        await settled(inbox)
        assert await runs.count_documents({}) == 4
    assert reported["output"] == {"rows": 3}
    assert alarmed["input"] == ["Run", failing.id, "failed"]


def _told(run: Run) -> list[Any]:
    return [type(run).__name__, run.id, run.status]


async def test_a_cancelled_run_starts_what_its_cancelling_starts(make_app: Any, runs: Any) -> None:
    source = simple("import")
    report = simple("report", OnCompletion("import", status={"cancelled"}))
    async with make_app(source, report) as app:
        handle = await app.start(source, delay="1h")
        await handle.cancel()
        (run,) = await ended(runs, "report")
    assert run["input"] is None


async def test_each_end_of_a_run_counts_once(make_app: Any, runs: Any, inbox: Any) -> None:
    source = simple("import")
    async with make_app(source, simple("report", OnCompletion("import"))) as app:
        handle = await app.start(source, 1)
        await ended(runs, "report")
        await settled(inbox)
        await app.rewind(handle.id, "only")
        await ended(runs, "report", 2)
        await settled(inbox)
    assert await inbox.count_documents({}) == 2
    assert await runs.count_documents({"workflow": "report"}) == 2


async def test_a_completion_reaches_a_process_that_is_not_there_yet(make_app: Any, runs: Any, inbox: Any) -> None:
    source, report = simple("import", retention="1h"), simple("report", OnCompletion("import"))
    async with make_app(report, worker=False):
        pass
    async with make_app(source) as app:
        await app.run(source, 5, timeout="10s")
        await eventually(lambda: inbox.find_one({"triggers": "report"}))
        await eventually(lambda: runs.find_one({"expire_at": {"$exists": True}, "owes_at": {"$exists": False}}))
    async with make_app(report):
        (run,) = await ended(runs, "report")
    assert run["input"] == 5


async def test_runs_that_start_one_another_for_ever_are_stopped(make_app: Any, runs: Any) -> None:
    wf = simple("again", OnCompletion("again"))
    async with make_app(wf, settings=Settings(max_chain=5)) as app:
        await app.start(wf)
        last = await eventually(lambda: runs.find_one({"events.type": "trigger.refused"}))
        assert (last["chain"], await runs.count_documents({})) == (5, 6)
        await eventually(lambda: _none(runs, {"owes_at": {"$exists": True}}))
        assert await runs.count_documents({}) == 6


async def test_loops_through_events_and_children_are_stopped_too(make_app: Any, runs: Any, inbox: Any) -> None:
    child: Workflow[Any, Any, Any] = Workflow("child")

    @child.step
    async def say(ctx: Context[Any]) -> None:
        await ctx.emit("again")

    wf: Workflow[Any, Any, Any] = Workflow("looping", triggers=[OnEvent("again")])

    @wf.step
    async def spawn(ctx: Context[Any]) -> None:
        await ctx.start_child(child)

    async with make_app(wf, child, settings=Settings(max_chain=3)) as app:
        await app.start(wf)
        await ended(runs, "looping", 4)
        await settled(inbox)
        await eventually(lambda: _none(runs, {"status": {"$in": ["draft", "running", "waiting"]}}))
        refused = [run async for run in runs.find({"events.type": "trigger.refused"})]
        assert [(run["workflow"], run["chain"]) for run in refused] == [("child", 3)]
        assert await runs.count_documents({"workflow": "looping"}) == 4


async def test_of_two_versions_the_newer_says_what_starts_a_workflow(make_app: Any, runs: Any) -> None:
    old, new = simple("flow", OnEvent("old"), version="9.0.0"), simple("flow", OnEvent("new"), version="10.0.0")
    async with make_app(new) as app:
        async with make_app(old) as older:
            assert await older.send_event("old") == 0
        assert await app.send_event("new", 1) == 1
        (run,) = await ended(runs, "flow")
    assert run["version"] == "10.0.0"


async def test_a_start_by_a_trigger_is_subject_to_idempotency(make_app: Any, runs: Any, inbox: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("once", triggers=[OnEvent("go")], idempotency_key=lambda said: said["id"])

    @wf.step
    async def only(ctx: Context[Any]) -> None:
        await ctx.wait("for ever")

    async with make_app(wf) as app:
        assert await app.send_event("go", {"id": "a"}) == 1
        assert await app.send_event("go", {"id": "a"}) == 0
        await settled(inbox)
    assert await runs.count_documents({}) == 1


async def test_a_start_that_a_gate_rejects_is_a_dead_letter(make_app: Any, runs: Any, inbox: Any) -> None:
    gate = Concurrency(1, on_limit="reject")
    wf: Workflow[Any, Any, Any] = Workflow("single", triggers=[OnEvent("go")], concurrency=gate)

    @wf.step
    async def only(ctx: Context[Any]) -> None:
        await ctx.wait("for ever")

    clock = MovableClock()
    async with make_app(wf, worker=False, clock=clock) as app:
        assert [await app.send_event("go", n) for n in (1, 2)] == [1, 0]
        # Whoever tries the first again finds its run, and not that there is no room for it.
        await inbox.update_one({"payload": 1}, {"$set": {"triggers": ["single"]}})
        clock.move(minutes=1)
        await app.tick()
        events = {event["payload"]: event async for event in inbox.find({})}
    assert [each["code"] for each in events[2]["failures"]] == ["concurrency.limit_reached"]
    assert "failures" not in events[1]
    assert await runs.count_documents({}) == 1


async def test_an_end_by_a_transactional_step_starts_a_run(make_app: Any, runs: Any, database: Any) -> None:
    source: Workflow[Any, Any, Any] = Workflow("import")
    await database.create_collection("rows")

    @source.step(transactional=True)
    async def load(ctx: Context[Any]) -> int:
        await database["rows"].insert_one({"run": ctx.run_id}, session=ctx.session)
        return 3

    async with make_app(source, simple("report", OnCompletion(source))) as app:
        await app.run(source, timeout="10s")
        (run,) = await ended(runs, "report")
    assert run["input"] == 3


async def test_an_event_of_a_run_starts_a_run(make_app: Any, runs: Any) -> None:
    sender: Workflow[Any, Any, Any] = Workflow("sender")

    @sender.step(max_attempts=2)
    async def say(ctx: Context[Any]) -> None:
        await ctx.emit("go", ctx.attempt)
        await ctx.sleep(0.01)
        if ctx.attempt == 1:
            raise ValueError("once")

    async with make_app(sender, simple("started", OnEvent("go"))) as app:
        await app.run(sender, timeout="20s")
        (run,) = await ended(runs, "started")
        assert await runs.count_documents({}) == 2
    assert run["input"] == 1


@pytest.mark.parametrize(
    ("make", "error", "field"),
    [
        (lambda: OnEvent(""), InvalidName, "event"),
        (lambda: OnEvent("x", match=5), InvalidPolicy, "match"),  # type: ignore[arg-type]
        (lambda: OnEvent("x", match={"a": object()}), InvalidPolicy, "match"),
        (lambda: OnEvent("x", input=5), InvalidPolicy, "input"),  # type: ignore[arg-type]
        (lambda: OnCompletion("no/name"), InvalidName, "triggers.workflow"),
        (lambda: OnCompletion(5), InvalidName, "triggers.workflow"),
        (lambda: OnCompletion("x", status={"running"}), InvalidPolicy, "triggers.status"),
        (lambda: OnCompletion("x", status=set()), InvalidPolicy, "triggers.status"),
        (lambda: OnCompletion("x", input="y"), InvalidPolicy, "input"),  # type: ignore[arg-type]
        (lambda: Workflow("w", triggers=["user.created"]), InvalidPolicy, "triggers"),  # type: ignore[list-item]
    ],
)
def test_what_cannot_start_a_run_is_refused(make: Any, error: Any, field: str) -> None:
    with pytest.raises(error) as refused:
        make()
    assert refused.value.field == field


async def test_a_run_owes_nothing_to_workflows_that_its_end_does_not_start(make_app: Any, runs: Any) -> None:
    source = simple("import")
    async with make_app(source, simple("report", OnCompletion("import", status="failed"))) as app:
        await app.run(source, timeout="10s")
    assert "owes_at" not in await runs.find_one({})
    assert await runs.count_documents({}) == 1
