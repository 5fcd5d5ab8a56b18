"""Workflows behind gates: their handlers leave their traces outside the database, and end when their input says so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamline import Concurrency, Context, Debounce, Throttle, Workflow
from tests.stress.ledger import Ledger

_LOOK = 0.02


def gated(ledger: Ledger, gates: Mapping[str, Mapping[str, Any]], name: str, version: str) -> Workflow[Any, Any, Any]:
    """Return a workflow of two steps with the given gates, each under the input's `key`.

    Args:
        ledger: Where its handlers leave entries.
        gates: Arguments of `Concurrency`, `Throttle` and `Debounce`, by the name of the workflow's option.
        name: The workflow's name.
        version: The workflow's version.

    Its input is ``{"n", "key", "pace", "rest", "until"}``: a number, the gates' key, how many seconds each step takes,
    how many a durable sleep between them does, and a file that the last step waits for.
    """
    kinds = {"concurrency": Concurrency, "throttle": Throttle, "debounce": Debounce}
    made: dict[str, Any] = {gate: kinds[gate](key=lambda value: value["key"], **gates[gate]) for gate in gates}
    flow: Workflow[Any, Any, Any] = Workflow(name, version=version, **made)

    def write(what: str, ctx: Context) -> None:
        ledger.write(what, run=ctx.run_id, key=ctx.input["key"], step=ctx.step_id, n=ctx.input["n"], now=time.time())

    @flow.step
    async def begin(ctx: Context) -> None:
        write("enter", ctx)
        await asyncio.sleep(ctx.input.get("pace", 0.0))
        if ctx.input.get("rest"):
            await ctx.sleep(ctx.input["rest"])
        write("leave", ctx)

    @flow.step
    async def finish(ctx: Context) -> int:
        write("enter", ctx)
        await asyncio.sleep(ctx.input.get("pace", 0.0))
        while "until" in ctx.input and not Path(ctx.input["until"]).exists():
            await asyncio.sleep(_LOOK)
        write("leave", ctx)
        return int(ctx.input["n"])

    return flow
