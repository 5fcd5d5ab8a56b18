"""Starting runs: checked and encoded, then inserted, already claimed where this process has room."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from weakref import WeakValueDictionary

from streamline.domain.definition import Definition
from streamline.domain.gates import gate_of
from streamline.domain.names import check_new_run_id
from streamline.domain.payloads import ANY
from streamline.domain.transitions import operating
from streamline.domain.transitions.birth import Order
from streamline.domain.transitions.jumping import forked
from streamline.engine.gates.debouncing import Debouncing
from streamline.engine.gates.entry import Entrance, Entry
from streamline.engine.gates.throttles import Throttles
from streamline.engine.runtime import Runtime
from streamline.engine.starting.inserting import Inserting
from streamline.engine.starting.ordering import StartOptions, deadline_of, due_at_of, order_of
from streamline.engine.starting.session_starting import Reader, SessionStarting
from streamline.engine.working.worker import ActiveWorker
from streamline.errors import (
    ConcurrencyLimitReached,
    IdempotencyConflict,
    InvalidInput,
    InvalidKey,
    StoreUnavailable,
    VersionMismatch,
)
from streamline.ids import new_run_id
from streamline.store import Scope, statements
from streamline.store.compile import as_stored
from streamline.store.operations import Inserted
from streamline.telemetry import Section, carried, starting

_RACES = 100
_SETTLED_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Started:
    """What a start came to: the run's id, and whether this start created it."""

    run_id: str
    created: bool


