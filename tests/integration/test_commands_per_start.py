"""What each gate costs a start in commands, counted in the driver. The figures may only fall.

Counted is one start by a process that has room, from the call until nothing of it is under way any more; the run's
handler is at work then, and has written nothing. The table of docs/performance.md shows the same figures.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from streamline import Concurrency, Debounce, Streamline, Throttle, Worker, Workflow
from streamline.errors import ConcurrencyLimitReached
from tests.integration.counted_commands import Commands, counted_app
from tests.integration.meters import Meter, working

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
STILL = Worker(concurrency=256, lease="1h", poll_interval="1h", drain=0, cancel_grace="1s")
SETTLED = 0.15  # seconds; a line that is looked at after a start has been by then

Start = Callable[[Streamline, Workflow[Any, Any, Any]], Awaitable[Any]]


@dataclass(frozen=True)
class Case:
    """A start, and the most that it may cost.

    Args:
        gates: The workflow's gates.
        writes: How many commands may write.
        reads: How many may read.
        before: How many starts come first, and are not counted.
        options: How the run is started.
    """

    gates: dict[str, Any]
    writes: int
    reads: int
    before: int = 0
    options: dict[str, Any] = field(default_factory=dict)


KEY, FOREVER = {"idempotency_key": "k"}, {"idempotency_key": "k", "idempotency": "forever"}
LIMIT, THROTTLE, DEBOUNCE = Concurrency(1), Throttle(2, "1h"), Debounce("1h")
BOTH = {"concurrency": Concurrency(10), "throttle": Throttle(10, "1h")}

CASES = {
    "no gate": Case({}, 1, 0),
    "idempotency key": Case({}, 1, 0, options=KEY),
    "idempotency key, taken": Case({}, 1, 2, before=1, options=KEY),
    "forever": Case({}, 1, 0, options=FOREVER),
    "forever, taken": Case({}, 1, 2, before=1, options=FOREVER),
    "concurrency, a slot is free": Case({"concurrency": LIMIT}, 1, 2),
    "concurrency, in line": Case({"concurrency": LIMIT}, 1, 4, before=1),
    "concurrency, rejected": Case({"concurrency": Concurrency(1, on_limit="reject")}, 0, 1, before=1),
    "throttle, the first of its key": Case({"throttle": THROTTLE}, 2, 1),
    "throttle, another": Case({"throttle": THROTTLE}, 2, 0, before=1),
    "throttle, put off": Case({"throttle": THROTTLE}, 2, 0, before=2),
    "debounce, the first of its key": Case({"debounce": DEBOUNCE}, 1, 1),
    "debounce, another": Case({"debounce": DEBOUNCE}, 1, 1, before=1),
    "concurrency and throttle": Case(BOTH, 2, 2, before=1),
    "concurrency, throttle and a key": Case(BOTH, 2, 3, before=1, options={"idempotency_key": None}),
    "all three": Case({**BOTH, "debounce": DEBOUNCE}, 1, 1, before=1),
}


@pytest.mark.parametrize("name", CASES)
async def test_a_start_sends_no_more_than_it_must(mongo_uri: str, database_name: str, name: str) -> None:
    case, commands = CASES[name], Commands("runs", "gates")
    wf = working(Meter(), **case.gates)
    async with counted_app(mongo_uri, database_name, commands, wf, worker=STILL) as app:
        for number in range(case.before + 1):
            commands.clear()
            options = {key: value or f"key {number}" for key, value in case.options.items()}
            with suppress(ConcurrencyLimitReached):
                await app.start(wf, 1, **options)
            await asyncio.sleep(SETTLED)
        counted = commands.writes, commands.reads
    assert counted[0] <= case.writes, commands.by_name
    assert counted[1] <= case.reads, commands.by_name


def test_the_table_of_the_docs_shows_these_figures() -> None:
    table = PAGE.read_text().partition("## What a gate costs")[2].partition("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    shown = {name.replace("`", ""): (int(writes), int(reads)) for name, writes, reads, *_ in cells[2:]}
    assert shown == {name: (case.writes, case.reads) for name, case in CASES.items()}
