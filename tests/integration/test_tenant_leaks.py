"""Two tenants and every public verb: what is one's is neither shown to the other nor changed by it.

A new verb fails here until it has a case.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streamline import Context, RunHandle, Tenancy, Tenant, Workflow
from streamline.admin.bulk_verbs import Bulk
from streamline.admin.following import Subscriber
from streamline.admin.webhook_verbs import Webhooks
from streamline.errors import Conflict, ForeignTenant, NotFound
from streamline.schedules.schedule_verbs import Schedules
from streamline.store.indexes import INDEXES
from tests.clocks import LONG_AGO

SECRET = "acme-secret"


def flow(tokens: list[str]) -> Workflow[Any, Any, Any]:
    """A workflow that waits as it is told."""
    wf: Workflow[Any, Any, Any] = Workflow("flow", output=Any)

    @wf.step(output_history=2)
    async def first(ctx: Context[Any]) -> Any:
        await ctx.progress(0.5, SECRET)
        return SECRET

    @wf.step(max_attempts=1)
    async def then(ctx: Context[Any]) -> Any:
        match ctx.input["how"]:
            case "wait":
                await ctx.wait(SECRET)
            case "event":
                await ctx.wait_for("paid")
            case "hook":
                hook = await ctx.create_hook("h")
                tokens.append(hook.token)
                await hook.wait()
            case "approval":
                await ctx.approve(SECRET)
            case "question":
                await ctx.ask(SECRET)
            case "fail":
                raise ValueError(SECRET)
        return SECRET

    return wf


@dataclass
class Scene:
    """What the verbs are tried on."""

    workflow: Workflow[Any, Any, Any]
    mine: Tenant
    theirs: dict[str, str]  # ids of the other tenant's runs, by how they stand
    token: str
    tick: Callable[[], Awaitable[int]]


Verb = Callable[[Scene], Awaitable[Any]]


def of_run(how: str, call: Callable[[Tenant, str], Awaitable[Any]]) -> Verb:
    return lambda scene: call(scene.mine, scene.theirs[how])


async def nothing(_: Scene) -> None:
    """Nothing of another tenant can be named with it."""


async def started(scene: Scene) -> Any:
    """Neither by its key nor by its id is another's run found."""
    by_key = await scene.mine.start(scene.workflow, {"how": "done"}, idempotency_key="wait-key")
    assert by_key.created
    return await scene.mine.start(scene.workflow, {"how": "done"}, run_id=scene.theirs["wait"])


async def started_many(scene: Scene) -> Any:
    (by_key,) = await scene.mine.start_many(scene.workflow, [{"how": "done"}], idempotency_key="event-key")
    assert by_key.created
    return await scene.mine.start_many(scene.workflow, [{"how": "done"}], run_id=scene.theirs["wait"])


async def sent(scene: Scene) -> Any:
    assert await scene.mine.send_event("paid") == 0
    assert await scene.mine.send_event("paid", match={"input.how": "event"}) == 0
    return await scene.mine.send_event("paid", run_id=scene.theirs["event"])


async def listed(scene: Scene) -> Any:
    return [each async for each in scene.mine.iter_runs(match={"input.how": {"$exists": True}})]


async def summed_up(scene: Scene) -> Any:
    return [each async for each in scene.mine.iter_summaries(match={"input.how": {"$exists": True}})]


async def seen(scene: Scene) -> Any:
    """Its own event comes, and none before it of the other's."""
    events = scene.mine.events("run.done", after=0)
    mine = await scene.mine.start(scene.workflow, {"how": "done"})
    await scene.tick()
    async for event in events:
        assert (event.tenant_id, event.workflow) == ("other", "flow"), mine
        break
    await events.aclose()  # type: ignore[attr-defined]


async def told(scene: Scene) -> Any:
    subscriber = scene.mine.subscriber("audit", "run.done", start="beginning")
    mine = await scene.mine.start(scene.workflow, {"how": "done"})
    await scene.tick()
    async for event in subscriber:
        assert (event.tenant_id, event.workflow) == ("other", "flow"), mine
        break
    return await subscriber.dead_letters()


async def events_of(scene: Scene) -> Any:
    return [event async for event in scene.mine.events_of(scene.theirs["done"])]


