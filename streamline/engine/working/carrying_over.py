"""Carrying runs of older versions over to the version that says how: each once, while nobody drives it."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from streamline.domain.decisions import check_run
from streamline.domain.definition import Definition, route_of
from streamline.domain.payloads import ANY, Encoded
from streamline.domain.run import read_run
from streamline.domain.transitions.migrating import Carried, migrate
from streamline.domain.versions import Migration
from streamline.engine.asking.presence import living, served_by
from streamline.engine.runtime import Runtime
from streamline.errors import InvalidInput, InvalidPolicy
from streamline.store import statements
from streamline.telemetry import about, discreet_message

logger = logging.getLogger("streamline.engine")

_BATCH = 100
_DUE_MAX = 256
_FULL_PASS_SECONDS = 60.0


class CarryingOver:
    """Looks for runs of versions that a workflow served here can carry over.

    What is due is found by the index of due runs at each look. The rest, which waits for people, children or nothing,
    is looked through as a whole: at first, and while any worker still serves the old version or the last time found
    some.
    """

    def __init__(self, runtime: Runtime, period: float) -> None:
        self._runtime = runtime
        self._period = period
        self._next_pass = 0.0
        self._refused: set[str] = set()

    async def run_once(self) -> float:
        """Carry over what can be; return the pause until the next look."""
        pairs = list(self._pairs())
        if not pairs:
            return self._period
        clock = self._runtime.clock
        is_full = clock.monotonic() >= self._next_pass
        count = 0
        for definition, version in pairs:
            count += await self._carry_due(definition, version)
            if is_full:
                count += await self._carry_all(definition, version)
        if is_full:
            self._refused.clear()
            served = served_by(await living(self._runtime))
            goes_on = count or any(route_of(definition.name, version) in served for definition, version in pairs)
            self._next_pass = clock.monotonic() + (_FULL_PASS_SECONDS if goes_on else 10 * _FULL_PASS_SECONDS)
        return 0.0 if count >= _DUE_MAX else min(self._period, 1.0)

    def _pairs(self) -> Iterator[tuple[Definition, str]]:
        for definition in self._runtime.registry.served:
            for version in definition.migrations:
                yield definition, version

    async def _carry_due(self, definition: Definition, version: str) -> int:
        route, now = route_of(definition.name, version), self._runtime.clock.now()
        found = await self._runtime.store.run(statements.find_due([route], now, _DUE_MAX))
        expired = await self._runtime.store.run(statements.find_expired([route], now, _DUE_MAX))
        count = 0
        for each in (*found, *expired):
            run = await self._runtime.store.run(statements.find_run(each["_id"]))
            count += bool(run) and await self._carry(run[0], definition, version)
        return count

    async def _carry_all(self, definition: Definition, version: str) -> int:
        route, after, count = route_of(definition.name, version), "", 0
        while True:
            found = await self._runtime.store.run(statements.find_route(route, after, _BATCH))
            for run in found:
                count += await self._carry(run, definition, version)
            if len(found) < _BATCH:
                return count
            after = found[-1]["_id"]

    async def _carry(self, run: dict[str, Any], definition: Definition, version: str) -> bool:
        """Carry one run over; one that is driven, or cannot be carried over, is left as it is."""
        now = self._runtime.clock.now()
        lease = run.get("lease")
        is_driven = lease is not None and lease["until"] > now
        if is_driven or run["route"] != route_of(definition.name, version) or run["_id"] in self._refused:
            return False
        try:
            check_run(run)
            wanted = await self._wanted(run, definition.migrations[version])
            change = migrate(run, _carried(run, definition, wanted), now)
        except Exception as error:
            self._refused.add(run["_id"])
            said = "run %s is not carried over to %s: %s"
            logger.exception(said, run["_id"], definition.route, discreet_message(error), extra=about(run))
            return False
        if not await self._runtime.commit(run, change):
            return False  # somebody else was faster, or it is driven again
        self._runtime.announce(run["route"], run.get("due_at"))
        return True

    async def _wanted(self, run: Mapping[str, Any], how: Callable[[Any], Any]) -> Migration:
        old = self._runtime.registry.serving(run["workflow"], run["version"])
        said = how(read_run(run, old))
        said = await said if inspect.isawaitable(said) else said
        if said is not None and not isinstance(said, Migration):
            raise InvalidPolicy("migrate: the function returns a Migration, or None", field="migrate")
        return said or Migration()


def _carried(run: Mapping[str, Any], definition: Definition, wanted: Migration) -> Carried:
    """Return what a run takes along, if it fits the new version; raise otherwise."""
    state: Encoded | None = None
    if wanted.state is not ...:
        state = (definition.state or ANY).encode(wanted.state, "state", refuse=InvalidInput)
    elif "state" in run and definition.state is not None:
        definition.state.decode(run["state"])
    value: Encoded | None = None
    if wanted.input is not ...:
        value = definition.input.encode(wanted.input, "input", refuse=InvalidInput)
    else:
        definition.input.decode(run["input"])
    renamed = {new: old for old, new in wanted.steps.items()}
    return Carried(definition, renamed, wanted.step, state, value)
