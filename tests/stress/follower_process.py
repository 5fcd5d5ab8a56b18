"""A process that works on runs and drives a subscriber, until it is killed; what it hears goes into the ledger."""

from __future__ import annotations

import asyncio
import random
import signal
from typing import Any

from streamline import Event, RetryPolicy
from tests.stress.ledger import Ledger
from tests.stress.target import Opening, tell_log

AGAIN = RetryPolicy(max_attempts=1_000_000, delay="20ms", max_delay="200ms")


def follow(options: dict[str, Any]) -> None:
    """Work until SIGTERM or something harsher; of so many deliveries, a share fails."""
    asyncio.run(_follow(options["name"], Opening(**options["opening"]), options["failing"]))


async def _follow(name: str, opening: Opening, failing: float) -> None:
    ledger = Ledger(opening.ledger, name)
    tell_log(ledger)
    asked_to_stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked_to_stop.set)

    async with opening.app(ledger) as app:
        subscriber = app.subscriber("audit", start="beginning", retry=AGAIN, concurrency=20)

        @subscriber
        async def audit(event: Event) -> None:
            await asyncio.sleep(random.uniform(0, 0.004))
            if random.random() < failing:
                raise ValueError("this time it fails")
            ledger.write("heard", run=event.run_id, seq=event.seq, position=event.position, type=event.type)

        await subscriber.position()
        ledger.write("ready")
        await asked_to_stop.wait()
    ledger.write("stopped")
