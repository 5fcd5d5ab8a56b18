"""Keeping to schedules: each occurrence is decided, started and ticked off, by whichever process comes first.

Two guarded writes frame each start. The first moves the schedule's cursor past what has come and keeps what is to be
started; the second takes that away once the run is stored. The run's id is made of the schedule's and the
occurrence's instant, so whoever starts it again, after a crash or beside others, finds that it is there.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from streamline.domain.definition import Definition, versioned
from streamline.domain.statuses import TERMINAL
from streamline.domain.versions import order_of
from streamline.engine.asking.presence import living, served_by
from streamline.engine.control import Control
from streamline.engine.runtime import Runtime
from streamline.engine.starting.ordering import StartOptions
from streamline.engine.starting.starter import Starter
from streamline.errors import IdempotencyConflict, InvalidInput, NotFound, StoreUnavailable, StreamlineError
from streamline.features.recurrence import turns
from streamline.store import Scope, statements

logger = logging.getLogger("streamline.engine")

SCHEDULES: Final = "schedules"
_AT_ONCE = 50
_WITHOUT_ANY = 4
_BY = "schedule"


class Timetable:
    """Starts what is due of the schedules whose workflows this process serves.

    Args:
        runtime: The app's parts.
        starter: Starts the runs.
        period: Longest pause between two looks, in seconds.
    """

    def __init__(self, runtime: Runtime, starter: Starter, control: Control, period: float) -> None:
        self._runtime = runtime
        self._starter = starter
        self._control = control
        self._period = period
        self._news = asyncio.Event()

    def listen(self) -> Callable[[], None]:
        """Look again whenever a schedule has changed; return a function that ends it."""
        return self._runtime.bus.on_hint(SCHEDULES, self._news.set)

    async def run_once(self) -> float:
        """Keep to what is due; return the seconds until the next look is worthwhile."""
        self._news.clear()
        workflows, now = self._runtime.registry.names, self._runtime.clock.now
        first = await self._runtime.store.run(statements.find_next_schedule(workflows)) if workflows else []
        pause = self._period * random.uniform(0.8, 1.0)
        if not first:
            # Nothing can be late; a new schedule is heard of.
            return pause if self._runtime.wakes is None else pause * _WITHOUT_ANY
        if first[0]["due_at"] > now():
            left: float = (first[0]["due_at"] - now()).total_seconds()
            return min(pause, left)
        await asyncio.gather(*(self._keep_to(document) for document in await self._due_by(now())))
        return 0.0

    async def wait(self, seconds: float) -> None:
        """Return after so many seconds, or when a schedule has changed."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), seconds)

    async def catch_up(self) -> None:
        """Keep to what is due now, once."""
        now = self._runtime.clock.now()
        while due := await self._due_by(now):
            await asyncio.gather(*(self._keep_to(document) for document in due))

    async def _due_by(self, now: datetime) -> list[dict[str, Any]]:
        workflows = self._runtime.registry.names
        if not workflows:
            return []
        return await self._runtime.store.run(statements.find_due_schedules(workflows, now, _AT_ONCE))

    async def _keep_to(self, document: dict[str, Any]) -> None:
        """Decide about one schedule and start what may be started; what somebody else has done meanwhile is left."""
        try:
            await self._serve(document)
        except StoreUnavailable:
            raise
        except Exception:
            # One schedule that cannot be read, or is of a newer form, must not stop the others.
            logger.exception("schedule %s: it cannot be kept to", document.get("name"))
            await self._write(document, turns.set_aside(self._runtime.clock.now()))

    async def _serve(self, document: dict[str, Any]) -> None:
        is_busy, skipped = await self._is_busy(document), document["skipped"]
        put = turns.decide(document, self._runtime.clock.now(), is_busy=is_busy)
        if put and not await self._write(document, put):
            return
        if document["skipped"] > skipped:
            logger.info("schedule %s: an occurrence was skipped, a run is not over", document["name"])
        if not document["waiting"]:
            await self._write(document, {"due_at": document["next_at"]})
        elif instants := turns.ready(document, is_busy=is_busy):
            await self._start(document, instants)
        else:
            await self._write(document, turns.put_off(self._runtime.clock.now()))

    async def _start(self, document: dict[str, Any], instants: Sequence[datetime]) -> None:
        """Start runs for as long as nothing holds them back."""
        while instants:
            begun = {at: await self._begin(document, at) for at in instants}
            errors = [outcome for outcome in begun.values() if not isinstance(outcome, str)]
            if not await self._tick_off(document, begun):
                return
            for error in errors:
                logger.warning("schedule %s: a run could not be started: %s", document["name"], error["message"])
            is_held_back = len(errors) < len(begun) and document["overlap"] in ("skip", "queue")
            instants = turns.ready(document, is_busy=is_held_back)

    async def _tick_off(self, document: dict[str, Any], begun: Mapping[datetime, turns.Outcome]) -> bool:
        """Take away what was started; return whether nobody has changed the schedule meanwhile."""
        key, is_as_read = document["_id"], True
        while not await self._write(document, turns.ticked_off(document, begun, self._runtime.clock.now())):
            is_as_read = False
            found = await self._runtime.store.run(statements.find_meta(key, SCHEDULES))
            if not found or not begun.keys() & set(found[0]["waiting"]):
                return False
            document.update(found[0])
        return is_as_read

    async def _begin(self, document: Mapping[str, Any], at: datetime) -> turns.Outcome:
        """Start the run of an occurrence, if it is not there already; return its id, or why it cannot be started."""
        if document["overlap"] == "cancel_running":
            await self._cancel(document)
        try:
            return await self._started(document, at)
        except StoreUnavailable:
            raise
        except StreamlineError as error:
            if isinstance(error, InvalidInput) and await self._is_newer_elsewhere(document["workflow"]):
                raise  # the input may be for that version; who serves it starts the run
            return {"code": error.code, "message": error.message, "at": self._runtime.clock.now()}

    async def _is_newer_elsewhere(self, workflow: str) -> bool:
        """Return whether a living worker serves a higher version of a workflow than this process."""
        here = order_of(self._runtime.registry.current(workflow).version)
        served = map(versioned, served_by(await living(self._runtime)))
        return any(name == workflow and order_of(version) > here for name, version in served)

    async def _started(self, document: Mapping[str, Any], at: datetime) -> str:
        definition = self._runtime.registry.current(document["workflow"])
        run_id = turns.run_id_of(document, at)
        options: StartOptions = {"run_at": at + turns.delay_of(document, at)}
        value, name = decoded_input(document, definition), document["name"]
        scope = Scope(document["tenant_id"])
        try:
            begun = await self._starter.start_scheduled(definition, value, name, at, run_id, options, scope)
        except IdempotencyConflict as conflict:
            if conflict.field != "run_id" or not await self._is_there(run_id, document, at):
                raise
            return run_id
        return begun.run_id

    async def _is_there(self, run_id: str, document: Mapping[str, Any], at: datetime) -> bool:
        """Return whether the run of this id is the occurrence's, and not one that somebody has given the same id."""
        scope, seen = Scope(document["tenant_id"]), {"schedule_id": 1, "scheduled_at": 1}
        found = await self._runtime.store.run(statements.find_run(run_id, seen), scope)
        return bool(found) and (found[0].get("schedule_id"), found[0].get("scheduled_at")) == (document["name"], at)

    async def _is_busy(self, document: Mapping[str, Any]) -> bool:
        if document["last_run_id"] is None or document["overlap"] in ("allow", "cancel_running"):
            return False
        scope, seen = Scope(document["tenant_id"]), {"status": 1}
        found = await self._runtime.store.run(statements.find_run(document["last_run_id"], seen), scope)
        return bool(found) and found[0]["status"] not in TERMINAL

    async def _cancel(self, document: Mapping[str, Any]) -> None:
        if document["last_run_id"] is not None:
            with suppress(NotFound):
                scope, reason = Scope(document["tenant_id"]), "its schedule has started the next one"
                await self._control.cancel(document["last_run_id"], scope, reason=reason, by=_BY)

    async def _write(self, document: dict[str, Any], put: Mapping[str, Any]) -> bool:
        """Change a schedule as it was read; where that took effect, bring `document` up to date and return True."""
        put = {**put, "mark": self._runtime.store.new_mark()}
        statement = statements.change_schedule(document["_id"], document.get("mark"), put)
        if not await self._runtime.store.run(statement):
            return False
        document.update(put)
        return True


def decoded_input(document: Mapping[str, Any], definition: Definition) -> Any:
    """Return the input of a schedule's runs, of its declared type; raise `InvalidInput` where it is not any more."""
    try:
        return definition.input.decode(document["input"])
    except ValueError as error:
        raise InvalidInput("input: it does not fit the workflow any more", field="input") from error
