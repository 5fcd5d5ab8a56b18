"""What a handler awaits: results are of the types that functions, models, workflows and steps are declared with."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, assert_type

from streamline import Answer, Context, Continue, Decision, Done, Hook, Settled, Workflow
from streamline.engine.primitives.families import ChildRun
from streamline.engine.primitives.fanning import Collected


@dataclass
class Address:
    street: str


wf = Workflow("primitives", input=int, state=dict[str, int])
children = Workflow("child", input=int, output=bytes)


async def fetch(url: str, index: int) -> bytes:
    return b""


def measure(url: str, index: int) -> float:
    return 0.5


async def ready() -> Address | None:
    return None


def ready_plainly() -> str | None:
    return None


@wf.step(output_history=3)
async def first(ctx: Context[int, dict[str, int]]) -> Address:
    assert_type(await ctx.poll("ready", ready, every="5s", max_wait="1h"), Address)
    assert_type(await ctx.poll("plain", ready_plainly, every=5), str)
    await ctx.poll("no pause", ready)  # expect-error: call-overload / reportCallIssue
    assert_type(await ctx.choose("when", datetime.now(UTC)), datetime)
    await ctx.choose(5, 5)  # expect-error: arg-type / reportArgumentType
    await ctx.checkpoint({"any": "thing"})
    assert_type(ctx.get_checkpoint(), Any)
    return Address("Elm")


@wf.step
async def waits(ctx: Context[int]) -> None:
    assert_type(await ctx.wait("anything"), Any)
    assert_type(await ctx.wait("address", model=Address, timeout="2d", default=None), Address)
    (await ctx.wait("address", model=Address)).number  # expect-error: attr-defined / reportAttributeAccessIssue
    await ctx.wait()  # expect-error: call-overload / reportCallIssue
    await ctx.wait("address", timeout=[])  # expect-error: call-overload / reportArgumentType / reportCallIssue
    await ctx.wait_for("paid", match={"order.id": 7}, model=Address)
    await ctx.wait_for("paid", match="order")  # expect-error: arg-type / reportArgumentType
    hook = await ctx.create_hook("bank", expires="1h")
    assert_type(hook, Hook)
    assert_type(hook.token, str)
    assert_type(hook.path, str)


@wf.step
async def people(ctx: Context[int]) -> None:
    decision = await ctx.approve("go?", approvers=["ann"], on_timeout="rejected", on_token=print)
    assert_type(decision, Decision)
    assert_type(decision.approved, bool)
    assert_type(decision.by, str | None)
    assert_type(decision.outcome, Literal["approved", "rejected", "withdrawn", "timed_out"])
    await ctx.approve("go?", on_timeout="withdrawn")  # expect-error: arg-type / reportArgumentType
    answer = await ctx.ask("which?", model=str)
    assert_type(answer, Answer)
    assert_type(answer.answered, bool)
    answer.approved  # expect-error: attr-defined / reportAttributeAccessIssue


@wf.step
async def fans(ctx: Context[int]) -> None:
    pages = await ctx.each("pages", ["a", "b"], fetch, concurrency=2, on_error="collect")
    assert_type(pages, Collected[bytes])
    assert_type(pages[0], bytes)
    assert_type(await ctx.each("sizes", ["a"], measure), Collected[float])
    await ctx.each("numbers", [1, 2], fetch)  # expect-error: arg-type / call-overload / reportArgument / reportCall
    await ctx.each("how", ["a"], fetch, on_error="skip")  # expect-error: call-overload / reportArgument / reportCall
    assert_type(await ctx.gather("both", {"a": ready, "b": ready_plainly}, mode="settled"), dict[str, Any])
    await ctx.gather("both", {"a": ready}, mode="first")  # expect-error: arg-type / reportArgumentType
    await ctx.gather("both", {"a": fetch})  # expect-error: dict-item / arg-type / reportArgumentType


@wf.step
async def turns(ctx: Context[int]) -> str:
    async def turn(state: int, i: int) -> Continue[int] | Done[str]:
        return Done("over") if i == 3 else Continue(state + 1)

    assert_type(await ctx.loop("turns", 0, turn, max_iterations=5), str)
    await ctx.loop("turns", "zero", turn)  # expect-error: arg-type / reportArgumentType
    return "x"


@wf.step
async def families(ctx: Context[int]) -> None:
    assert_type(await ctx.start_child(children, 5), bytes)
    assert_type(await ctx.start_child(children, 5, wait=False), ChildRun)
    assert_type(await ctx.start_child("child", {"any": "thing"}), Any)
    await ctx.start_child(children, "5")  # expect-error: misc / arg-type / call-overload / reportArgument / reportCall
    await ctx.start_child(children, 5, on_parent_close="keep")  # expect-error: overload / reportArg / reportCall
    joined = await ctx.join({"a": (children, 1), "b": ("child", 2)}, policy=1)
    assert_type(joined, dict[str, Any])
    await ctx.join({"a": (children, 1)}, policy="most")  # expect-error: arg-type / reportArgumentType
    await ctx.join({"a": children})  # expect-error: dict-item / arg-type / reportArgumentType


@wf.step
async def state(ctx: Context[int, dict[str, int]]) -> None:
    await ctx.inc("n")
    await ctx.inc("n", 2)
    await ctx.inc("n", "2")  # expect-error: arg-type / reportArgumentType
    await ctx.push("names", "ann")
    await ctx.put("", "n", 5)
    await ctx.put("n", 5)  # expect-error: call-arg / reportCallIssue
    await ctx.drop("", "n")


@wf.step
async def tells(ctx: Context[int]) -> None:
    await ctx.progress(0.5, "half", rows=5)
    await ctx.progress("half")  # expect-error: arg-type / reportArgumentType
    await ctx.emit("draft.done", {"pages": 3})
    ctx.stream("a word")
    ctx.metric("tokens", 12)
    ctx.metric("tokens")  # expect-error: call-arg / reportCallIssue
    await ctx.heartbeat()


@wf.step
async def past(ctx: Context[int]) -> int:
    history = ctx.output_history(first)
    assert_type(history[0].output, Address)
    assert_type(history[0].version, int)
    ctx.output_history("first")  # expect-error: arg-type / reportArgumentType
    await ctx.pin_output(first, 1)
    await ctx.pin_output(first, "1")  # expect-error: arg-type / reportArgumentType
    if ctx.input:
        ctx.goto(first)
    if ctx.attempt:
        ctx.goto(first.fn)  # expect-error: arg-type / reportArgumentType
    ctx.goto("first")


def look(settled: Settled) -> None:
    assert_type(settled.ok, bool)
    settled.nothing  # expect-error: attr-defined / reportAttributeAccessIssue
