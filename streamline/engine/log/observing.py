"""Following the log live, from any process, without a record of how far one is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from streamline.domain.run import Event, read_entry
from streamline.engine.runtime import Runtime

Wanted = Callable[[Event], bool]


async def observe(
    runtime: Runtime, wanted: Wanted, run_id: str | None, after: int | None
) -> AsyncGenerator[Event, None]:
    """Yield events of the log as they come, until the app is closed.

    Args:
        runtime: The app's parts.
        wanted: Which ones.
        run_id: Only those of this run.
        after: The position after which to begin; None for the end of the log as it is now.
    """
    await runtime.outbox.switch_on()
    log = runtime.outbox.log
    tail = await log.tail()
    place = tail if after is None else after
    if run_id is not None and place < tail:
        async for event in _of_run(runtime, run_id, place, tail):
            if wanted(event):
                yield event
        place = tail
    async with aclosing(log.follow(place)) as following:
        async for entries in following:
            for event in map(read_entry, entries):
                if wanted(event) and run_id in (None, event.run_id):
                    yield event


async def _of_run(runtime: Runtime, run_id: str, after: int, until: int) -> AsyncGenerator[Event, None]:
    seq = 0
    while entries := await runtime.outbox.log.read_run(run_id, seq, until):
        for event in map(read_entry, entries):
            if (event.position or 0) > after:
                yield event
        seq = entries[-1]["seq"]
