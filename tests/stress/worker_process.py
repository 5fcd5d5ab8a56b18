"""A process that works on runs until it is killed: ``python -m tests.stress.worker_process '{"name": …}'``.

With the argument ``nursery`` it becomes the process that forks the others: see `tests.stress.nursery`.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import Any

from tests.stress.ledger import Ledger
from tests.stress.target import Opening, tell_events, tell_log


def work(options: dict[str, Any]) -> None:
    """Work on runs until SIGTERM, which lets running steps finish, or something harsher."""
    asyncio.run(_work(options["name"], Opening(**options["opening"])))


async def _work(name: str, opening: Opening) -> None:
    ledger = Ledger(opening.ledger, name)
    tell_log(ledger)
    asked_to_stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked_to_stop.set)

    async with opening.app(ledger) as app:
        tell_events(app, ledger)
        ledger.write("ready")
        await asked_to_stop.wait()
    ledger.write("stopped")


if __name__ == "__main__":
    if sys.argv[1] == "nursery":
        from tests.stress.nursery import main

        main(int(sys.argv[2]))
    else:
        work(json.loads(sys.argv[1]))
