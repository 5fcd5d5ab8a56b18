"""A process that starts runs and writes down what it was told about each."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from streamline import Streamline, StreamlineError
from tests.stress.ledger import Ledger
from tests.stress.target import Opening, tell_log


def start_runs(options: dict[str, Any]) -> None:
    """Start runs with the given inputs, one every so many seconds; see `asking` for the options."""
    asyncio.run(_start_runs(options))


def asking(
    opening: dict[str, Any],
    name: str,
    inputs: list[Any],
    *,
    every: float = 0.0,
    workflow: str = "five",
    keys: list[str] | None = None,
    at_once: int = 1,
    not_before: float = 0.0,
) -> dict[str, Any]:
    """Return the options of a starter.

    Args:
        opening: Arguments of `Opening`.
        name: What the starter is called in the ledger.
        inputs: One per run.
        every: Seconds between two starts.
        workflow: Name of the workflow.
        keys: One idempotency key per run.
        at_once: How often each run is asked for at the same time, by as many tasks.
        not_before: Monotonic instant of the first start, for starters that are to race.
    """
    order = {"inputs": inputs, "every": every, "workflow": workflow, "keys": keys, "at_once": at_once}
    return {"name": name, "opening": opening, "not_before": not_before, **order}


async def _start_runs(options: dict[str, Any]) -> None:
    opening = Opening(**options["opening"])
    ledger = Ledger(opening.ledger, options["name"])
    tell_log(ledger)
    async with opening.app(ledger) as app:
        ledger.write("ready")
        await asyncio.sleep(max(0.0, options["not_before"] - time.monotonic()))
        pending: set[asyncio.Task[None]] = set()
        for i, value in enumerate(options["inputs"]):
            key = None if options["keys"] is None else options["keys"][i]
            # Tasks, not a sequence: a start that has to wait for a new primary does not hold up the others.
            pending |= {
                asyncio.ensure_future(_start(app, ledger, options["workflow"], value, key))
                for _ in range(options["at_once"])
            }
            await asyncio.sleep(options["every"])
        await asyncio.gather(*pending)
    ledger.write("finished")


async def _start(app: Streamline, ledger: Ledger, workflow: str, value: Any, key: str | None) -> None:
    ledger.write("asking", value=value, key=key)
    try:
        handle = await app.start(workflow, value, idempotency_key=key)
    except StreamlineError as error:
        ledger.write("refused", value=value, key=key, error=type(error).__name__, text=str(error))
    else:
        ledger.write("started", run=handle.id, value=value, key=key, created=handle.created)