TENANT: dict[str, Verb] = {
    "all_tenants": nothing,  # test_tenancy.py: it raises
    "answer": of_run("question", lambda mine, run_id: mine.answer(run_id, 1)),
    "approve": of_run("approval", lambda mine, run_id: mine.approve(run_id)),
    "bulk": nothing,  # below
    "cancel": of_run("wait", lambda mine, run_id: mine.cancel(run_id)),
    "delete": of_run("done", lambda mine, run_id: mine.delete(run_id, children=True)),
    "count_runs": lambda scene: scene.mine.count_runs(),
    "events": seen,
    "events_of": events_of,
    "fork": of_run("done", lambda mine, run_id: mine.fork(run_id, "first")),
    "get": of_run("done", lambda mine, run_id: mine.get(run_id)),
    "handle": of_run("done", lambda mine, run_id: mine.handle(run_id).get()),
    "health": lambda scene: scene.mine.health(),
    "iter_runs": listed,
    "iter_summaries": summed_up,
    "on": nothing,  # test_tenancy.py: events of one's own runs only
    "opened": nothing,
    "pause": of_run("wait", lambda mine, run_id: mine.pause(run_id)),
    "pause_workflow": lambda scene: scene.mine.pause_workflow("flow"),
    "pending_waits": lambda scene: scene.mine.pending_waits(),
    "pin_output": of_run("done", lambda mine, run_id: mine.pin_output(run_id, "first", 1)),
    "progress_of": of_run("done", lambda mine, run_id: mine.progress_of(run_id)),
    "purge": lambda scene: scene.mine.purge(ended_before=datetime.now(UTC) + timedelta(days=1)),
    "reject": of_run("approval", lambda mine, run_id: mine.reject(run_id)),
    "remove_subscriber": lambda scene: scene.mine.remove_subscriber("audit"),
    "result_of": of_run("done", lambda mine, run_id: mine.result_of(run_id)),
    "resume": of_run("wait", lambda mine, run_id: mine.resume(run_id, 1)),
    "resume_hook": lambda scene: scene.mine.resume_hook(scene.token, 1),
    "retry": of_run("fail", lambda mine, run_id: mine.retry(run_id)),
    "rewind": of_run("done", lambda mine, run_id: mine.rewind(run_id, "first")),
    "run": lambda scene: scene.mine.run(scene.workflow, {"how": "done"}, run_id=scene.theirs["done"]),
    "runs": lambda scene: scene.mine.runs(),
    "schedules": nothing,  # below
    "send_event": sent,
    "start": started,
    "start_many": started_many,
    "stats": lambda scene: scene.mine.stats(),
    "stuck_runs": lambda scene: scene.mine.stuck_runs(longer_than=0, paused=True),
    "subscriber": told,
    "summaries": lambda scene: scene.mine.summaries(),
    "take_handler": nothing,
    "tenant": nothing,  # test_tenancy.py: it raises
    "unpause": of_run("wait", lambda mine, run_id: mine.unpause(run_id)),
    "unpause_workflow": lambda scene: scene.mine.unpause_workflow("flow"),
    "versions": lambda scene: scene.mine.versions(),
    "wait_for_run": of_run("done", lambda mine, run_id: mine.wait_for_run(run_id)),
    "webhooks": nothing,  # below
    "withdraw": of_run("approval", lambda mine, run_id: mine.withdraw(run_id)),
}
ANY_RUN = {"created_after": LONG_AGO}
BULK: dict[str, Verb] = {
    "cancel": lambda scene: scene.mine.bulk.cancel(ANY_RUN),
    "delete": lambda scene: scene.mine.bulk.delete(ANY_RUN, children=True),
    "retry": lambda scene: scene.mine.bulk.retry(ANY_RUN),
    "rewind": lambda scene: scene.mine.bulk.rewind(ANY_RUN, "first"),
}
SCHEDULES: dict[str, Verb] = {
    "create": lambda scene: scene.mine.schedules.create("nightly", "flow", daily="05:00", exists="update"),
    "delete": lambda scene: scene.mine.schedules.delete("nightly"),
    "get": lambda scene: scene.mine.schedules.get("nightly"),
    "list": lambda scene: scene.mine.schedules.list(),
    "pause": lambda scene: scene.mine.schedules.pause("nightly"),
    "preview": lambda scene: scene.mine.schedules.preview("nightly"),
    "resume": lambda scene: scene.mine.schedules.resume("nightly"),
    "trigger": lambda scene: scene.mine.schedules.trigger("nightly"),
    "update": lambda scene: scene.mine.schedules.update("nightly", daily="06:00"),
}
WEBHOOKS: dict[str, Verb] = {
    "create": lambda scene: scene.mine.webhooks.create("hook", "https://example.com/mine"),
    "dead_letters": lambda scene: scene.mine.webhooks.dead_letters("hook"),
    "delete": lambda scene: scene.mine.webhooks.delete("hook"),
    "disable": lambda scene: scene.mine.webhooks.disable("hook"),
    "discard": lambda scene: scene.mine.webhooks.discard("hook"),
    "enable": lambda scene: scene.mine.webhooks.enable("hook"),
    "get": lambda scene: scene.mine.webhooks.get("hook"),
    "list": lambda scene: scene.mine.webhooks.list(),
    "replay": lambda scene: scene.mine.webhooks.replay("hook"),
    "retry": lambda scene: scene.mine.webhooks.retry("hook"),
    "rotate_secret": lambda scene: scene.mine.webhooks.rotate_secret("hook"),
    "update": lambda scene: scene.mine.webhooks.update("hook", on="x"),
}
SUBSCRIBERS: dict[str, Verb] = {
    name: lambda scene, name=name: getattr(scene.mine.subscriber("audit"), name)()  # type: ignore[misc]
    for name in ("dead_letters", "discard", "lag", "position", "replay", "retry")
}
HANDLES: dict[str, Verb] = {
    name: lambda scene, name=name, how=how: getattr(scene.mine.handle(scene.theirs[how]), name)()  # type: ignore[misc]
    for name, how in {
        "cancel": "wait", "delete": "done", "get": "done", "pause": "wait", "progress": "done", "result": "done",
        "resume": "wait",
        "retry": "fail", "status": "done", "unpause": "wait", "wait": "done",
    }.items()
} | {
    "events": lambda scene: anext(scene.mine.handle(scene.theirs["done"]).events()),
    "rewind": lambda scene: scene.mine.handle(scene.theirs["done"]).rewind("first"),
}  # fmt: skip

