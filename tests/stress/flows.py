"""The workflows under stress: what they answer is known beforehand, and every execution leaves its name."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from streamline import Context, OnEvent, Workflow
from tests.stress.deploys import deployed, grown, migrating
from tests.stress.ledger import Ledger

FIVE = ("first", "second", "third", "fourth", "fifth")


def expected(n: int) -> dict[str, int]:
    """Return the value of each of the five steps for the input `n`."""
    values = {"first": n + 1}
    values["second"] = values["first"] * 2
    values["third"] = values["second"] + n * n
    values["fourth"] = values["third"] * 3
    values["fifth"] = sum(values.values())
    return values


class Execution:
    """One execution of a step: its nonce is in its output, so that the output tells which execution it is of."""

    def __init__(self, ledger: Ledger, ctx: Context[Any, Any]) -> None:
        self._ledger = ledger
        self._ctx = ctx
        self.nonce = secrets.token_hex(6)
        self.drawn: str | None = None

    def write(self, what: str, **details: Any) -> None:
        """Leave an entry about this execution."""
        place = {"run": self._ctx.run_id, "step": self._ctx.step_id, "attempt": self._ctx.attempt, "nonce": self.nonce}
        self._ledger.write(what, **place, **details)

    def output(self, value: int) -> dict[str, Any]:
        """Return the step's output."""
        return {"value": value, "nonce": self.nonce, "drawn": self.drawn}


@contextmanager
def recorded(ledger: Ledger, ctx: Context[Any, Any]) -> Iterator[Execution]:
    """Leave entries as the handler begins and ends, with the outputs of earlier steps as it finds them."""
    execution = Execution(ledger, ctx)
    seen = {step: output["nonce"] for step, output in ctx.outputs.items() if isinstance(output, dict)}
    execution.write("enter", seen=seen)
    try:
        yield execution
    except asyncio.CancelledError:
        execution.write("cancelled")
        raise
    except BaseException as error:
        execution.write("leave", why=type(error).__name__)
        raise
    execution.write("exit")


def five_steps(ledger: Ledger, name: str = "five", version: str = "1.0.0") -> Workflow[Any, Any, Any]:
    """Return a workflow of five steps that compute `expected`.

    It has coroutines, a plain function, a durable call and a durable sleep. Its input is ``{"n", "pace"}``: a number,
    and about how many seconds a step takes.
    """
    flow: Workflow[Any, Any, Any] = Workflow(name, version=version)

    @flow.step
    async def first(ctx: Context) -> dict[str, Any]:
        with recorded(ledger, ctx) as execution:
            await asyncio.sleep(ctx.input["pace"])
            return execution.output(ctx.input["n"] + 1)

    @flow.step
    def second(ctx: Context) -> dict[str, Any]:
        with recorded(ledger, ctx) as execution:
            time.sleep(ctx.input["pace"])
            return execution.output(ctx.outputs["first"]["value"] * 2)

    @flow.step
    async def third(ctx: Context) -> dict[str, Any]:
        with recorded(ledger, ctx) as execution:
            square, execution.drawn = await ctx.call("square", _square, ledger, ctx.run_id, ctx.input["n"])
            execution.write("drew", drawn=execution.drawn)
            await ctx.sleep(ctx.input["pace"])
            return execution.output(ctx.outputs["second"]["value"] + square)

    @flow.step
    async def fourth(ctx: Context) -> dict[str, Any]:
        with recorded(ledger, ctx) as execution:
            await asyncio.sleep(ctx.input["pace"])
            return execution.output(ctx.outputs["third"]["value"] * 3)

    @flow.step
    async def fifth(ctx: Context) -> dict[str, Any]:
        with recorded(ledger, ctx) as execution:
            return execution.output(sum(ctx.outputs[step]["value"] for step in FIVE[:-1]))

    return flow


async def _square(ledger: Ledger, run_id: str, n: int) -> tuple[int, str]:
    drawn = secrets.token_hex(6)
    ledger.write("call", run=run_id, drawn=drawn)
    return n * n, drawn


