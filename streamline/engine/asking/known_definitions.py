"""What each version's definition was when it was first registered: under one version the steps do not change."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from streamline.clock import Clock
from streamline.domain.definition import Definition, versioned
from streamline.domain.versions import VersionInfo, order_of, signature_of
from streamline.engine.asking.presence import living, served_by
from streamline.engine.runtime import Runtime
from streamline.errors import VersionMismatch
from streamline.store import EVERYTHING, Scope, Store, statements

logger = logging.getLogger("streamline.engine")


class KnownDefinitions:
    """Keeps the definitions that are new, and holds the others to what they were.

    Args:
        store: Where they are kept.
        clock: The time.
        lenient: Whether a definition may change under its version, for development.
    """

    def __init__(self, store: Store, clock: Clock, *, lenient: bool) -> None:
        self._store = store
        self._clock = clock
        self._lenient = lenient
        self._known: dict[str, Mapping[str, Any]] = {}

    async def load(self) -> None:
        """Learn what is kept."""
        found = await self._store.run(statements.find_definitions())
        self._known.update({each["_id"]: each for each in found})

    def check(self, definition: Definition) -> None:
        """Raise `VersionMismatch` where a definition has other steps than the one first known under its version."""
        stored = self._known.get(definition.route)
        if stored is not None and not self._lenient and stored["steps"] != signature_of(definition):
            raise _changed(definition, stored)

    async def keep(self, definitions: Iterable[Definition]) -> None:
        """Keep those that are new; raise `VersionMismatch` as `check` does."""
        for definition in definitions:
            if definition.route not in self._known:
                fresh = _document(definition, self._clock.now())
                there = await self._store.run(statements.insert_definition(fresh))
                self._known[definition.route] = there[0] if there else fresh
            self.check(definition)
            if self._known[definition.route]["steps"] != signature_of(definition):
                await self._change(definition)

    async def _change(self, definition: Definition) -> None:
        logger.warning("%s has other steps than before; runs under way may not fit them", definition.route)
        put = {"steps": signature_of(definition)}
        await self._store.run(statements.put_definition(definition.route, put))
        self._known[definition.route] = {**self._known[definition.route], **put}


async def versions(runtime: Runtime, scope: Scope) -> tuple[VersionInfo, ...]:
    """Return every version that was ever registered or has runs that have not ended."""
    found = await runtime.store.run(statements.find_definitions(), EVERYTHING)
    counted = await runtime.store.run(statements.count_routes(), scope)
    live = {each["_id"]: each["n"] for each in counted}
    known = {each["_id"]: each for each in found}
    served = served_by(await living(runtime)) | set(runtime.registry.routes)
    return tuple(
        VersionInfo(
            *versioned(route),
            live=live.get(route, 0),
            served=route in served,
            steps=tuple(step["id"] for step in known.get(route, {}).get("steps", ())),
            first_seen_at=known.get(route, {}).get("first_seen_at"),
        )
        for route in sorted(live.keys() | known.keys(), key=_order_of_route)
    )


def _order_of_route(route: str) -> tuple[Any, ...]:
    workflow, version = versioned(route)
    return workflow, order_of(version)


def _document(definition: Definition, now: Any) -> dict[str, Any]:
    return {
        "_id": definition.route,
        "workflow": definition.name,
        "version": definition.version,
        "steps": signature_of(definition),
        "first_seen_at": now,
    }


def _changed(definition: Definition, stored: Mapping[str, Any]) -> VersionMismatch:
    before = ", ".join(step["id"] for step in stored["steps"])
    return VersionMismatch(
        f"{definition.route}: its steps were {before}; runs under way may rely on them. Give the changed "
        "workflow another version, or set Settings(development=True) where no run matters",
        field="version",
    )
