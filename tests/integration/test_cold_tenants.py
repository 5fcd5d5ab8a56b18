"""Two tenants whose runs park in every way; processes that never saw the runs go on with those of one of them."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from streamline import (
    CancelOn,
    Concurrency,
    Context,
    Debounce,
    Event,
    NonRetriableError,
    OnCompletion,
    OnEvent,
    RetryPolicy,
    Streamline,
    Tenancy,
    Tenant,
    Throttle,
    Workflow,
)
from streamline.errors import HookNotFound, RunNotFound
from tests.clocks import MovableClock
from tests.waiting import eventually

ACME, OTHER = "acme", "other"
ANSWERED = ("wait", "event", "hook", "approval", "question", "each", "child", "join")
TIMED = ("sleep", "timeout", "poll", "retry", "later")
KINDS = (*ANSWERED, *TIMED, "killed", "paused")


class Deployment:
    """The workflows, as each process has them, and what their handlers were told: outside the database."""

    def __init__(self) -> None:
        self.seen: Counter[tuple[str, str | None]] = Counter()
        self.tokens: dict[tuple[str, str | None], str] = {}

    def flows(self) -> list[Workflow[Any, Any, Any]]:
        """New ones, as a process that starts has them."""
        child: Workflow[Any, Any, Any] = Workflow("child")
        parking: Workflow[Any, Any, Any] = Workflow("parking")
        after: Workflow[Any, Any, Any] = Workflow("after", triggers=[OnCompletion("parking")])
        greeted: Workflow[Any, Any, Any] = Workflow("greeted", triggers=[OnEvent("hello")])
        hourly: Workflow[Any, Any, Any] = Workflow("hourly")
        doomed: Workflow[Any, Any, Any] = Workflow("doomed", cancel_on=[CancelOn("gone")])
        limited: Workflow[Any, Any, Any] = Workflow("limited", concurrency=Concurrency(1))
        spread: Workflow[Any, Any, Any] = Workflow("spread", throttle=Throttle(1, "30m"))
        settled: Workflow[Any, Any, Any] = Workflow("settled", debounce=Debounce("30m"))
        undone: Workflow[Any, Any, Any] = Workflow("undone")

        async def tell(ctx: Context[Any]) -> Any:
            self.seen[ctx.workflow, ctx.tenant_id] += 1
            return ctx.tenant_id

        async def wait(ctx: Context[Any]) -> Any:
            await ctx.wait("go")
            return await tell(ctx)

        for flow in (after, greeted, hourly, spread, settled):
            flow.step("tell")(tell)
        for flow in (child, doomed, limited):
            flow.step("wait")(wait)

        @parking.step
        async def park(ctx: Context[Any]) -> Any:
            return await self.parked(ctx, child)

        parking.step("told", retry=RetryPolicy(max_attempts=2, delay="30m", max_delay="1h"))(tell)

        @undone.step
        async def do(ctx: Context[Any]) -> Any:
            return ctx.tenant_id

        @do.compensate
        async def undo(ctx: Context[Any], done: Any) -> None:
            self.seen["undo", ctx.tenant_id] += ctx.tenant_id == done

        @undone.step
        async def fail(ctx: Context[Any]) -> None:
            await ctx.wait("go")
            raise NonRetriableError("as told")

        return [child, parking, after, greeted, hourly, doomed, limited, spread, settled, undone]

    async def parked(self, ctx: Context[Any], child: Workflow[Any, Any, Any]) -> Any:
        match ctx.input:
            case "wait" | "paused":
                await ctx.wait("go")
            case "event":
                await ctx.wait_for("go")
            case "hook":
                hook = await ctx.create_hook("h")
                self.tokens["hook", ctx.tenant_id] = hook.token
                await hook.wait()
            case "approval":
                assert (await ctx.approve("go")).approved
            case "question":
                await ctx.ask("go")
            case "each":
                await ctx.each("all", [1, 2], lambda item, i: ctx.wait("go", key=f"w{i}") if i else _none())
            case "child":
                assert await ctx.start_child(child) == ctx.tenant_id
            case "join":
                both = await ctx.join({"a": (child, 1), "b": (child, 2)})
                assert set(both.values()) == {ctx.tenant_id}
            case "sleep":
                await ctx.sleep("30m")
            case "timeout":
                await ctx.wait("go", timeout="30m", default=None)
            case "poll":
                await ctx.poll("job", lambda: self.seen["job", ctx.tenant_id] or None, every="30m", max_wait="9h")
            case "retry":
                if ctx.attempt == 1:
                    raise ValueError("not yet")
        return ctx.tenant_id


async def _none() -> None: ...


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def deployment() -> Deployment:
    return Deployment()


@pytest.fixture
def process(make_app: Any, deployment: Deployment, clock: MovableClock) -> Any:
    """Make an app as a process that has just begun does."""

    def begin() -> Streamline:
        made: Streamline = make_app(*deployment.flows(), worker=False, clock=clock, tenancy=Tenancy(required=True))
        return made

    return begin


async def begin(tenant: Tenant) -> None:
    for kind in KINDS:
        delay = "30m" if kind in ("later", "killed") else None
        await tenant.start("parking", kind, run_id=f"{tenant.id}-{kind}", delay=delay)
    for name in ("doomed", "undone"):
        await tenant.start(name, run_id=f"{tenant.id}-{name}")
    for i in range(2):
        for name in ("limited", "spread"):
            await tenant.start(name, run_id=f"{tenant.id}-{name}-{i}")
        await tenant.start("settled", i)
    await tenant.schedules.create("series", "hourly", every="1h", catch_up="latest")


async def kill(runs: Any, clock: MovableClock) -> None:
    """Make runs look as if their worker had died at work."""
    at = clock.now() - timedelta(hours=1)
    put = {"status": "running", "lease": {"worker": "dead", "token": "dead", "at": at, "until": at}}
    await runs.update_many({"_id": {"$regex": "-killed$"}}, {"$set": put, "$unset": {"due_at": ""}})


async def answer(tenant: Tenant, deployment: Deployment) -> None:
    """Answer whatever of a tenant waits for somebody."""
    of = f"{tenant.id}-{{}}".format
    for kind in ("wait", "each"):
        await tenant.resume(of(kind), 1)
    assert await tenant.send_event("go") == 1
    assert await tenant.send_event("hello") == 1
    assert await tenant.send_event("gone") == 1
    assert await tenant.resume_hook(deployment.tokens["hook", tenant.id]) == of("hook")
    await tenant.approve(of("approval"))
    await tenant.answer(of("question"), 1)
    await tenant.unpause(of("paused"))
    await tenant.resume(of("paused"), 1)
    await tenant.resume(of("undone"), 1)
    await tenant.resume(of("limited-0"), 1)
    for run in (await tenant.runs("child")).items:
        await tenant.resume(run.id, 1)


async def exhausted(process: Any) -> None:
    """Let new processes do what is to be done, one pass each."""
    for _ in range(8):
        async with process() as app:
            if not await app.tick():
                return
    raise AssertionError("there is always more")


async def test_processes_that_never_saw_a_run_go_on_with_it_in_its_tenant(
    process: Any, deployment: Deployment, clock: MovableClock, runs: Any
) -> None:
    async with process() as app:
        for name in (ACME, OTHER):
            await begin(app.tenant(name))
        await app.tick()
        for name in (ACME, OTHER):
            await app.tenant(name).pause(f"{name}-paused")
    await kill(runs, clock)
    await exhausted(process)
    async with process() as app:
        await refused(app.tenant(OTHER), deployment)
        await answer(app.tenant(ACME), deployment)
    await exhausted(process)
    deployment.seen["job", ACME] = 1
    for _ in range(2):
        clock.move(minutes=40)
        await exhausted(process)
    async with process() as app:
        await app.tenant(ACME).resume("acme-limited-1", 1)
    await exhausted(process)
    async with process() as app:
        acme, other = app.tenant(ACME), app.tenant(OTHER)
        for kind in KINDS:
            run = await acme.get(f"acme-{kind}")
            assert (run.status, run.output, run.tenant_id) == ("done", ACME, ACME), (kind, run.error)
            theirs = await other.get(f"other-{kind}")
            assert theirs.status == ("waiting" if kind in (*ANSWERED, "poll", "paused") else "done"), kind
        assert (await acme.get("acme-killed")).recovery_count == 1
        statuses = {each: (await acme.get(f"acme-{each}")).status for each in ("doomed", "undone", "limited-0")}
        assert statuses == {"doomed": "cancelled", "undone": "compensated", "limited-0": "done"}
        assert {(await other.get(f"other-{each}")).status for each in ("doomed", "undone", "limited-0")} == {"waiting"}
        assert (await other.get("other-limited-1")).status == "draft"
        for tenant in (acme, other):
            assert (await tenant.schedules.get("series")).occurrences == 1
        await acme.schedules.delete("series")
        assert (await other.schedules.get("series")).id == "series"
    seen = deployment.seen
    done_of_other = len(KINDS) - len(ANSWERED) - 2
    assert {name: (seen[name, ACME], seen[name, OTHER]) for name, _ in seen} == {
        "parking": (len(KINDS), done_of_other),
        "after": (len(KINDS), done_of_other),
        "child": (3, 0),
        "greeted": (1, 0),
        "limited": (2, 0),
        "spread": (2, 2),
        "settled": (1, 1),
        "hourly": (1, 1),
        "undo": (1, 0),
        "job": (1, 0),
    }
    assert {run["tenant_id"] async for run in runs.find()} == {ACME, OTHER}


async def refused(stranger: Tenant, deployment: Deployment) -> None:
    """Nothing that is asked in one tenant reaches another's run."""
    for verb in (stranger.resume, stranger.approve, stranger.unpause, stranger.cancel, stranger.retry):
        with pytest.raises(RunNotFound):
            await verb("acme-wait")
    with pytest.raises(HookNotFound):
        await stranger.resume_hook(deployment.tokens["hook", ACME])


async def test_what_happened_while_nobody_listened_is_told_to_the_tenants_subscriber(
    make_app: Any, deployment: Deployment
) -> None:
    heard: list[Event] = []
    strict = {"tenancy": Tenancy(required=True)}
    async with make_app(*deployment.flows(), worker=False, **strict) as app:
        for name in (ACME, OTHER):
            await app.tenant(name).subscriber("audit", "run.done").position()
        for name in (ACME, OTHER, ACME):
            await app.tenant(name).start("hourly")
    async with make_app(*deployment.flows(), worker=False, **strict) as app:
        await app.tick()
    app = make_app(*deployment.flows(), **strict)
    app.tenant(ACME).subscriber("audit", "run.done")(heard.append)
    async with app:
        await eventually(lambda: len(heard) == 2)
        assert await app.tenant(OTHER).subscriber("audit", "run.done").lag() > 0
        await app.tenant(OTHER).run("hourly", timeout="20s")
        await app.tenant(ACME).run("hourly", timeout="20s")
        await eventually(lambda: len(heard) == 3)
    assert {event.tenant_id for event in heard} == {ACME}
