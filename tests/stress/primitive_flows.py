"""A workflow per durable call: each leaves in the ledger what it did, and what it was then given as the stored result.

Whatever is to happen once returns a nonce, ``@run|unit|hex``. A nonce is found again in the run's document, in its
memo, and in what later code saw, so that it tells which of several executions was the one that counted.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from typing import Any

from streamline import Context, Continue, Done, NonRetriableError, Workflow
from tests.stress.ledger import Ledger

Flow = Workflow[Any, Any, Any]
ITEMS, SPILLED, TURNS = 8, 130, 4
CHILD = "-child"


def nonce_of(run_id: str, unit: str) -> str:
    """Return a new nonce of something that is to happen once."""
    return f"@{run_id}|{unit}|{secrets.token_hex(6)}"


class Hand:
    """What a handler does and sees, written down."""

    def __init__(self, ledger: Ledger, ctx: Context[Any, Any], scope: str = "") -> None:
        self._ledger = ledger
        self.ctx = ctx
        self.scope = scope or ctx.step_id
        self.pace: float = ctx.input["pace"]
        self.write("enter", step=ctx.step_id, attempt=ctx.attempt)

    def write(self, what: str, **details: Any) -> None:
        """Leave an entry about the run."""
        self._ledger.write(what, run=self.ctx.run_id, **details)

    def saw(self, nonce: str, place: str | None = None) -> str:
        """Note a result that is stored, since the handler was given it; at this place it must always be the same."""
        if not isinstance(nonce, str):
            raise NonRetriableError(f"{nonce!r} is the result of nothing")
        self.write("saw", nonce=nonce, place=place)
        return nonce

    def begun(self, unit: str) -> str:
        """Note that something is being carried out that is to count once, and return its nonce."""
        nonce = nonce_of(self.ctx.run_id, f"{self.scope}/{unit}")
        self.write("did", nonce=nonce)
        return nonce

    def offered(self, unit: str) -> str:
        """Return a nonce for something that may be offered often, of which the first is kept."""
        nonce = nonce_of(self.ctx.run_id, f"{self.scope}/{unit}")
        self.write("offered", nonce=nonce)
        return nonce

    async def work(self, unit: str) -> str:
        """Take some time and return a nonce."""
        nonce = self.begun(unit)
        await asyncio.sleep(self.pace * random.uniform(0.2, 1.0))
        return nonce

    def drudge(self, unit: str) -> str:
        """As `work`, in a thread."""
        nonce = self.begun(unit)
        time.sleep(self.pace * random.uniform(0.2, 1.0))
        return nonce

    async def call(self, key: str, unit: str | None = None) -> str:
        """Let a durable call work."""
        return self.saw(await self.ctx.call(key, self.work, unit or key))

    async def nap(self, unit: str) -> None:
        """Sleep durably, and note when it began and ended."""
        self.write("lies_down", unit=f"{self.scope}/{unit}", seconds=self.pace)
        await self.ctx.sleep(self.pace, key=unit.rpartition("/")[2])
        self.write("wakes", unit=f"{self.scope}/{unit}", seconds=self.pace)


def sleeping(ledger: Ledger, name: str = "sleeping", version: str = "1.0.0") -> Flow:
    """Return a workflow whose handler sleeps between its calls."""
    flow: Flow = Workflow(name, version=version)

    @flow.step
    async def rest(ctx: Context) -> list[str]:
        hand = Hand(ledger, ctx)
        before = await hand.call("before")
        await hand.nap("first")
        between = await hand.call("between")
        await hand.nap("second")
        return [before, between, await hand.call("after")]

    @flow.step
    async def last(ctx: Context) -> list[str]:
        hand = Hand(ledger, ctx)
        await hand.nap("only")
        return [*ctx.output(rest), await hand.call("end")]

    return flow


def calling(ledger: Ledger, name: str = "calling", version: str = "1.0.0") -> Flow:
    """Return a workflow of durable calls in a row, within one another, and in threads."""
    flow: Flow = Workflow(name, version=version)

    @flow.step
    async def many(ctx: Context) -> list[str]:
        hand = Hand(ledger, ctx)

        async def outer() -> str:
            await hand.call("inner", "outer/inner")
            return await hand.work("outer")

        first = [await hand.call(f"c{i}") for i in range(TURNS)]
        chosen = hand.saw(await ctx.choose("choice", hand.offered("choice")))
        threaded = hand.saw(await ctx.call("thread", hand.drudge, "thread"))
        return [*first, chosen, threaded, hand.saw(await ctx.call("outer", outer)), await hand.call("last")]

    return flow


def eaching(ledger: Ledger, name: str = "eaching", version: str = "1.0.0") -> Flow:
    """Return a workflow whose items work, and others that call and sleep."""
    flow: Flow = Workflow(name, version=version)

    @flow.step
    async def items(ctx: Context) -> list[list[str]]:
        hand = Hand(ledger, ctx)

        async def plain(item: int, index: int) -> str:
            return await hand.work(f"plain[{item}]")

        async def mixed(item: int, index: int) -> list[str]:
            fetched = await hand.call("fetch", f"mixed[{item}]/fetch")
            await hand.nap(f"mixed[{item}]/nap")
            return [fetched, await hand.call("keep", f"mixed[{item}]/keep")]

        plains = [hand.saw(each) for each in await ctx.each("plain", range(ITEMS), plain, concurrency=3)]
        return [plains, *await ctx.each("mixed", range(ITEMS), mixed)]

    return flow


def gathering(ledger: Ledger, name: str = "gathering", version: str = "1.0.0") -> Flow:
    """Return a workflow whose branches work, sleep, wait and fail side by side."""
    flow: Flow = Workflow(name, version=version)

    @flow.step
    async def fan(ctx: Context) -> dict[str, Any]:
        hand = Hand(ledger, ctx)

        async def calls() -> str:
            await hand.nap("calls/nap")
            return await hand.call("call", "calls/call")

        async def waits() -> str:
            said: str = await ctx.wait("nobody answers this", timeout=hand.pace, default="nobody")
            return said

        async def asks() -> str:
            return hand.saw((await ctx.wait("go"))["nonce"])

        async def fails() -> str:
            raise NonRetriableError("as it should")

        everything = {"calls": calls, "waits": waits, "asks": asks, "works": lambda: hand.work("works")}
        found = await ctx.gather("all", everything)
        raced = await ctx.gather("race", {k: lambda k=k: hand.work(k) for k in ("hare", "tortoise")}, mode="race")
        hand.saw(next(iter(raced.values())), "race")
        settled = await ctx.gather("settled", {"fails": fails, "late": lambda: hand.work("late")}, mode="settled")
        return {**found, "fails": settled["fails"].status, "late": hand.saw(settled["late"].value)}

    return flow


def looping(ledger: Ledger, name: str = "looping", version: str = "1.0.0") -> Flow:
    """Return a workflow that goes round, with a call and a sleep each time."""
    flow: Flow = Workflow(name, version=version)

    @flow.step
    async def round_and_round(ctx: Context) -> list[str]:
        hand = Hand(ledger, ctx)

        async def turn(so_far: list[str], i: int) -> Continue[list[str]] | Done[list[str]]:
            found = [hand.saw(each) for each in so_far]
            found.append(await hand.call("work", f"turn{i}/work"))
            await hand.nap(f"turn{i}/nap")
            # The last of a turn is no call: that it happens once follows from the turn's being stored.
            found += [await hand.call("again", f"turn{i}/again"), hand.begun(f"turn{i}/end")]
            return Done(found) if i == TURNS - 1 else Continue(found)

        return await ctx.loop("turns", [], turn)

    return flow


def hooking(ledger: Ledger, name: str = "hooking", version: str = "1.0.0") -> Flow:
    """Return a workflow that gives away tokens and waits for whoever has them."""
    flow: Flow = Workflow(name, version=version)

    @flow.step
    async def pay(ctx: Context) -> list[str]:
        hand = Hand(ledger, ctx)
        before, found = await hand.call("before"), []
        for key in ("one", "two"):
            hook = await ctx.create_hook(key, expires="1h")
            hand.write("token", key=f"pay/{key}", token=hook.token)
            found.append(hand.saw((await hook.wait(timeout="30m"))["nonce"], f"hook {key}"))
        return [before, *found, await hand.call("after")]

    return flow


def deciding(ledger: Ledger, name: str = "deciding", version: str = "1.0.0") -> Flow:
    """Return a workflow that asks people: to approve, to answer several times, and somebody who never does."""
    flow: Flow = Workflow(name, version=version)

    @flow.step
    async def ask(ctx: Context) -> list[str]:
        hand = Hand(ledger, ctx)
        first = await ctx.approve("please", approvers=["boss"], timeout="1h")
        hand.saw(first.data["nonce"], "approval")
        second = await ctx.approve("nobody answers this", timeout=hand.pace, on_timeout="rejected")

        async def turn(so_far: list[str], i: int) -> Continue[list[str]] | Done[list[str]]:
            said = await ctx.ask(f"turn {i}?")
            found = [*so_far, hand.saw(said.data["nonce"]), await hand.call("check", f"turn{i}/check")]
            return Done(found) if i == 2 else Continue(found)

        return [first.outcome, first.data["nonce"], second.outcome, *await ctx.loop("turns", [], turn)]

    return flow


def waiting(ledger: Ledger, name: str = "waiting", version: str = "1.0.0") -> Flow:
    """Return a workflow that waits to be resumed, and for an event."""
    flow: Flow = Workflow(name, version=version)

    @flow.step
    async def stand(ctx: Context) -> list[str]:
        hand = Hand(ledger, ctx)
        first = hand.saw((await ctx.wait("go"))["nonce"])
        middle = await hand.call("middle")
        second = hand.saw((await ctx.wait("go again", timeout="1h"))["nonce"])
        return [first, middle, second, hand.saw((await ctx.wait_for("news"))["nonce"], "news")]

    return flow


def fathering(ledger: Ledger, name: str = "fathering", version: str = "1.0.0") -> Flow:
    """Return a workflow that starts children and joins them."""
    flow: Flow = Workflow(name, version=version)
    kid = childhood(ledger, f"{name}{CHILD}")

    @flow.step
    async def raise_them(ctx: Context) -> dict[str, Any]:
        hand = Hand(ledger, ctx)
        one = await ctx.start_child(kid, ctx.input)
        detached = await ctx.start_child(kid, ctx.input, wait=False, on_parent_close="abandon")
        hand.write("chose", place="detached", value=str(detached))
        joined = await ctx.join(dict.fromkeys("abc", (kid, ctx.input)))
        fastest = await ctx.join(dict.fromkeys("xy", (kid, ctx.input)), policy="any")
        for nonce in next(iter(fastest.values())):
            hand.saw(nonce, "fastest" + nonce.split("|")[1])
        return {"one": one, **joined, "after": await hand.call("after")}

    return flow


def childhood(ledger: Ledger, name: str = "childhood", version: str = "1.0.0") -> Flow:
    """Return the workflow of the children."""
    flow: Flow = Workflow(name, version=version)

    @flow.step
    async def grow(ctx: Context) -> list[str]:
        hand = Hand(ledger, ctx)
        small = await hand.call("small")
        await hand.nap("night")
        return [small, await hand.call("big")]

    return flow
