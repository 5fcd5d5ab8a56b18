"""Bringing events from the inbox to whom they concern, at least once, whoever dies in between.

An event is stored before anything is done about it. Whoever stored it brings it to the runs that listen for it, then
notes that this is done; where that process dies, the sweep of any other brings it. A run takes each event once.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from streamline.domain.definition import Definition
from streamline.domain.heard import SKEW
from streamline.domain.payloads import copied
from streamline.domain.reactions import OnEvent, Trigger
from streamline.domain.run import Run, read_run
from streamline.engine.control import Control
from streamline.engine.kept_events import kept_events
from streamline.engine.letters import as_event
from streamline.engine.runtime import Runtime
from streamline.engine.starting.starter import Starter
from streamline.errors import RunNotFound, StoreUnavailable, StreamlineError
from streamline.features.triggers import owner_of, started_id, trigger_of
from streamline.store import EVERYTHING, Scope, statements
from streamline.telemetry import about

logger = logging.getLogger("streamline.engine")

HINT = "inbox"
_GRACE = timedelta(seconds=2)
_PAGE, _SWEPT, _OLDER = 100, 100, 20
_AT_ONCE = 16


class Delivery:
    """Delivers events, and starts the runs that they trigger."""

    def __init__(self, runtime: Runtime, control: Control, starter: Starter, period: float) -> None:
        self._runtime = runtime
        self._control = control
        self._starter = starter
        self._period = period
        # A handler may emit faster than events are brought: the database is not to be flooded with them.
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._looking = self._again = False

    async def run_once(self) -> float:
        """Do what others have left undone; return the pause until the next look."""
        await self._runtime.triggers.announce()
        before = self._runtime.clock.now() - _GRACE
        owed = await self._runtime.store.run(statements.find_owed_events(before, _SWEPT))
        delivered = [await self._try_again(event) for event in owed]
        more = await self.start_triggered() or (len(owed) == _SWEPT and any(delivered))
        return 0.0 if more else self._period * random.uniform(0.8, 1.2)

    async def try_to_deliver(self, event: dict[str, Any]) -> None:
        """Deliver an event now, and leave it to the next sweep where that is not possible."""
        try:
            async with self._slots:
                await self.deliver(event)
        except StreamlineError:
            logger.warning("event %s: its delivery is left for later", event["_id"], exc_info=True)

    async def _try_again(self, event: dict[str, Any]) -> bool:
        """Deliver an event that somebody has left behind; return whether it was possible."""
        try:
            await self.deliver(event)
        except StoreUnavailable:
            raise
        except StreamlineError:
            logger.exception("event %s cannot be delivered", event["_id"])
            return False
        return True

    async def look(self) -> None:
        """Start what others have written down, as far as that is possible now."""
        if self._looking:
            self._again = True
            return
        self._looking = True
        try:
            while True:
                self._again = False
                await self.start_triggered()
                if not self._again:
                    return
        except StreamlineError:
            logger.warning("what events start is left for later", exc_info=True)
        finally:
            self._looking = False

    async def start_triggered(self) -> bool:
        """Start what events trigger and is served here; return whether there is more of it."""
        served = [each.name for each in self._runtime.registry.definitions if each.triggers]
        if not served:
            return False
        found = await self._runtime.store.run(statements.find_triggered(served, _SWEPT))
        started = [await self._start_all(event) for event in found]
        return len(found) == _SWEPT and any(started)

    async def deliver(self, event: dict[str, Any]) -> int:
        """Bring an event to every run that it concerns; return how many it has reached."""
        reached = await self._bring(event) if "owed_at" in event else 0
        started = await self._start_all(event, tell=True)
        if "owed_at" in event:
            scope = Scope(event.get("tenant_id"))
            await self._runtime.store.run(statements.settle_event(event["_id"], reached), scope)
        return reached + started

    async def _bring(self, event: dict[str, Any]) -> int:
        settings, reached, newborn = self._runtime.settings, 0, list[Mapping[str, Any]]()
        created_by, after, letter = event["at"] + settings.event_early_time, "", as_event(event)
        scope = Scope(event.get("tenant_id"))
        while True:
            asked = statements.find_listeners(event["name"], event.get("match"), created_by, after, _PAGE)
            found = await self._runtime.store.run(asked, scope)
            existed = [run for run in found if run["created_at"] <= event["at"] + SKEW]
            newborn += [run for run in found if run["created_at"] > event["at"] + SKEW]
            reached += sum(await asyncio.gather(*(self._offer(run, letter, scope) for run in existed)))
            if len(found) < _PAGE:
                break
            after = found[-1]["_id"]
        if not reached:
            # It has reached nobody who was there: so it is for those who have come since, too.
            reached = sum([await self._offer(run, letter, scope) for run in newborn])
        return reached

    async def _offer(self, run: Mapping[str, Any], event: dict[str, Any], scope: Scope) -> bool:
        """Offer an event to a run, after the older ones that it may be about to take."""
        before = (event["at"], event["id"])
        older = await kept_events(self._runtime, run, event["name"], before=before, limit=_OLDER)
        reached = False
        try:
            for _ in range(_OLDER + 1):
                hearing = await self._control.hear(run["_id"], event, older, scope)
                reached = reached or hearing.reached
                if hearing.change is None or hearing.event is event:
                    break
        except StoreUnavailable:
            raise
        except RunNotFound:
            return reached
        except StreamlineError:
            said = "event %s: run %s cannot take it"
            logger.warning(said, event["id"], run["_id"], exc_info=True, extra=about(run))
        return reached

    async def _start_all(self, event: dict[str, Any], *, tell: bool = False) -> int:
        """Start the runs that an event triggers and that this process serves; tell others of the rest."""
        started, left = 0, False
        for workflow in event.get("triggers", ()):
            definition = self._runtime.registry.latest(workflow)
            trigger = None if definition is None else trigger_of(definition, event)
            if definition is None or trigger is None:
                left = True
                continue
            started += await self._start(event, definition, trigger)
        if left and tell:
            self._runtime.hint(HINT)
        return started

    async def _start(self, event: dict[str, Any], definition: Definition, trigger: Trigger) -> bool:
        home, failure = Scope(event.get("tenant_id")), None
        try:
            value, scope = await self._wanted(event, trigger)
            created = await self._started(event, definition, value, scope)
        except StoreUnavailable:
            raise
        except Exception as error:
            logger.exception("event %s does not start %s", event["_id"], definition.name)
            failure, created = self._failure(definition.name, error), False
        settled = statements.settle_trigger(event["_id"], definition.name, failure, reached=int(created))
        await self._runtime.store.run(settled, home)
        return created

    def _failure(self, workflow: str, error: Exception) -> dict[str, Any]:
        code = error.code if isinstance(error, StreamlineError) else type(error).__name__
        return {"workflow": workflow, "code": code, "message": str(error)[:1000], "at": self._runtime.clock.now()}

    async def _started(self, event: dict[str, Any], definition: Definition, value: Any, scope: Scope) -> bool:
        heard = None if "of" in event else {"id": event["_id"], "name": event["name"], "at": event["at"]}
        born: dict[str, Any] = {"chain": event.get("chain", 0) + 1, "started_by": heard}
        run_id = started_id(event, definition.name)
        try:
            started = await self._starter.start(
                definition, value, {"run_id": run_id}, scope, origin=event.get("trace"), **born
            )
            return started.created
        except StreamlineError:
            if await self._is_there(run_id):
                return True  # somebody was first, and has died before saying so
            raise

    async def _is_there(self, run_id: str) -> bool:
        try:
            # Whose it is may have been said otherwise by another version of the workflow: it is the same start.
            return bool(await self._runtime.read(run_id, EVERYTHING, {"_id": 1}))
        except RunNotFound:
            return False

    async def _wanted(self, event: dict[str, Any], trigger: Trigger) -> tuple[Any, Scope]:
        """Return the input of the run that an event starts, and whose run it is."""
        is_told = isinstance(trigger, OnEvent) or (trigger.input is None and not callable(trigger.tenant))
        ended = None if is_told else await self._ended(event)
        required = self._runtime.tenancy.required
        tenant_id = owner_of(trigger, ended or copied(event["payload"]), event.get("tenant_id"), required=required)
        payload = copied(event["payload"])
        return payload if trigger.input is None else trigger.input(ended or payload), Scope(tenant_id)

    async def _ended(self, event: Mapping[str, Any]) -> Run:
        run = await self._runtime.read(event["of"]["run_id"], Scope(event.get("tenant_id")))
        return read_run(run, self._runtime.registry.serving(run["workflow"], run["version"]))
