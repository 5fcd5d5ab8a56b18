"""What is seen of gated runs from outside the engine: how many are at work at once, and when each began."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from streamline import Context, NonRetriableError, Workflow
from tests.waiting import eventually


class Meter:
    """Watches handlers at work.

    Attributes:
        most: The most that were at work at once, by key.
        order: The inputs in the order in which their handlers were entered.
        begun: When each was entered, as a monotonic instant in seconds, by input.
        left: When each handler returned.
        hold: Handlers stay at work until this is set.
    """

    def __init__(self, *, hold: bool = True, pace: float = 0.0) -> None:
        self.most: Counter[str] = Counter()
        self.order: list[Any] = []
        self.begun: dict[Any, float] = {}
        self.left: dict[Any, float] = {}
        self.hold = asyncio.Event()
        self.pace = pace
        self._now: Counter[str] = Counter()
        self._gates: defaultdict[Any, asyncio.Event] = defaultdict(asyncio.Event)
        if not hold:
            self.hold.set()

    def at_work(self, key: str = "") -> int:
        return self._now[key]

    def let_go(self, *names: Any) -> None:
        """Let single handlers return while the others are held."""
        for name in names:
            self._gates[name].set()

    def let_all_go(self) -> None:
        self.hold.set()
        for gate in self._gates.values():
            gate.set()

    async def work(self, name: Any, key: str = "") -> None:
        self._now[key] += 1
        self.most[key] = max(self.most[key], self._now[key])
        self.order.append(name)
        self.begun.setdefault(name, time.monotonic())
        try:
            if not self.hold.is_set():
                await self._gates[name].wait()
            if self.pace:
                await asyncio.sleep(self.pace)
        finally:
            self._now[key] -= 1
            self.left[name] = time.monotonic()


def working(meter: Meter, name: str = "metered", **options: Any) -> Workflow[Any, Any, Any]:
    """Return a workflow of one step that is at work as long as the meter says; its input is a name, or key and name."""
    wf: Workflow[Any, Any, Any] = Workflow(name, **options)

    @wf.step(max_attempts=1)
    async def work(ctx: Context[Any]) -> Any:
        key = ctx.input[0] if isinstance(ctx.input, (list, tuple)) else ""
        await meter.work(ctx.input if not key else tuple(ctx.input), key)
        if ctx.input == "fail":
            raise NonRetriableError("as told")
        return ctx.input

    return wf


def by_first(given: Any) -> str:
    """The key function of inputs that are pairs."""
    return str(given[0])


def most_in_a_window(instants: Sequence[datetime], window: timedelta) -> int:
    """The most instants that any half-open window of this length holds."""
    return max((sum(first <= other < first + window for other in instants) for first in instants), default=0)


async def at_rest(runs: Any) -> None:
    """Return once all runs have ended; by then none holds a slot, stands in line, or is due: nothing has leaked."""

    async def all_have_ended() -> bool:
        ended = ["done", "failed", "cancelled", "compensated", "compensation_failed"]
        return not await runs.count_documents({"status": {"$nin": ended}})

    await eventually(all_have_ended)
    left = {"$or": [{name: {"$exists": True}} for name in ("slot", "queued_at", "due_at", "lease", "debounce_key")]}
    assert not await runs.count_documents(left)
