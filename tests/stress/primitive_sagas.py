"""More workflows that leave in the ledger what they did: those of several steps, and those that fill the memo."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from streamline import Context, Continue, Done, NonRetriableError, RetryAfter, Workflow
from tests.stress.ledger import Ledger
from tests.stress.primitive_flows import (
    CHILD,
    SPILLED,
    TURNS,
    Flow,
    Hand,
    calling,
    deciding,
    eaching,
    fathering,
    gathering,
    hooking,
    looping,
    sleeping,
    waiting,
)

_LARGE = 70 * 1024


def undoing(ledger: Ledger, name: str = "undoing", version: str = "1.0.0") -> Flow:
    """Return a saga that fails at its end and is undone."""
    flow: Flow = Workflow(name, version=version)

    @flow.step
    async def reserve(ctx: Context) -> str:
        return await Hand(ledger, ctx).call("do")

    @reserve.compensate
    async def release(ctx: Context, reserved: str) -> None:
        hand = Hand(ledger, ctx, "undo-reserve")
        hand.saw(reserved)
        await hand.call("undo")

    @flow.step
    async def charge(ctx: Context) -> str:
        return await Hand(ledger, ctx).call("do")

    @charge.compensate
    async def refund(ctx: Context, charged: str) -> None:
        hand = Hand(ledger, ctx, "undo-charge")
        hand.saw(charged)
        await hand.call("undo")
        await hand.nap("between")
        await hand.call("tell")

    @flow.step
    async def ship(ctx: Context) -> str:
        await Hand(ledger, ctx).call("try")
        raise NonRetriableError("out of stock")

    return flow


def grouping(ledger: Ledger, name: str = "grouping", version: str = "1.0.0") -> Flow:
    """Return a workflow whose first steps run side by side: one sleeps, one fails at first, one only works."""
    flow: Flow = Workflow(name, version=version)

    @flow.step(group="all")
    async def sleepy(ctx: Context) -> list[str]:
        hand = Hand(ledger, ctx)
        first = await hand.call("before")
        await hand.nap("nap")
        return [first, await hand.call("after")]

    @flow.step(group="all")
    async def clumsy(ctx: Context) -> list[str]:
        hand = Hand(ledger, ctx)
        first = await hand.call("before")
        if await ctx.choose("stumbles", ctx.attempt) == ctx.attempt:
            raise RetryAfter(hand.pace)
        return [first, await hand.call("after")]

    @flow.step(group="all")
    def plain(ctx: Context) -> str:
        return Hand(ledger, ctx).drudge("plain")

    @flow.step
    async def after(ctx: Context) -> list[str]:
        hand = Hand(ledger, ctx)
        return [*ctx.output(sleepy), *ctx.output(clumsy), hand.saw(ctx.output(plain)), await hand.call("end")]

    return flow


def polling(ledger: Ledger, name: str = "polling", version: str = "1.0.0") -> Flow:
    """Return a workflow that asks again and again whether a job elsewhere is done."""
    flow: Flow = Workflow(name, version=version)

    @flow.step
    async def await_job(ctx: Context) -> list[str]:
        hand = Hand(ledger, ctx)
        submitted = await hand.call("submit")
        ready = await ctx.choose("ready", time.time() + 3 * hand.pace)

        async def look() -> str | None:
            return hand.begun("job") if time.time() >= ready else None

        job = hand.saw(await ctx.poll("job", look, every=hand.pace, max_wait="1h"))
        return [submitted, job, await hand.call("after")]

    return flow


def stating(ledger: Ledger, name: str = "stating", version: str = "1.0.0") -> Flow:
    """Return a workflow that operates on its state between calls and sleeps, and goes back once."""
    flow: Flow = Workflow(name, version=version, state=dict)

    @flow.step
    async def count(ctx: Context) -> int:
        hand, turn = Hand(ledger, ctx), ctx.state.get("turns", 0)
        for i in range(TURNS):
            await ctx.inc("n", 1)
            await ctx.push("list", i)
            await hand.call(f"c{i}", f"turn{turn}/c{i}")
            await ctx.inc("n", 10)
            if i % 2:
                await hand.nap(f"turn{turn}/nap{i}")
        await ctx.put("", f"key{turn}", turn)
        await ctx.drop("", "list") if turn else None
        ctx.state["plain"] = turn
        await ctx.save()
        ctx.state["late"] = ctx.state["n"]
        return int(ctx.state["n"])

    @flow.step
    async def again(ctx: Context) -> int:
        hand = Hand(ledger, ctx)
        await ctx.inc("turns", 1)
        await hand.call("look", f"turn{ctx.state['turns']}/look")
        if ctx.state["turns"] < 2:
            ctx.goto(count)
        return ctx.output(count)

    return flow


def tallying(ledger: Ledger, name: str = "tallying", version: str = "1.0.0") -> Flow:
    """Return a workflow whose branches operate on the state side by side, and read it afterwards."""
    flow: Flow = Workflow(name, version=version, state=dict)

    @flow.step
    async def count(ctx: Context) -> int:
        hand = Hand(ledger, ctx)

        async def item(i: int, index: int) -> str:
            await ctx.inc("each", 1)
            done = await hand.call("work", f"item{i}/work")
            await ctx.inc("each", 100)
            return done

        async def turn(so_far: int, i: int) -> Continue[int] | Done[int]:
            await ctx.inc("loop", 1)
            await hand.nap(f"turn{i}/nap")
            await ctx.push("turns", i)
            return Done(i) if i == TURNS - 1 else Continue(so_far + 1)

        await ctx.put("", "each", 0)
        await ctx.each("items", range(TURNS), item)
        await hand.nap("nap")
        await ctx.loop("turns", 0, turn)
        return int(ctx.state["each"] + ctx.state["loop"] + len(ctx.state["turns"]))

    return flow


def spilling(ledger: Ledger, name: str = "spilling", version: str = "1.0.0") -> Flow:
    """Return a workflow whose memo does not fit into its run."""
    flow: Flow = Workflow(name, version=version)

    @flow.step
    async def fill(ctx: Context) -> list[Any]:
        hand = Hand(ledger, ctx)

        async def item(item: int, index: int) -> str:
            return hand.begun(f"item[{item}]")

        async def large(unit: str) -> dict[str, str]:
            return {"nonce": await hand.work(unit), "padding": "x" * _LARGE}

        found = [hand.saw(each) for each in await ctx.each("items", range(SPILLED), item, concurrency=10)]
        big = [hand.saw((await ctx.call(f"large{i}", large, f"large{i}"))["nonce"]) for i in range(2)]
        await hand.nap("nap")
        return [len(set(found)), *big, await hand.call("end")]

    return flow


def nesting(ledger: Ledger, name: str = "nesting", version: str = "1.0.0") -> Flow:
    """Return a workflow of items that go round, ask somebody each time, and gather."""
    flow: Flow = Workflow(name, version=version)

    @flow.step
    async def deep(ctx: Context) -> list[list[str]]:
        hand = Hand(ledger, ctx)

        async def item(item: int, index: int) -> list[str]:
            async def turn(so_far: list[str], i: int) -> Continue[list[str]] | Done[list[str]]:
                at = f"{item}.{i}"

                async def naps() -> str:
                    await hand.nap(f"{at}/nap")
                    return await hand.call("call", f"{at}/nap/call")

                said = hand.saw((await ctx.ask(f"{at}?")).data["nonce"])
                both = await ctx.gather("both", {"naps": naps, "works": lambda: hand.work(f"{at}/works")})
                found = [*so_far, said, both["naps"], hand.saw(both["works"])]
                return Done(found) if i else Continue(found)

            return await ctx.loop("turns", [], turn)

        return list(await ctx.each("items", range(3), item))

    return flow


PRIMITIVES: dict[str, Callable[..., Flow]] = {
    "sleeping": sleeping,
    "calling": calling,
    "eaching": eaching,
    "gathering": gathering,
    "looping": looping,
    "hooking": hooking,
    "deciding": deciding,
    "waiting": waiting,
    "fathering": fathering,
    "undoing": undoing,
    "grouping": grouping,
    "polling": polling,
    "stating": stating,
    "tallying": tallying,
    "spilling": spilling,
    "nesting": nesting,
}


def flows_of(kind: str, name: str) -> tuple[tuple[str, str, str], ...]:
    """Return what has to be served so that a run of one of these workflows, under the name given, can end."""
    mine = (kind, name, "1.0.0")
    return (mine, ("childhood", f"{name}{CHILD}", "1.0.0")) if kind == "fathering" else (mine,)


def kind_of(name: str) -> str:
    """Return which of these workflows has the name."""
    return "childhood" if name.endswith(CHILD) else name.split("-", maxsplit=1)[0]
