"""Starting runs: checked and encoded, then inserted, already claimed where this process has room."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict

from streamline.domain.definition import Definition
from streamline.domain.durations import Duration, check_instant, parse_duration
from streamline.domain.gates import gate_of
from streamline.domain.names import check_key, check_metadata, check_run_id, check_tags
from streamline.domain.payloads import ANY, NO_VALUE, Encoded, check_input
from streamline.domain.transitions.birth import Order, claimed, in_line, queued
from streamline.domain.transitions.jumping import forked
from streamline.engine.gates.debouncing import Debouncing
from streamline.engine.gates.entry import Entrance, Entry
from streamline.engine.gates.throttles import Throttles
from streamline.engine.limits import check_payload
from streamline.engine.runtime import Runtime
from streamline.engine.session_starting import Reader, SessionStarting
from streamline.engine.worker import ActiveWorker
from streamline.errors import (
    IdempotencyConflict,
    InvalidInput,
    InvalidKey,
    InvalidPolicy,
    StoreUnavailable,
    VersionMismatch,
)
from streamline.ids import new_run_id
from streamline.store import Scope, statements
from streamline.store.compile import as_stored
from streamline.store.operations import Insert, Inserted

Answer = asyncio.Future[Inserted]

_RACES = 100
PRIORITY_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Started:
    """What a start came to: the run's id, and whether this start created it."""

    run_id: str
    created: bool


class StartRules(TypedDict, total=False):
    """How a run is to be started, beside its workflow, input and limit of time; see `Streamline.start`."""

    idempotency_key: str | None
    idempotency: Literal["active", "forever"]
    start_by: Duration | datetime | None
    priority: int
    delay: Duration | None
    run_at: datetime | None
    tags: Sequence[str]
    metadata: Mapping[str, Any] | None
    run_id: str | None


class StartOptions(StartRules, total=False):
    """How a run is to be started, beside its workflow and input; see `Streamline.start`."""

    timeout: Duration | None
    session: Any


