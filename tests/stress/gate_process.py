"""Processes that start runs behind gates in bursts and work on them, and whoever holds a workflow up meanwhile."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

from streamline import Streamline, StreamlineError
from tests.stress.flows import FLOWS
from tests.stress.gate_flows import gated
from tests.stress.ledger import Ledger
from tests.stress.target import Opening, tell_log

GATED = (("gated", "gated", "1.0.0"),)


def burst(options: dict[str, Any]) -> None:
    """Make the calls in `calls`, `at_once` of them at a time, and work on runs; both until SIGTERM."""
    asyncio.run(_burst(options))


def hold_up(options: dict[str, Any]) -> None:
    """Pause the workflow for some seconds, and let it go on."""
    asyncio.run(_hold_up(options))


def _opening(options: dict[str, Any], ledger: Ledger) -> Opening:
    gates = options["gates"]
    FLOWS["gated"] = lambda ledger, name, version: gated(ledger, gates, name, version)
    tell_log(ledger)
    return Opening(**options["opening"], flows=GATED)


async def _burst(options: dict[str, Any]) -> None:
    ledger = Ledger(options["opening"]["ledger"], options["name"])
    asked_to_stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked_to_stop.set)
    async with _opening(options, ledger).app(ledger) as app:
        ledger.write("ready")
        await asyncio.sleep(max(0.0, options["not_before"] - time.monotonic()))
        room = asyncio.Semaphore(options["at_once"])

        async def call(wanted: dict[str, Any]) -> None:
            async with room:
                if not asked_to_stop.is_set():
                    await _call(app, ledger, wanted)
                    await asyncio.sleep(options["every"])

        await asyncio.gather(*map(call, options["calls"]))
        ledger.write("finished")
        await asked_to_stop.wait()
    ledger.write("stopped")


async def _call(app: Streamline, ledger: Ledger, call: dict[str, Any]) -> None:
    name, asked = call["call"], time.monotonic_ns()
    ledger.write("asking", call=name, **call["value"])
    try:
        handle = await app.start("gated", call["value"], **call.get("options", {}))
    except StreamlineError as error:
        ledger.write("refused", call=name, asked=asked, error=type(error).__name__, text=str(error))
    else:
        told = {"run": handle.id, "created": handle.created}
        ledger.write("started", call=name, asked=asked, **told, **call["value"])


async def _hold_up(options: dict[str, Any]) -> None:
    ledger = Ledger(options["opening"]["ledger"], options["name"])
    async with _opening(options, ledger).app(ledger) as app:
        await app.pause_workflow("gated")
        ledger.write("held up")
        await asyncio.sleep(options["seconds"])
        ledger.write("letting go")
        await app.unpause_workflow("gated")
