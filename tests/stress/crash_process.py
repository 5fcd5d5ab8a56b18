"""A process that dies at one chosen write, or lives to see its run end."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.stress.ledger import Ledger
from tests.stress.saboteur import Saboteur, die
from tests.stress.target import Opening, tell_events, tell_log


def live_until_crash(options: dict[str, Any]) -> None:
    """Open an app, start a run or wait for one to come, and die at a write; see `crashing` for the options."""
    asyncio.run(_live_until_crash(options))


def crashing(
    opening: dict[str, Any], workflow: str, run_id: str, value: Any, *, start: bool, moment: str, at: int
) -> dict[str, Any]:
    """Return the options of a process that crashes.

    Args:
        opening: Arguments of `Opening`.
        workflow: Name of the workflow.
        run_id: The one run that this process works on.
        value: The run's input.
        start: Whether this process starts the run; otherwise it is there already.
        moment: When to die; see `Saboteur`.
        at: At which of its writes, from 1; 0 for none.
    """
    order = {"workflow": workflow, "run_id": run_id, "value": value, "start": start, "moment": moment, "at": at}
    return {"opening": opening, **order}


async def _live_until_crash(options: dict[str, Any]) -> None:
    opening = Opening(**options["opening"])
    ledger = Ledger(opening.ledger, options["name"])
    tell_log(ledger)
    async with opening.app(ledger) as app:
        tell_events(app, ledger)
        saboteur = Saboteur(app, options["moment"], options["at"], die)
        run_id, value = options["run_id"], options["value"]
        if options["start"]:
            ledger.write("asking", value=value)
            handle = await app.start(options["workflow"], value, run_id=run_id)
            ledger.write("started", run=handle.id, value=value)
        if opening.worker is not None:
            await app.handle(run_id).wait(30)
        await asyncio.sleep(0.05)  # a death that is to follow the last write comes a moment after it
    ledger.write("survived", run=run_id, writes=saboteur.writes)