def holding(ledger: Ledger, name: str = "holding", version: str = "1.0.0") -> Workflow[Any, Any, Any]:
    """Return a workflow whose first attempt stays in its step while others get through it quickly.

    Its input is ``{"turns", "turn", "again", "block"}``: how many pauses of how many seconds the first attempt makes,
    how many seconds later ones take, and the path of a file until whose appearance the first blocks its event loop.
    """
    flow: Workflow[Any, Any, Any] = Workflow(name, version=version)

    @flow.step
    async def hold(ctx: Context) -> dict[str, Any]:
        with recorded(ledger, ctx) as execution:
            if ctx.attempt > 1:
                await asyncio.sleep(ctx.input["again"])
                return {**execution.output(ctx.attempt), "by": ledger.by}
            while ctx.input["block"] and not os.path.exists(ctx.input["block"]):
                time.sleep(0.02)
            for _ in range(ctx.input["turns"]):
                await asyncio.sleep(ctx.input["turn"])
            return {**execution.output(ctx.attempt), "by": ledger.by}

    @flow.step
    async def after(ctx: Context) -> dict[str, Any]:
        with recorded(ledger, ctx):
            return dict(ctx.outputs["hold"])

    return flow


def parking(ledger: Ledger, name: str = "parking", version: str = "1.0.0") -> Workflow[Any, Any, Any]:
    """Return a workflow that stays active, asleep, for as long as any test takes."""
    flow: Workflow[Any, Any, Any] = Workflow(name, version=version)

    @flow.step
    async def park(ctx: Context) -> None:
        with recorded(ledger, ctx):
            await ctx.sleep("1h")

    return flow


def talking(
    ledger: Ledger, name: str = "talking", version: str = "1.0.0", *, kept: str | None = None
) -> Workflow[Any, Any, Any]:
    """Return a workflow that says as many events as its input ``{"says", "pace"}`` tells, and so many a pause."""
    retention = None if kept is None else {"done": kept}
    flow: Workflow[Any, Any, Any] = Workflow(name, version=version, retention=retention)

    @flow.step
    async def talk(ctx: Context) -> int:
        with recorded(ledger, ctx):
            for i in range(ctx.input["says"]):
                await ctx.emit("said", i)
                if i % 10 == 0:
                    await asyncio.sleep(ctx.input["pace"])
            return int(ctx.input["says"])

    @flow.step
    async def end(ctx: Context) -> int:
        with recorded(ledger, ctx):
            return int(ctx.outputs["talk"])

    return flow


def hearing(ledger: Ledger, name: str = "hearing", version: str = "1.0.0") -> Workflow[Any, Any, Any]:
    """Return a workflow that takes one event after the other until it is told to stop, and returns them all."""
    flow: Workflow[Any, Any, Any] = Workflow(name, version=version)

    @flow.step
    async def hear(ctx: Context) -> list[Any]:
        heard: list[Any] = []
        while not heard or "stop" not in heard[-1]:
            heard.append(await ctx.wait_for("tick"))
        return heard

    return flow


def fading(ledger: Ledger, name: str = "fading", version: str = "1.0.0") -> Workflow[Any, Any, Any]:
    """Return `talking`, whose runs are removed as soon as they may be."""
    return talking(ledger, name, version, kept="1ms")


def triggered(ledger: Ledger, name: str = "triggered", version: str = "1.0.0") -> Workflow[Any, Any, Any]:
    """Return a workflow that every third event starts."""
    flow: Workflow[Any, Any, Any] = Workflow(name, version=version, triggers=[OnEvent("tick", match={"third": True})])

    @flow.step
    async def only(ctx: Context) -> Any:
        return ctx.input

    return flow


FLOWS: dict[str, Callable[..., Workflow[Any, Any, Any]]] = {
    "five": five_steps,
    "holding": holding,
    "parking": parking,
    "talking": talking,
    "fading": fading,
    "hearing": hearing,
    "triggered": triggered,
    "deployed": deployed,
    "grown": grown,
    "migrating": migrating,
}
