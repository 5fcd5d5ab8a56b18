"""Starting runs: checked and encoded, then inserted, already claimed where this process has room."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from streamline.domain.definition import Definition
from streamline.domain.names import check_key, check_metadata, check_run_id, check_tags
from streamline.domain.payloads import ANY, check_input
from streamline.domain.transitions.birth import Order, claimed, queued
from streamline.engine.limits import check_payload
from streamline.engine.runtime import Runtime
from streamline.engine.worker import ActiveWorker
from streamline.errors import IdempotencyConflict, InvalidKey, InvalidPolicy, StoreUnavailable
from streamline.ids import new_run_id
from streamline.store import Scope, statements
from streamline.store.operations import Insert, Inserted

Answer = asyncio.Future[Inserted]

_RACES = 100
PRIORITY_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Started:
    """What a start came to: the run's id, and whether this start created it."""

    run_id: str
    created: bool


@dataclass(frozen=True, slots=True)
class Wish:
    """How a run is to be started, as the caller said it."""

    idempotency_key: str | None = None
    priority: int = 0
    delay: timedelta | None = None
    run_at: datetime | None = None
    tags: Sequence[str] = ()
    metadata: Mapping[str, Any] | None = None
    run_id: str | None = None


class Starter:
    """Starts runs."""

    def __init__(self, runtime: Runtime, worker: ActiveWorker | None) -> None:
        self._runtime = runtime
        self._worker = worker

    async def start(self, definition: Definition, value: Any, wish: Wish, scope: Scope) -> Started:
        """Start a run, or find the active one that holds the same idempotency key.

        Raises:
            InvalidInput, SerializationError, PayloadTooLarge, InvalidKey, InvalidPolicy: Something of the start is not
                of the allowed form; nothing is stored.
            IdempotencyConflict: A run with the chosen id exists.
        """
        order = self._order(definition, value, wish, scope)
        due_at = self._due_at(wish)
        for _ in range(_RACES):
            outcome = await self._insert(order, due_at)
            if outcome == "inserted":
                return Started(order.run_id, created=True)
            if outcome == "id_taken":
                raise IdempotencyConflict("run_id: a run with this id exists", field="run_id")
            if (winner := await self._winner(order)) is not None:
                return Started(winner, created=False)
        raise StoreUnavailable("the idempotency key changed hands too often")

    async def start_many(
        self, definition: Definition, values: Sequence[Any], wish: Wish, scope: Scope
    ) -> list[Started]:
        """Start one queued run per input, all checked before the first is stored."""
        orders = [self._order(definition, value, wish, scope) for value in values]
        now, due_at = self._runtime.clock.now(), self._due_at(wish)
        inserts = [self._statement(order, queued(order, now, due_at or now)) for order in orders]
        outcomes = await asyncio.shield(asyncio.ensure_future(self._runtime.store.insert_many(inserts)))
        self._announce(definition.route, due_at or now)
        return [await self._settled(order, outcome) for order, outcome in zip(orders, outcomes, strict=True)]

    def _order(self, definition: Definition, value: Any, wish: Wish, scope: Scope) -> Order:
        encoded = check_input(definition.input, value)
        check_payload(self._runtime, definition.max_payload_bytes, encoded, "input")
        key = wish.idempotency_key
        if key is None and definition.idempotency_key is not None:
            key = definition.idempotency_key(definition.input.decode(encoded.value))
        metadata = ANY.encode(check_metadata(wish.metadata or {}), "metadata")
        check_payload(self._runtime, definition.max_payload_bytes, metadata, "metadata")
        return Order(
            run_id=new_run_id() if wish.run_id is None else check_run_id(wish.run_id),
            definition=definition,
            input=encoded.value,
            weight=encoded.size + metadata.size,
            priority=_checked_priority(wish.priority),
            tenant_id=scope.tenant_id,
            idempotency_key=None if key is None else check_key(key, "idempotency_key"),
            tags=tuple(check_tags(wish.tags)),
            metadata=metadata.value,
        )

    def _due_at(self, wish: Wish) -> datetime | None:
        """Return when the run falls due, or None for at once."""
        if wish.delay is not None and wish.run_at is not None:
            raise InvalidPolicy("delay, run_at: give one of them", field="run_at")
        if wish.run_at is not None and (not isinstance(wish.run_at, datetime) or wish.run_at.tzinfo is None):
            raise InvalidPolicy("run_at: an aware datetime", field="run_at")
        at = self._runtime.clock.now() + wish.delay if wish.delay is not None else wish.run_at
        return None if at is None or at <= self._runtime.clock.now() else at

    async def _insert(self, order: Order, due_at: datetime | None) -> Inserted:
        """Insert the run; what follows from its being stored is done even where the caller is cancelled meanwhile."""
        now = self._runtime.clock.now()
        worker = self._worker
        if due_at is None and worker is not None and self._serves(order) and worker.reserve():
            run = claimed(order, now, worker.claimer.new_lease(now))
            follow = self._follow_claimed(worker, run, self._runtime.clock.monotonic())
        else:
            run = queued(order, now, due_at or now)
            follow = self._follow_queued(run)
        stored = self._runtime.store.submit(self._statement(order, run))
        stored.add_done_callback(follow)
        return await asyncio.shield(stored)

    def _follow_claimed(self, worker: ActiveWorker, run: dict[str, Any], sent: float) -> Callable[[Answer], None]:
        def follow(stored: Answer) -> None:
            worker.crew.unreserve()
            if _is_inserted(stored):
                worker.crew.take(run, worker.settings.lease_time.total_seconds(), sent)
                self._runtime.bus.publish(run["_id"], tuple(run["events"]))

        return follow

    def _follow_queued(self, run: dict[str, Any]) -> Callable[[Answer], None]:
        def follow(stored: Answer) -> None:
            if _is_inserted(stored):
                self._announce(run["route"], run["due_at"])
                self._runtime.bus.publish(run["_id"], tuple(run["events"]))

        return follow

    def _statement(self, order: Order, run: dict[str, Any]) -> Insert:
        return statements.insert_run(run, self._runtime.store.new_mark(), order.weight)

    def _announce(self, route: str, at: datetime) -> None:
        if self._worker is not None:
            self._worker.look_at(at)
        if self._runtime.wakes is not None:
            self._runtime.wakes.due(route, at)

    def _serves(self, order: Order) -> bool:
        return order.definition.route in self._runtime.registry.routes

    async def _winner(self, order: Order) -> str | None:
        assert order.idempotency_key is not None
        statement = statements.find_winner(order.tenant_id, order.definition.name, order.idempotency_key)
        found = await self._runtime.store.run(statement)
        return found[0]["_id"] if found else None

    async def _settled(self, order: Order, outcome: Inserted) -> Started:
        if outcome == "inserted":
            return Started(order.run_id, created=True)
        winner = await self._winner(order)
        if winner is None:
            raise IdempotencyConflict("idempotency_key: its run ended while this one was started", field="idempotency_key")
        return Started(winner, created=False)


def _checked_priority(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > PRIORITY_MAX:
        raise InvalidKey(f"priority: a whole number from -{PRIORITY_MAX} to {PRIORITY_MAX}", field="priority")
    return value


def _is_inserted(stored: Answer) -> bool:
    return not stored.cancelled() and stored.exception() is None and stored.result() == "inserted"
