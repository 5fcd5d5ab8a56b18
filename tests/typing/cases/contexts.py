"""What a handler is given: every member has its type."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from streamline import Context, RetryPolicy, Workflow
from streamline.domain.definition import StepReference

wf = Workflow("typed", input=int, state=dict[str, int])


async def fetch(url: str, tries: int) -> bytes:
    return b""


def fetch_plainly(url: str) -> list[str]:
    return []


@wf.step
async def first(ctx: Context[int, dict[str, int]]) -> float:
    assert_type(ctx.run_id, str)
    assert_type(ctx.workflow, str)
    assert_type(ctx.version, str)
    assert_type(ctx.step_id, str)
    assert_type(ctx.attempt, int)
    assert_type(ctx.tenant_id, str | None)
    assert_type(ctx.tags, tuple[str, ...])
    assert_type(ctx.metadata, Mapping[str, Any])
    assert_type(ctx.input, int)
    assert_type(ctx.state, dict[str, int])
    assert_type(ctx.cancelled, bool)
    assert_type(ctx.idempotency_key(), str)
    assert_type(ctx.idempotency_key("mail"), str)
    ctx.log.info("seen")
    ctx.state["a"] = "b"  # expect-error: index / assignment / arg-type / reportArgumentType
    ctx.nothing  # expect-error: attr-defined / reportAttributeAccessIssue
    return 0.5


@wf.step
async def second(ctx: Context[int, dict[str, int]]) -> None:
    assert_type(ctx.output(first), float)
    assert_type(ctx.outputs["first"], Any)
    assert_type(ctx.outputs.get("first"), Any)
    assert_type(await ctx.call("async", fetch, "url", 3), bytes)
    assert_type(await ctx.call("plain", fetch_plainly, "url"), list[str])
    assert_type(await ctx.call("default", fetch_plainly, "url", default=["none"]), list[str])
    await ctx.call("options", fetch, "url", 3, retry=RetryPolicy(), timeout="5s")
    await ctx.call(5, fetch)  # expect-error: call-overload / reportCallIssue / reportArgumentType
    await ctx.call("no function", 5)  # expect-error: call-overload / reportCallIssue / reportArgumentType
    await ctx.sleep("5m")
    await ctx.sleep(5)
    await ctx.sleep(timedelta(days=1), key="nap")
    await ctx.sleep([5])  # expect-error: arg-type / reportArgumentType
    await ctx.sleep_until(datetime.now(UTC))
    await ctx.sleep_until("tomorrow")  # expect-error: arg-type / reportArgumentType
    await ctx.save()


def helper(ctx: Context[int], step: StepReference[str]) -> str:
    return ctx.output(step)


def wrong(ctx: Context[int]) -> int:
    return helper(ctx, first)  # expect-error: arg-type / return-value / reportArgumentType / reportReturnType