ALL = {
    Tenant: TENANT, Bulk: BULK, Schedules: SCHEDULES, Webhooks: WEBHOOKS, Subscriber: SUBSCRIBERS, RunHandle: HANDLES,
}  # fmt: skip
LAST = ("create", "run", "start", "start_many", "events", "subscriber")  # by these the tenant has something of its own
NO_VERBS = {Subscriber: {"name", "store"}, RunHandle: {"id", "created"}}


@pytest.mark.parametrize("kind", ALL)
def test_every_verb_has_a_case(kind: type) -> None:
    public = {name for name, _ in inspect.getmembers(kind) if not name.startswith("_")}
    assert public - NO_VERBS.get(kind, set()) == ALL[kind].keys()


async def theirs_in(database: Any) -> dict[str, list[Any]]:
    """All that is the other tenant's, by collection."""
    return {
        name: [each async for each in database[f"streamline.{name}"].find({"tenant_id": "acme"}).sort("_id")]
        for name in INDEXES
    }


@asynccontextmanager
async def scene_of(make_app: Any, database: Any) -> AsyncIterator[Scene]:
    """A tenant that has everything, at rest, and another one that is to find nothing of it."""
    tokens, theirs = list[str](), dict[str, str]()
    wf = flow(tokens)
    async with make_app(wf, worker=False, tenancy=Tenancy()) as app:
        acme, runs = app.tenant("acme"), database["streamline.runs"]
        hook = acme.webhooks
        await hook.create("hook", f"https://example.com/{SECRET}", enabled=False)
        await acme.schedules.create("nightly", wf, daily="02:00", input={"how": SECRET})
        await acme.subscriber("audit").position()
        for how in ("wait", "event", "hook", "approval", "question", "fail", "done"):
            theirs[how] = (await acme.start(wf, {"how": how}, idempotency_key=f"{how}-key")).id
        await app.tick()
        await app.tick()
        assert {run["status"] async for run in runs.find()} == {"waiting", "failed", "done"}
        assert await database["streamline.log"].count_documents({"tenant_id": "acme"}) > len(theirs)
        yield Scene(wf, app.tenant("other"), theirs, tokens[0], app.tick)


@pytest.mark.parametrize("kind", ALL)
async def test_nothing_of_another_tenant_is_shown_or_changed(make_app: Any, database: Any, kind: type) -> None:
    async with scene_of(make_app, database) as scene:
        before = await theirs_in(database)
        for name in sorted(ALL[kind], key=lambda name: (name in LAST, name)):
            shown = await what_is_shown(ALL[kind][name], scene)
            assert SECRET not in shown, name
            assert await theirs_in(database) == before, name


async def what_is_shown(verb: Verb, scene: Scene) -> str:
    try:
        answer = await verb(scene)
    except (NotFound, Conflict, ForeignTenant) as refused:
        return f"{refused} {refused!r}"
    return f"{answer} {answer!r}"
