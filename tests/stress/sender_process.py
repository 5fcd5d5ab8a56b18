"""A process that sends one event after the other, writes down which were acknowledged, and is killed at some point."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from streamline.errors import StreamlineError
from tests.stress.ledger import Ledger
from tests.stress.target import Opening, tell_log


def send_events(options: dict[str, Any]) -> None:
    """Send events until killed: numbered from 0, some with a filter, every third such that it starts a run."""
    asyncio.run(_send(options["name"], Opening(**options["opening"]), options["every"]))


async def _send(name: str, opening: Opening, every: float) -> None:
    ledger = Ledger(opening.ledger, name)
    tell_log(ledger)
    async with opening.app(ledger) as app:
        for n in itertools.count():
            group = n // 4 % 2 if n % 4 == 0 else None
            payload = {"by": name, "n": n, "third": n % 3 == 0, "group": group}
            match = None if group is None else {"input.group": group}
            try:
                await app.send_event("tick", payload, match=match)
            except StreamlineError as error:
                ledger.write("refused", n=n, error=repr(error))
                continue
            ledger.write("sent", n=n, group=group)
            await asyncio.sleep(every)