class Starter:
    """Starts runs."""

    def __init__(self, runtime: Runtime, worker: ActiveWorker | None) -> None:
        self._runtime = runtime
        self._worker = worker
        throttles = Throttles(runtime) if worker is None else worker.throttles
        self._entrance = Entrance(runtime, throttles)
        self._debouncing = Debouncing(runtime)
        self._in_session = SessionStarting(runtime, self._winner_id)

    async def start(self, definition: Definition, value: Any, options: StartOptions, scope: Scope) -> Started:
        """Start a run, or find the active one that holds the same idempotency key.

        Raises:
            InvalidInput, SerializationError, PayloadTooLarge, InvalidKey, InvalidPolicy: Something of the start is not
                of the allowed form; nothing is stored.
            IdempotencyConflict: A run with the chosen id exists.
        """
        order = self._order(definition, value, options, scope)
        if (session := options.get("session")) is not None:
            return (await self._start_in(session, [order], self._due_at(options)))[0]
        return await self._start(order, self._due_at(options))

    async def _start_in(self, session: Any, orders: Sequence[Order], due_at: datetime | None) -> list[Started]:
        winners = await self._in_session.start(orders, due_at, session)
        ids = [order.run_id for order in orders]
        return [Started(winners.get(run_id, run_id), created=run_id not in winners) for run_id in ids]

    async def close(self) -> None:
        """Look no longer after transactions that runs were started in."""
        await self._in_session.close()

    async def _start(self, order: Order, due_at: datetime | None) -> Started:
        if order.gate and order.idempotency_key is not None and (winner := await self._winner(order)) is not None:
            # It must not cost a place, nor put a draft off.
            return winner
        for _ in range(_RACES):
            run_id, outcome = await self._enter(order, due_at)
            if outcome in ("inserted", None):
                return Started(run_id, created=outcome is not None)
            if outcome == "id_taken":
                raise IdempotencyConflict("run_id: a run with this id exists", field="run_id")
            if outcome == "key_taken" and (winner := await self._winner(order)) is not None:
                return winner
        raise StoreUnavailable("the idempotency key, or the slot, changed hands too often")

    async def _enter(self, order: Order, due_at: datetime | None) -> tuple[str, Inserted | None]:
        """Store the run, as its gates let it; return its id, or an older draft's, and what the insert came to."""
        if "debounce_key" in order.gate:
            return await self._debouncing.start(order, due_at or self._runtime.clock.now())
        if not order.gate or due_at is not None:
            return order.run_id, await self._insert(order, due_at)
        is_kept = self._reserve(order)
        try:
            entry = await self._entrance.enter(order, may_begin=is_kept)
        except BaseException:
            self._unreserve(is_kept)
            raise
        if not entry.begins:
            self._unreserve(is_kept)
        return order.run_id, await self._insert_entry(order, entry)

    async def fork(self, run_id: str, from_step: str, state: Any, new_id: str | None, scope: Scope) -> Started:
        """Start a new run that goes on from a step of an old one."""
        run = await self._runtime.read(run_id, scope)
        definition = self._runtime.registry.serving(run["workflow"], run["version"])
        if definition is None:
            raise VersionMismatch(f"{run['route']} is not registered in this process", field="version")
        now = self._runtime.clock.now()
        order = Order(
            run_id=new_run_id() if new_id is None else check_run_id(new_id),
            definition=definition,
            input=run["input"],
            weight=run.get("size", 0),
            priority=run["priority"],
            tenant_id=run.get("tenant_id"),
            tags=tuple(run.get("tags", ())),
            metadata=run.get("metadata"),
            deadline_at=_deadline(None, definition.run_timeout, now),
            gate=gate_of(definition, run["input"], run.get("tenant_id")),
        )
        newborn = (await self._entrance.newborns([order], None))[0]
        if state is not None:
            encoded = (definition.state or ANY).encode(state, "state", refuse=InvalidInput)
            newborn |= {"state": encoded.value, "state_size": encoded.size}
        elif "state" in run:
            newborn |= {"state": run["state"], "state_size": run.get("state_size", 0)}
        fresh = forked(run, newborn, from_step)
        if await self._runtime.store.run(self._statement(order, fresh)) != "inserted":
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
        orders = [self._order(definition, value, options, scope) for value in values]
        due_at = self._due_at(options)
        if (session := options.get("session")) is not None:
            return await self._start_in(session, orders, due_at)
        if definition.debounce is not None or any(self._entrance.is_refusing(order) for order in orders[:1]):
            return [await self._start(order, due_at) for order in orders]
        newborns = await self._entrance.newborns(orders, due_at)
        inserts = [self._statement(order, run) for order, run in zip(orders, newborns, strict=True)]
        outcomes = await asyncio.shield(asyncio.ensure_future(self._runtime.store.insert_many(inserts)))
        self._follow_newborns([run for run, done in zip(newborns, outcomes, strict=True) if done == "inserted"])
        return [await self._settled(order, due_at, outcome) for order, outcome in zip(orders, outcomes, strict=True)]

    def _follow_newborns(self, runs: Sequence[dict[str, Any]]) -> None:
        """Tell of runs that were stored."""
        for run in runs:
            self._runtime.bus.publish(run["_id"], tuple(run["events"]))
        for route in {run["route"] for run in runs}:
            dues = [run["due_at"] for run in runs if run["route"] == route and "due_at" in run]
            self._runtime.announce(route, min(dues, default=None))
        for slot_key in {run["slot_key"] for run in runs if "queued_at" in run}:
            self._runtime.freed(slot_key)

    def _order(self, definition: Definition, value: Any, options: StartOptions, scope: Scope) -> Order:
        encoded = check_input(definition.input, value)
        check_payload(self._runtime, definition.max_payload_bytes, encoded, "input")
        if unknown := set(options) - StartOptions.__annotations__.keys():
            raise TypeError(f"start() got unexpected keyword arguments: {', '.join(sorted(unknown))}")
        if options.get("idempotency", "active") not in ("active", "forever"):
            raise InvalidKey('idempotency: "active" or "forever"', field="idempotency")
        key, run_id = options.get("idempotency_key"), options.get("run_id")
        if key is None and definition.idempotency_key is not None:
            key = _derived_key(definition.idempotency_key, definition.input.decode(encoded.value))
        if key is None and options.get("idempotency") == "forever":
            raise InvalidKey('idempotency_key: "forever" needs one', field="idempotency_key")
        metadata = self._metadata(definition, options.get("metadata"))
        begins = self._due_at(options) or self._runtime.clock.now()
        return Order(
            run_id=new_run_id() if run_id is None else check_run_id(run_id),
            definition=definition,
            input=encoded.value,
            weight=encoded.size + metadata.size,
            priority=_checked_priority(options.get("priority", 0)),
            tenant_id=scope.tenant_id,
            idempotency_key=None if key is None else check_key(key, "idempotency_key"),
            is_kept=options.get("idempotency") == "forever",
            gate=gate_of(definition, encoded.value, scope.tenant_id),
            tags=tuple(check_tags(options.get("tags", ()))),
            metadata=metadata.value,
            start_by=_checked_start_by(options.get("start_by") or definition.start_by, begins),
            deadline_at=_deadline(options.get("timeout"), definition.run_timeout, begins),
        )

    def _metadata(self, definition: Definition, metadata: Mapping[str, Any] | None) -> Encoded:
        if metadata is None:
            return NO_VALUE
        encoded = ANY.encode(check_metadata(metadata), "metadata")
        check_payload(self._runtime, definition.max_payload_bytes, encoded, "metadata")
        return encoded

    def _due_at(self, options: StartOptions) -> datetime | None:
        """Return when the run falls due, or None for at once."""
        delay, run_at = options.get("delay"), options.get("run_at")
        if delay is not None and run_at is not None:
            raise InvalidPolicy("delay, run_at: give one of them", field="run_at")
        run_at = None if run_at is None else check_instant(run_at, "run_at")
        at = run_at if delay is None else self._runtime.clock.now() + parse_duration(delay, "delay")
        return None if at is None or at <= self._runtime.clock.now() else at

    async def _insert(self, order: Order, due_at: datetime | None) -> Inserted:
        """Insert the run; what follows from its being stored is done even where the caller is cancelled meanwhile."""
        now = self._runtime.clock.now()
        if due_at is None and self._reserve(order):
            return await self._insert_claimed(order, now, None)
        return await self._insert_queued(order, queued(order, now, due_at or now))

    async def _insert_entry(self, order: Order, entry: Entry) -> Inserted:
        now = self._runtime.clock.now()
        if entry.begins:
            return await self._insert_claimed(order, entry.due_at or now, entry.slot)
        if entry.due_at is not None:
            return await self._insert_queued(order, queued(order, now, entry.due_at, entry.slot))
        outcome = await self._insert_queued(order, in_line(order, now))
        # Whoever gave a slot back meanwhile may not have seen this run in line.
        self._runtime.freed(order.gate["slot_key"])
        return outcome

    async def _insert_claimed(self, order: Order, now: datetime, slot: int | None) -> Inserted:
        worker = self._worker
        assert worker is not None, "a place was reserved"
        run = claimed(order, now, worker.claimer.new_lease(now), slot)
        return await self._submit(order, run, self._follow_claimed(worker, run, self._runtime.clock.monotonic()))

    async def _insert_queued(self, order: Order, run: dict[str, Any]) -> Inserted:
        return await self._submit(order, run, self._follow_queued(run))

    async def _submit(self, order: Order, run: dict[str, Any], follow: Callable[[Answer], None]) -> Inserted:
        stored = self._runtime.store.submit(self._statement(order, run))
        stored.add_done_callback(follow)
        return await asyncio.shield(stored)

    def _reserve(self, order: Order) -> bool:
        """Keep a place for a run that this process drives from birth, if it can."""
        is_held_up = self._runtime.is_held_up(order.definition.name)
        return self._worker is not None and not is_held_up and self._serves(order) and self._worker.reserve()

    def _unreserve(self, is_kept: bool) -> None:
        if is_kept and self._worker is not None:
            self._worker.crew.unreserve(1)

    def _follow_claimed(self, worker: ActiveWorker, run: dict[str, Any], sent: float) -> Callable[[Answer], None]:
        def follow(stored: Answer) -> None:
            worker.crew.unreserve(1)
            if _is_inserted(stored):
                worker.crew.take(run, sent + worker.settings.lease_seconds, tell=False)
                self._runtime.bus.publish(run["_id"], tuple(run["events"]))

        return follow

    def _follow_queued(self, run: dict[str, Any]) -> Callable[[Answer], None]:
        def follow(stored: Answer) -> None:
            if _is_inserted(stored):
                self._runtime.announce(run["route"], run.get("due_at"))
                self._runtime.bus.publish(run["_id"], tuple(run["events"]))

        return follow

    def _statement(self, order: Order, run: dict[str, Any]) -> Insert:
        return statements.insert_run(run, self._runtime.store.new_mark(), order.weight)

    def _serves(self, order: Order) -> bool:
        return order.definition.route in self._runtime.registry.routes

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
        found = await find(statements.find_winner(*place))
        if not found and order.is_kept:
            found = await find(statements.find_keeper(*place))
        if not found:
            return None
        if order.is_kept and found[0]["input"] != as_stored(order.input):
            raise IdempotencyConflict("idempotency_key: it was used with another input", field="idempotency_key")
        return Started(found[0]["_id"], created=False)

    async def _settled(self, order: Order, due_at: datetime | None, outcome: Inserted) -> Started:
        if outcome == "inserted":
            return Started(order.run_id, created=True)
        return await self._start(order, due_at)


def _checked_priority(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > PRIORITY_MAX:
        raise InvalidKey(f"priority: a whole number from -{PRIORITY_MAX} to {PRIORITY_MAX}", field="priority")
    return value


def _checked_start_by(limit: Duration | datetime | None, begins: datetime) -> datetime | None:
    """Return the instant by which a run must have begun: as given, or so long after it may."""
    if limit is None:
        return None
    instant = (
        check_instant(limit, "start_by") if isinstance(limit, datetime) else begins + parse_duration(limit, "start_by")
    )
    if instant < begins:
        raise InvalidPolicy("start_by: not before the run may begin", field="start_by")
    return instant


def _deadline(timeout: Duration | None, default: timedelta | None, begins: datetime) -> datetime | None:
    allowed = default if timeout is None else parse_duration(timeout, "timeout", positive=True)
    return None if allowed is None else begins + allowed


def _is_inserted(stored: Answer) -> bool:
    return not stored.cancelled() and stored.exception() is None and stored.result() == "inserted"


def _derived_key(derive: Callable[[Any], str | None], value: Any) -> str | None:
    try:
        return derive(value)
    except Exception as error:
        raise InvalidKey(
            f"idempotency_key: its function raised {type(error).__name__}", field="idempotency_key"
        ) from error
