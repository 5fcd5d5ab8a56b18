"""Sending events: to one run, to all that fit, or to those of a workflow, of which one is started if there is none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streamline.domain.definition import Definition
from streamline.domain.names import check_key, check_run_id
from streamline.domain.payloads import ANY, Encoded, codec_of, copied
from streamline.domain.statuses import TERMINAL
from streamline.engine.control import Control
from streamline.engine.events.inbox_delivery import Delivery
from streamline.engine.held.limits import check_payload
from streamline.engine.letters import letter, post
from streamline.engine.runtime import Runtime
from streamline.engine.starting.starter import Starter
from streamline.errors import AlreadyFinished, IdempotencyConflict, InvalidQuery, RunNotFound, StoreUnavailable
from streamline.ids import new_run_id
from streamline.store import Scope, statements
from streamline.store.matches import EVENT_ROOTS, checked_match
from streamline.telemetry import TELEMETRY

_RACES = 100
_ADDRESSED_MAX = 1000
# A run that looks into the inbox is compared with the filters of many events at once, in one command.
_MATCH_MAX = 256 * 1024


@dataclass(frozen=True, slots=True)
class Missing:
    """What is started where nobody is there to get an event; without an input the event's payload is the input."""

    definition: Definition
    input: Any = None
    has_input: bool = False


@dataclass(frozen=True, slots=True)
class _Sent:
    """An event on its way, and whom it is for: one run, or those in scope that fit."""

    name: str
    payload: Encoded
    scope: Scope
    run_id: str | None
    match: Mapping[str, Any] | None


class Sending:
    """Sends events."""

    def __init__(self, runtime: Runtime, control: Control, starter: Starter, delivery: Delivery) -> None:
        self._runtime = runtime
        self._control = control
        self._starter = starter
        self._delivery = delivery

    async def send(
        self, name: str, payload: Any, scope: Scope, *, run_id: str | None, match: object, missing: Missing | None
    ) -> int:
        """Send an event; return how many runs it has reached: waits that it answered, runs it cancelled or started."""
        check_key(name, "name")
        TELEMETRY.look()
        if run_id is not None and match is not None:
            raise InvalidQuery("run_id, match: give one of them", field="match")
        encoded = codec_of(payload).encode(payload, "payload")
        check_payload(self._runtime, None, encoded, "payload")
        if match is not None:
            scope.single()
        wanted = await self._checked(match)
        sent = _Sent(name, encoded, scope, run_id, wanted)
        if missing is not None:
            return await self._send_or_start(sent, missing)
        if run_id is not None:
            return await self._send_to(run_id, sent)
        await self._runtime.triggers.refresh()
        if not self._runtime.triggers.names_tenant(name, encoded.value):
            scope.single()
        event = letter(self._runtime, new_run_id(), name, encoded, scope.tenant_id, match=wanted)
        return await self._delivery.deliver(await post(self._runtime, event))

    async def _checked(self, match: object) -> Mapping[str, Any] | None:
        """Return a filter as it is stored, if the database can read it."""
        if match is None:
            return None
        encoded = ANY.encode(checked_match(match, EVENT_ROOTS), "match")
        if encoded.size > _MATCH_MAX:
            raise InvalidQuery(f"match: {encoded.size:,} bytes, of which {_MATCH_MAX:,} are allowed", field="match")
        stored: Mapping[str, Any] = encoded.value
        await self._runtime.store.run(statements.find_fitting("", stored))
        return stored

    async def _send_to(self, run_id: str, sent: _Sent) -> int:
        try:
            await self._control.deliver(run_id, sent.name, sent.payload, sent.scope)
        except AlreadyFinished:
            return 0
        return 1

    async def _send_or_start(self, sent: _Sent, missing: Missing) -> int:
        for _ in range(_RACES):
            found = await self._addressed(sent, missing.definition)
            reached = sum([await self._send_to(each, sent) for each in found])
            if reached:
                return reached
            started = await self._start(sent, missing)
            if started is None:
                return 1
            try:
                # Somebody else was first: the event is for the run that they have started.
                if await self._send_to(started, sent):
                    return 1
            except RunNotFound:
                if sent.run_id is not None:
                    raise IdempotencyConflict("run_id: a run with this id exists", field="run_id") from None
        raise StoreUnavailable("the run to be started was started and ended by others too often")

    async def _addressed(self, sent: _Sent, definition: Definition) -> list[str]:
        if sent.run_id is None:
            asked = statements.find_addressed(definition.name, sent.match or {}, _ADDRESSED_MAX)
            return [run["_id"] for run in await self._runtime.store.run(asked, sent.scope)]
        try:
            run = await self._runtime.read(check_run_id(sent.run_id), sent.scope, {"workflow": 1, "status": 1})
        except RunNotFound:
            return []
        if run["workflow"] != definition.name or run["status"] in TERMINAL:
            raise IdempotencyConflict("run_id: a run of another workflow has it, or one that has ended", field="run_id")
        return [sent.run_id]

    async def _start(self, sent: _Sent, missing: Missing) -> str | None:
        """Start the run with the event in its inbox; return None, or the run that was there before."""
        now, mark = self._runtime.clock.now(), self._runtime.store.new_mark()
        payload, run_id = sent.payload, sent.run_id
        kept = {"id": mark, "name": sent.name, "payload": payload.value, "size": payload.size, "at": now}
        value = missing.input if missing.has_input else copied(payload.value)
        born: dict[str, Any] = {"inbox": (kept,)}
        if run_id is None:
            born["idempotency_key"] = _key_of(sent.name, sent.match)
        try:
            options: Any = {} if run_id is None else {"run_id": run_id}
            started = await self._starter.start(missing.definition, value, options, sent.scope, **born)
        except IdempotencyConflict as error:
            if run_id is None or error.field != "run_id":
                raise
            return run_id
        return None if started.created else started.run_id


def _key_of(name: str, match: Mapping[str, Any] | None) -> str:
    """Return the idempotency key of a run that is started for an event: two who send it at once start one."""
    text = json.dumps([name, match], sort_keys=True, default=str)
    return f"event.{hashlib.sha256(text.encode()).hexdigest()[:32]}"