class Starter:
    """Starts runs."""

    def __init__(self, runtime: Runtime, worker: ActiveWorker | None) -> None:
        self._runtime = runtime
        self._inserting = Inserting(runtime, worker)
        throttles = Throttles(runtime) if worker is None else worker.throttles
        self._entrance = Entrance(runtime, throttles)
        self._debouncing = Debouncing(runtime)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._in_session = SessionStarting(runtime, self._winner_id)

    async def start(
        self,
        definition: Definition,
        value: Any,
        options: StartOptions,
        scope: Scope,
        *,
        origin: Mapping[str, str] | None = None,
        **born: Any,
    ) -> Started:
        """Start a run, or find the active one that holds the same idempotency key.

        Args:
            definition: Its workflow.
            value: Its input.
            options: What the caller asks for.
            scope: Whose run it is.
            origin: The trace of what starts it; default the present one.
            born: What else of the `Order` it begins with; an idempotency key where there is none otherwise.

        Raises:
            InvalidInput, SerializationError, PayloadTooLarge, InvalidKey, InvalidPolicy: Something of the start is not
                of the allowed form; nothing is stored.
            IdempotencyConflict: A run with the chosen id exists, or the key is kept, and was used with another input.
            ConcurrencyLimitReached: Every slot is taken, and the workflow says that such a run is refused.
        """
        with starting(definition.name, definition.version, scope.tenant_id, origin=origin) as section:
            order = order_of(self._runtime, definition, value, options, scope)
            if born:
                born["idempotency_key"] = order.idempotency_key or born.get("idempotency_key")
                order = replace(order, **born)
            due_at = due_at_of(self._runtime, options)
            if (session := options.get("session")) is not None:
                return _told(section, (await self._start_in(session, [order], due_at))[0])
            return _told(section, await self._start(order, due_at))

    async def _start_in(self, session: Any, orders: Sequence[Order], due_at: datetime | None) -> list[Started]:
        winners = await self._in_session.start(orders, due_at, session)
        ids = [order.run_id for order in orders]
        return [Started(winners.get(run_id, run_id), created=run_id not in winners) for run_id in ids]

    async def close(self) -> None:
        """Look no longer after transactions that runs were started in."""
        await self._in_session.close()

    async def start_scheduled(
        self,
        definition: Definition,
        value: Any,
        schedule_id: str,
        scheduled_at: datetime,
        run_id: str,
        options: StartOptions,
        scope: Scope,
    ) -> Started:
        """Start the run of an occurrence of a schedule, under an id that is the schedule's own; as `start`."""
        with starting(definition.name, definition.version, scope.tenant_id) as section:
            order = order_of(self._runtime, definition, value, options, scope)
            order = replace(order, run_id=run_id, schedule_id=schedule_id, scheduled_at=scheduled_at)
            return _told(section, await self._start(order, due_at_of(self._runtime, options)))

    async def _start(self, order: Order, due_at: datetime | None) -> Started:
        if not order.gate or order.idempotency_key is None:
            return await self._start_alone(order, due_at)
        lock = self._locks.setdefault(
            f"{order.definition.name}/{order.tenant_id}/{order.idempotency_key}", asyncio.Lock()
        )
        async with lock:
            # Who comes second must not cost a place, nor put a draft off: those of one process take turns.
            return await self._winner(order) or await self._start_alone(order, due_at)

    async def _start_alone(self, order: Order, due_at: datetime | None) -> Started:
        entry: Entry | None = None
        for _ in range(_RACES):
            try:
                run_id, outcome, entry = await self._enter(order, due_at, entry)
            except ConcurrencyLimitReached:
                # Whoever has the last slot may have begun under the same key.
                if order.idempotency_key is None or (winner := await self._winner(order)) is None:
                    raise
                return winner
            if outcome in ("inserted", None):
                return Started(run_id, created=outcome is not None)
            if outcome == "id_taken":
                raise IdempotencyConflict("run_id: a run with this id exists", field="run_id")
            if outcome == "key_taken":
                await self._entrance.leave(order, entry)
                entry = None
                if (winner := await self._winner(order)) is not None:
                    return winner
        raise StoreUnavailable("the idempotency key, or the slot, changed hands too often")

    async def _enter(
        self, order: Order, due_at: datetime | None, earlier: Entry | None
    ) -> tuple[str, Inserted | None, Entry | None]:
        """Store the run, as its gates let it.

        Returns:
            Its id, or an older draft's; what the insert came to; and how the gates let it in.
        """
        if "debounce_key" in order.gate:
            return *(await self._debouncing.start(order, due_at)), None
        if not order.gate or due_at is not None:
            return order.run_id, await self._inserting.insert(order, due_at), None
        has_place = self._inserting.reserve(order)
        try:
            entry = await self._entrance.enter(order, may_begin=has_place, earlier=earlier)
        except BaseException:
            self._inserting.unreserve(has_place)
            raise
        if not entry.begins:
            self._inserting.unreserve(has_place)
        elif not has_place:
            entry = replace(entry, begins=False)  # there was one a moment ago
        return order.run_id, await self._inserting.insert_entry(order, entry), entry

    async def fork(self, run_id: str, from_step: str, state: Any, new_id: str | None, scope: Scope) -> Started:
        """Start a new run that goes on from a step of an old one."""
        run = await self._runtime.read(run_id, scope)
        definition = self._runtime.registry.serving(run["workflow"], run["version"])
        if definition is None:
            raise VersionMismatch(f"{run['route']} is not registered in this process", field="version")
        with starting(definition.name, definition.version, run.get("tenant_id")) as section:
            return _told(section, await self._fork(run, definition, from_step, state, new_id))

    async def _fork(
        self, run: dict[str, Any], definition: Definition, from_step: str, state: Any, new_id: str | None
    ) -> Started:
        now = self._runtime.clock.now()
        order = Order(
            run_id=new_run_id() if new_id is None else check_new_run_id(new_id),
            definition=definition,
            input=run["input"],
            weight=run.get("size", 0),
            priority=run["priority"],
            tenant_id=run.get("tenant_id"),
            tags=tuple(run.get("tags", ())),
            metadata=run.get("metadata"),
            deadline_at=deadline_of(None, definition.run_timeout, now),
            gate=gate_of(definition, run["input"], run.get("tenant_id")),
            chain=run.get("chain", 0),
            trace=carried(),
        )
        newborn = (await self._entrance.newborns([order], None))[0]
        if state is not None:
            encoded = (definition.state or ANY).encode(state, "state", refuse=InvalidInput)
            newborn |= {"state": encoded.value, "state_size": encoded.size}
        elif "state" in run:
            newborn |= {"state": run["state"], "state_size": run.get("state_size", 0)}
        fresh = forked(run, newborn, from_step)
        if await self._runtime.store.run(self._inserting.statement(order, fresh)) != "inserted":
            raise IdempotencyConflict("new_run_id: a run with this id exists", field="new_run_id")
        self._follow_newborns([fresh])
        return Started(order.run_id, created=True)

    async def start_many(
        self, definition: Definition, values: Sequence[Any], options: StartOptions, scope: Scope
    ) -> list[Started]:
        """Start one queued run per input, all checked before the first is stored."""
        if isinstance(values, str) or not isinstance(values, Sequence):
            raise InvalidInput("inputs: a sequence of inputs", field="inputs")
        if options.get("run_id") is not None and len(values) != 1:
            raise InvalidKey("run_id: one id cannot be that of several runs", field="run_id")
        with starting(definition.name, definition.version, scope.tenant_id, count=len(values)):
            return await self._start_many(definition, values, options, scope)

    async def _start_many(
        self, definition: Definition, values: Sequence[Any], options: StartOptions, scope: Scope
    ) -> list[Started]:
        orders = [order_of(self._runtime, definition, value, options, scope) for value in values]
        due_at = due_at_of(self._runtime, options)
        if (session := options.get("session")) is not None:
            return await self._start_in(session, orders, due_at)
        if definition.debounce is not None or any(self._entrance.is_refusing(order) for order in orders[:1]):
            if due_at is None and definition.debounce is None:
                await self._entrance.check_room([order for order in orders if not await self._is_started(order)])
            return [await self._start(order, due_at) for order in orders]
        newborns = await self._entrance.newborns(orders, due_at)
        inserts = [self._inserting.statement(order, run) for order, run in zip(orders, newborns, strict=True)]
        outcomes = await asyncio.shield(asyncio.ensure_future(self._runtime.store.insert_many(inserts)))
        self._follow_newborns([run for run, done in zip(newborns, outcomes, strict=True) if done == "inserted"])
        stored, settled = list(zip(orders, newborns, outcomes, strict=True)), list[Started]()
        for at in range(0, len(stored), _SETTLED_AT_ONCE):
            part = stored[at : at + _SETTLED_AT_ONCE]
            settled += await asyncio.gather(
                *(self._settled(order, due_at, run, outcome) for order, run, outcome in part)
            )
        return settled

    def _follow_newborns(self, runs: Sequence[dict[str, Any]]) -> None:
        """Tell of runs that were stored."""
        for run in runs:
            self._runtime.newborn(run)
        self._runtime.announce_newborns(runs)

    async def _is_started(self, order: Order) -> bool:
        return order.idempotency_key is not None and await self._winner(order) is not None

    async def _winner_id(self, order: Order, find: Reader) -> str | None:
        winner = await self._winner(order, find)
        return None if winner is None else winner.run_id

    async def _winner(self, order: Order, find: Reader | None = None) -> Started | None:
        """Return the run that holds the order's idempotency key, as the store sees it, or whoever `find` asks.

        Raises:
            IdempotencyConflict: The key is kept, and was first used with another input.
        """
        assert order.idempotency_key is not None
        place = (order.tenant_id, order.definition.name, order.idempotency_key)
        find = find or self._runtime.store.run
        found = await find(statements.find_keeper(*place)) if order.is_kept else []
        if not found:
            found = await find(statements.find_winner(*place))
        if not found:
            return None
        if order.is_kept and found[0]["input"] != as_stored(order.input):
            raise IdempotencyConflict("idempotency_key: it was used with another input", field="idempotency_key")
        if order.is_kept and "rev" in found[0] and "kept_key" not in found[0]:
            # It was started for as long as it is active; from now on it keeps the key.
            change = operating.keep_key(found[0], self._runtime.clock.now())
            with suppress(IdempotencyConflict):  # another run was made to keep it
                if await self._runtime.commit(found[0], change):
                    return Started(found[0]["_id"], created=False)
            return await self._winner(order, find)
        return Started(found[0]["_id"], created=False)

    async def _settled(
        self, order: Order, due_at: datetime | None, newborn: Mapping[str, Any], outcome: Inserted
    ) -> Started:
        if outcome == "inserted":
            return Started(order.run_id, created=True)
        await self._entrance.leave(order, Entry(due_at=newborn.get("due_at")) if due_at is None else None)
        return await self._start(order, due_at)


def _told(section: Section, started: Started) -> Started:
    section.tell("run_id", started.run_id)
    section.tell("created", started.created)
    return started
