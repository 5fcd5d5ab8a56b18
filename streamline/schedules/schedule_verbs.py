"""What is done to schedules: create, get, list, update, pause, resume, delete, trigger, preview."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, time
from typing import Any, Literal, TypedDict, Unpack
from zoneinfo import ZoneInfo

from streamline.domain.durations import Duration, check_instant
from streamline.domain.names import check_name
from streamline.domain.payloads import ANY, check_input
from streamline.engine.held.limits import check_payload
from streamline.engine.registry import Registry
from streamline.engine.runtime import Runtime
from streamline.engine.session import Session
from streamline.engine.starting.starter import Started
from streamline.engine.timetable import SCHEDULES, decoded_input
from streamline.errors import (
    IdempotencyConflict,
    InvalidPolicy,
    InvalidQuery,
    ScheduleError,
    ScheduleNotFound,
    StoreUnavailable,
)
from streamline.features.recurrence import turns
from streamline.features.recurrence.schedule import Schedule, previewed, read_schedule
from streamline.features.recurrence.terms import (
    CatchUp,
    Overlap,
    check_schedule_id,
    checked_terms,
    is_same,
)
from streamline.features.recurrence.wall_clock import Fold, Gap, Occurrence
from streamline.handle import RunHandle
from streamline.ids import new_run_id
from streamline.paging import Page
from streamline.store import Scope, statements
from streamline.store.compile import as_stored
from streamline.store.filters import checked_limit
from streamline.workflow import Workflow

Document = dict[str, Any]
Decision = Callable[[Document, datetime], Mapping[str, Any]]

_RACES = 100
_KEPT = object()


class Rule(TypedDict, total=False):
    """When something recurs: one of these, and how the clock on the wall is read; see `Schedules.create`."""

    cron: str | None
    daily: str | time | Sequence[str | time] | None
    weekly: Any
    monthly: Any
    every: Duration | None
    at: datetime | str | None
    rrule: str | None
    timezone: str | ZoneInfo
    dst_gap: Gap
    dst_fold: Fold
    until: datetime | None
    count: int | None


class ScheduleOptions(Rule, total=False):
    """What is agreed about a schedule; see `Schedules.create`."""

    overlap: Overlap
    catch_up: CatchUp
    jitter: Duration | None


class Schedules:
    """``app.schedules``."""

    def __init__(
        self,
        session: Callable[[], Session],
        registry: Registry,
        handle_of: Callable[[Started], RunHandle[Any]],
        scope: Scope,
    ) -> None:
        self._session = session
        self._registry = registry
        self._handle_of = handle_of
        self._scope = scope

    async def create(
        self,
        id: str,
        workflow: Workflow[Any, Any, Any] | str,
        *,
        input: Any = None,
        exists: Literal["refuse", "update"] = "refuse",
        **options: Unpack[ScheduleOptions],
    ) -> Schedule:
        """Start runs of a workflow again and again; one occurrence is one run, ``"<id>@<instant>"``.

        Creating the same schedule again changes nothing, so that each process may do so when it opens.

        Args:
            id: Its name: up to 100 letters, digits and ``. _ : -``.
            workflow: What to start, or its name; the highest version that the starting process serves.
            input: Of each run.
            exists: Whether another schedule of this name is left alone, with an error, or updated.
            options: One rule, and what happens around it.
                ``cron``: five fields, or ``"@daily"`` and the like.
                ``daily``: ``"02:30"``, or several times.
                ``weekly``: ``"mon,thu 09:00"``, ``"mon-fri 09:00"``, or a pair of days and times.
                ``monthly``: ``"1,15 09:00"``, ``"last 18:00"``, or such a pair; a day that a month does not have is its
                last.
                ``every``: a duration of at least a second, counted from the creation.
                ``at``: once; an aware datetime, or a naive one that is meant in `timezone`.
                ``rrule``: a rule of RFC 5545 of whole days, such as ``"FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=9"``.
                ``timezone``: IANA name of the zone whose clock the rule is about; default ``"UTC"``.
                ``overlap``: while the run before is not over: ``"skip"``, ``"queue"``, ``"cancel_running"`` or
                ``"allow"``.
                ``catch_up``: what was missed by more than a minute: ``"skip"``, start the ``"latest"``, or ``"all"``.
                ``dst_gap``: a time of day that does not occur moves ``"forward"`` by the gap, or is a ``"skip"``.
                ``dst_fold``: a time of day that occurs twice: the ``"first"``, the ``"second"`` or ``"both"``.
                ``jitter``: each run is put off by a part of this, at random but always the same.
                ``until``: last instant at which it may occur, aware.
                ``count``: how many runs it starts at most.

        Raises:
            ScheduleError: Something is not of the allowed form, or nothing is to come; ``field`` names it, and the
                message shows where an expression is wrong.
            InvalidInput, SerializationError, PayloadTooLarge: The input cannot be that of a run.
            WorkflowNotFound, InvalidName: The workflow is not one.
            IdempotencyConflict: Another schedule has this name.
        """
        key, name = self._key(id), _name_of(workflow)
        if exists not in ("refuse", "update"):
            raise ScheduleError('exists: "refuse" or "update"', field="exists")
        now, runtime = self._now(), self._runtime
        terms, stored = checked_terms(options, now), self._encoded(workflow, input)
        if (found := await self._find(key)) is None:
            mark = runtime.store.new_mark()
            document = turns.born(key, id, self._scope.tenant_id, name, terms, stored, now) | {"mark": mark}
            there = await runtime.store.run(statements.insert_meta(document, SCHEDULES))
            if not there or there[0]["mark"] == mark:
                return self._told(document)
            found = there[0]
        if is_same(found, terms) and (found["workflow"], found["input"]) == (name, as_stored(stored)):
            return self._schedule_of(found)
        if exists == "refuse":
            raise IdempotencyConflict("id: another schedule has this name; update it, or create it anew", field="id")
        return await self._renew(key, name, terms, stored)

    async def get(self, id: str) -> Schedule:
        """Return a schedule as it is now; raise `ScheduleNotFound`."""
        return self._schedule_of(await self._read(id))

    async def list(
        self,
        workflow: Workflow[Any, Any, Any] | str | None = None,
        *,
        paused: bool | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> Page[Schedule]:
        """Return a page of schedules in the order of their names.

        Args:
            workflow: Only those that start this workflow.
            paused: Only those that are paused, or are not.
            limit: 1 to 500.
            after: ``next`` of the page before.
        """
        query: dict[str, Any] = {} if workflow is None else {"workflow": _name_of(workflow)}
        query |= {} if paused is None else {"paused": bool(paused)}
        size = checked_limit(limit)
        if after is not None and not isinstance(after, str):
            raise InvalidQuery("after: not a cursor of a page", field="after")
        statement = statements.find_schedules(query, after or "", size + 1)
        found = await self._runtime.store.run(statement, self._scope)
        following = found[size - 1]["_id"] if len(found) > size else None
        return Page(tuple(self._schedule_of(document) for document in found[:size]), following)

    async def update(self, id: str, *, input: Any = _KEPT, **changes: Unpack[ScheduleOptions]) -> Schedule:
        """Change some of what is agreed about a schedule; what is not named stays.

        Where its rule, zone or policy of transitions changes, it goes on with what occurs next by the new ones; a
        changed ``every`` counts from now. Where only its end or count changes, what is due stays due.

        Raises:
            ScheduleError, InvalidInput: As for `create`.
            ScheduleNotFound: There is no such schedule.
        """
        document = await self._read(id)
        stored = None if input is _KEPT else self._encoded(document["workflow"], input)

        def decide(document: Document, now: datetime) -> Mapping[str, Any]:
            terms = checked_terms(changes, now, document)
            put = turns.changed(document, terms, now)
            return put if input is _KEPT else {**put, "input": stored}

        return await self._change(self._key(id), decide)

    async def pause(self, id: str) -> Schedule:
        """Let a schedule start nothing until it is resumed; raise `ScheduleNotFound`."""
        return await self._change(self._key(id), lambda document, now: {} if document["paused"] else turns.paused(now))

    async def resume(self, id: str) -> Schedule:
        """Let a paused schedule go on with what occurs next; what was missed meanwhile is not caught up with."""

        def decide(document: Document, now: datetime) -> Mapping[str, Any]:
            return turns.resumed(document, now) if document["paused"] else {}

        return await self._change(self._key(id), decide)

    async def delete(self, id: str) -> None:
        """Remove a schedule; its runs stay as they are; raise `ScheduleNotFound`."""
        if not await self._runtime.store.run(statements.remove_schedule(self._key(id)), self._scope):
            raise _missing()

    async def trigger(self, id: str) -> RunHandle[Any]:
        """Start a run of a schedule now, beside its series, which is not disturbed; paused or not, whatever runs.

        Raises:
            ScheduleNotFound: There is no such schedule.
            WorkflowNotFound: This process does not know its workflow.
        """
        document, session = await self._read(id), self._session()
        definition = self._registry.current(document["workflow"])
        value = decoded_input(document, definition)
        starter, scope = session.starter, self._scope
        return self._handle_of(
            await starter.start_scheduled(definition, value, id, self._now(), new_run_id(), {}, scope)
        )

    async def preview(
        self, id: str | None = None, n: int = 5, *, after: datetime | None = None, **rule: Unpack[Rule]
    ) -> tuple[Occurrence, ...]:
        """Return what occurs next, with the transitions of the clock marked, of a schedule or of a mere rule.

        Args:
            id: A schedule; without it a rule is given.
            n: How many at most; 1 to 1,000.
            after: Aware instant; default now.
            rule: As for `create`.

        Raises:
            ScheduleError: Something is not of the allowed form.
            ScheduleNotFound: There is no such schedule.
        """
        now = self._now()
        try:
            since = now if after is None else check_instant(after, "after")
        except InvalidPolicy as error:
            raise ScheduleError(error.message, field="after") from error
        if id is None:
            terms = checked_terms(rule, now)
            return previewed(terms, since, n, terms["count"])
        document = await self._read(id)
        count = document["count"]
        left = None if count is None else count - document["occurrences"]
        return previewed(document | checked_terms(rule, now, document), since, n, left)

    async def _renew(self, key: str, workflow: str, terms: Document, stored: Any) -> Schedule:
        def decide(document: Document, now: datetime) -> Mapping[str, Any]:
            put = turns.changed(document, terms, now)
            return {**put, "workflow": workflow, "input": stored}

        return await self._change(key, decide)

    async def _change(self, key: str, decide: Decision) -> Schedule:
        """Change a schedule by what is decided on it, again where somebody came in between."""
        for _ in range(_RACES):
            document = await self._find(key)
            if document is None:
                raise _missing()
            put = decide(document, self._now())
            if not put:
                return self._schedule_of(document)
            put = {**put, "mark": self._runtime.store.new_mark()}
            statement = statements.change_schedule(key, document["mark"], put)
            if await self._runtime.store.run(statement, self._scope):
                return self._told(document | put)
        raise StoreUnavailable("somebody else changed the schedule each time")

    async def _read(self, id: str) -> Document:
        found = await self._find(self._key(id))
        if found is None:
            raise _missing()
        return found

    async def _find(self, key: str) -> Document | None:
        found = await self._runtime.store.run(statements.find_meta(key, SCHEDULES), self._scope)
        return found[0] if found else None

    def _told(self, document: Document) -> Schedule:
        """Tell whoever keeps to schedules that one is new, and return it."""
        self._runtime.hint(SCHEDULES)
        return self._schedule_of(document)

    def _schedule_of(self, document: Mapping[str, Any]) -> Schedule:
        definition = self._registry.latest(document["workflow"])
        return read_schedule(document, None if definition is None else definition.input)

    def _encoded(self, workflow: Workflow[Any, Any, Any] | str, value: Any) -> Any:
        """Return the input as it is stored; checked against the workflow's where that is known here."""
        known = workflow.definition if isinstance(workflow, Workflow) else self._registry.latest(workflow)
        encoded = ANY.encode(value, "input") if known is None else check_input(known.input, value)
        check_payload(self._runtime, None if known is None else known.max_payload_bytes, encoded, "input")
        return encoded.value

    def _key(self, id: object) -> str:
        name, tenant_id = check_schedule_id(id), self._scope.single().tenant_id
        return name if tenant_id is None else f"{tenant_id}/{name}"

    def _now(self) -> datetime:
        return self._runtime.clock.now()

    @property
    def _runtime(self) -> Runtime:
        return self._session().runtime


def _name_of(workflow: Workflow[Any, Any, Any] | str) -> str:
    return check_name(workflow.name if isinstance(workflow, Workflow) else workflow, "workflow")


def _missing() -> ScheduleNotFound:
    return ScheduleNotFound("no schedule of this name", field="id")
