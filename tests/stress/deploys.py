"""A workflow in two versions whose runs park in every kind of wait; each entry into a handler tells the version."""

from __future__ import annotations

import time
from typing import Any

from streamline import Concurrency, Context, RetryAfter, RetryPolicy, Workflow
from tests.stress.ledger import Ledger

ANSWERED = ("wait", "event", "hook", "approval", "question", "each", "paused", "slot")
TIMED = ("sleep", "timeout", "poll", "retry", "later")
KIN = ("child", "join")
BEHIND = ("queued",)  # in line behind the run of the kind "slot"
KINDS = (*ANSWERED, *TIMED, *KIN, *BEHIND)


def grown(ledger: Ledger, name: str, version: str) -> Workflow[Any, Any, Any]:
    """The child of a run: it waits until it is answered, and is the same in both versions."""
    wf: Workflow[Any, Any, Any] = Workflow(name, version=version)

    @wf.step
    async def idle(ctx: Context[Any]) -> Any:
        return await ctx.wait("child")

    return wf


def deployed(ledger: Ledger, name: str, version: str) -> Workflow[Any, Any, Any]:
    """A version that carries nothing over."""
    one_a_line = Concurrency(1, key=lambda asked: asked["line"])
    wf: Workflow[Any, Any, Any] = Workflow(name, version=version, concurrency=one_a_line)

    def note(ctx: Context[Any]) -> None:
        ledger.write("enter", run=ctx.run_id, step=ctx.step_id, version=version)

    @wf.step(max_attempts=100)
    async def before(ctx: Context[Any]) -> Any:
        note(ctx)
        return version

    @wf.step(retry=RetryPolicy(max_attempts=100, delay="1s", max_delay="1s"))
    async def park(ctx: Context[Any]) -> Any:
        note(ctx)
        await parked(ctx, ledger, ctx.input["kind"], ctx.input["seconds"])
        return version

    @wf.step(max_attempts=100)
    async def after(ctx: Context[Any]) -> Any:
        note(ctx)
        return {"before": ctx.output(before), "after": version}

    return wf


def migrating(ledger: Ledger, name: str, version: str) -> Workflow[Any, Any, Any]:
    """A version that carries runs of the first one over."""
    wf = deployed(ledger, name, version)
    wf.migrate("1.0.0")(lambda run: None)
    return wf


async def parked(ctx: Context[Any], ledger: Ledger, kind: str, seconds: float) -> None:
    match kind:
        case "wait" | "paused" | "slot":
            await ctx.wait("go")
        case "hook":
            hook = await ctx.create_hook("h")
            ledger.write("token", run=ctx.run_id, token=hook.token)
            await hook.wait()
        case "event":
            await ctx.wait_for("go")
        case "approval":
            await ctx.approve("go")
        case "question":
            await ctx.ask("go")
        case "each":
            await ctx.each("all", [1, 2], lambda item, i: ctx.wait("go", key=f"w{i}") if i else _same(item))
        case "sleep":
            await ctx.sleep(seconds)
        case "timeout":
            await ctx.wait("go", timeout=seconds, default=None)
        case "poll":
            until = await ctx.choose("until", time.time() + seconds)
            every = max(0.3, seconds / 20)
            await ctx.poll("job", lambda: True if time.time() > until else None, every=every, max_wait="10m")
        case "retry":
            if ctx.attempt <= 3:
                raise RetryAfter(seconds / 3)
        case "child":
            await ctx.start_child("grown", None)
        case "join":
            await ctx.join({"a": ("grown", None), "b": ("grown", None)})


async def _same(item: Any) -> Any:
    return item
