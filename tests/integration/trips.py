"""A workflow of the tests: a trip whose bookings can be undone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from streamline import Context, RetryPolicy, Workflow
from tests.clocks import MovableClock

HOUR = timedelta(hours=1)


class Hold(BaseModel):
    room: int


class Trip:
    """Two steps that can be undone, and a third that does not go well."""

    def __init__(self, **options: Any) -> None:
        self.log: list[Any] = []
        self.fails = True
        self.undo_hotel: Any = None
        self.undo_flight: Any = None
        self.last: Any = None
        self.workflow: Workflow[Any, Any, Any] = Workflow("trip", **options)
        self._declare()

    def _declare(self) -> None:
        wf = self.workflow

        @wf.step
        async def hotel(ctx: Context[Any]) -> Hold:
            self.log.append("hotel")
            return Hold(room=7)

        @hotel.compensate(retry=RetryPolicy(max_attempts=3, delay=0.01))
        async def cancel_hotel(ctx: Context[Any], hold: Hold) -> None:
            self.log.append(("undo hotel", hold, ctx.attempt))
            if self.undo_hotel is not None:
                await self.undo_hotel(ctx)

        @wf.step
        def flight(ctx: Context[Any]) -> str:
            self.log.append("flight")
            return "seat 3"

        @flight.compensate(max_attempts=1)
        async def cancel_flight(ctx: Context[Any], seat: str) -> None:
            self.log.append(("undo flight", seat, ctx.attempt))
            if self.undo_flight is not None:
                await self.undo_flight(ctx)

        @wf.step(max_attempts=1)
        async def pay(ctx: Context[Any]) -> str:
            self.log.append("pay")
            if self.last is not None:
                await self.last(ctx)
            if self.fails:
                raise ValueError("no money")
            return "paid"

        @pay.compensate
        async def refund(ctx: Context[Any], receipt: str) -> None:
            self.log.append(("undo pay", receipt, ctx.attempt))

    @property
    def undone(self) -> list[str]:
        return [entry[0] for entry in self.log if isinstance(entry, tuple)]


UNDONE = [("undo flight", "seat 3", 1), ("undo hotel", Hold(room=7), 1)]


def done_steps() -> dict[str, Any]:
    return {
        "steps.0.status": "done",
        "steps.0.output": {"room": 7},
        "steps.1.status": "done",
        "steps.1.output": "seat 3",
        "steps.2.status": "running",
        "cursor": 2,
    }


async def abandon(runs: Any, run_id: str, clock: MovableClock, recoveries: int, **put: Any) -> None:
    """Make a run look as if its worker had died in the middle of it."""
    at = clock.now() - HOUR
    lease = {"worker": "dead", "token": "dead", "at": at, "until": at + timedelta(seconds=30)}
    change = {"status": "running", "lease": lease, "attempt": 1, "recovery_count": recoveries, "started_at": at, **put}
    await runs.update_one({"_id": run_id}, {"$set": change, "$unset": {"due_at": ""}, "$inc": {"rev": 1}})
