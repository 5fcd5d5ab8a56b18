"""Starting runs in a caller's session: they are there once its transaction is committed, or never were."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from streamline.domain.transitions.birth import Order, queued
from streamline.engine.runtime import Runtime
from streamline.engine.starting.awaiting_commits import AwaitingCommits
from streamline.errors import IdempotencyConflict, InvalidPolicy, StoreUnavailable
from streamline.store.lanes import fitting
from streamline.store.operations import Document, Find, Insert, Inserted
from streamline.store.sessions import InSession, check_session

Reader = Callable[[Find], Awaitable[list[Document]]]
Winner = Callable[[Order, Reader], Awaitable[str | None]]

_RACES = 100
_INSERTS_IN_A_COMMAND = 500


class SessionStarting:
    """Starts runs in sessions that callers bring.

    Args:
        runtime: The app's parts.
        winner: Finds the run that holds an order's idempotency key, as a reader sees it.
    """

    def __init__(self, runtime: Runtime, winner: Winner) -> None:
        self._runtime = runtime
        self._winner = winner
        self._awaiting = AwaitingCommits(runtime)

    async def start(self, orders: Sequence[Order], due_at: datetime | None, session: object) -> dict[str, str]:
        """Start runs, none of them claimed at birth: nobody could drive what is not committed.

        Args:
            orders: What is to be started; those without an idempotency key share commands.
            due_at: When they fall due; None for at once.
            session: The driver's session.

        Returns:
            The ids of active runs that hold the keys of some, by the ids of those that were not started therefore.

        Raises:
            PyMongoError: The transaction is over, and may succeed when it is tried again.
            InvalidPolicy: The session is not of the app's client, or the workflow is debounced.
            UnsafeDeployment: The server has no transactions.
            IdempotencyConflict: The chosen id, or the key, is another run's; a transaction is over with that.
        """
        work = check_session(self._runtime.store, session)
        if any("debounce_key" in order.gate for order in orders):
            raise InvalidPolicy("session: not for a debounced workflow, whose draft others change", field="session")
        keyed = {order.run_id: await self._start_keyed(work, order, due_at) for order in orders if _has_key(order)}
        rest = [order for order in orders if not _has_key(order)]
        inserts = [self._statement(order, due_at) for order in rest]
        while inserts:
            count = fitting(inserts, min(len(inserts), _INSERTS_IN_A_COMMAND))
            await self._insert(work, inserts[:count])
            del inserts[:count]
        return {run_id: winner for run_id, winner in keyed.items() if winner is not None}

    async def close(self) -> None:
        """Look after sessions no longer."""
        await self._awaiting.close()

    async def _start_keyed(self, work: InSession, order: Order, due_at: datetime | None) -> str | None:
        """Start a run, and return None, or return the id of the active one that holds its key."""
        for _ in range(_RACES):
            reader = work.find if work.in_transaction else self._runtime.store.run
            if (winner := await self._winner(order, reader)) is not None:
                return winner
            if await self._insert(work, [self._statement(order, due_at)]):
                return None
        raise StoreUnavailable("the idempotency key changed hands too often")

    async def _insert(self, work: InSession, inserts: Sequence[Insert]) -> bool:
        """Insert runs; return whether they are there, False where a key is taken and may be looked up."""
        outcomes = await work.insert(inserts)
        if "id_taken" in outcomes:
            raise IdempotencyConflict("run_id: a run with this id exists", field="run_id")
        taken = any(outcome != "inserted" for outcome in outcomes)
        if taken and work.in_transaction:
            raise IdempotencyConflict("the idempotency key is held by another active run", field="idempotency_key")
        self._awaiting.add(work, [i for i, outcome in zip(inserts, outcomes, strict=True) if _is_in(outcome)])
        return not taken

    def _statement(self, order: Order, due_at: datetime | None) -> Insert:
        now = self._runtime.clock.now()
        return self._runtime.insertion(queued(order, now, due_at or now), order.weight)


def _has_key(order: Order) -> bool:
    return order.idempotency_key is not None


def _is_in(outcome: Inserted) -> bool:
    return outcome == "inserted"
