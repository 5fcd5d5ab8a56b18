"""What each version's definition was when it was first registered: under one version the steps do not change."""

from __future__ import annotations

import logging
from typing import Any

from streamline.domain.definition import Definition
from streamline.domain.versions import VersionInfo, order_of, signature_of
from streamline.engine.presence import living, served_by
from streamline.engine.registry import Registry
from streamline.engine.runtime import Runtime
from streamline.errors import VersionMismatch
from streamline.store import EVERYTHING, Scope, Store, statements

logger = logging.getLogger("streamline.engine")


async def check_definitions(store: Store, registry: Registry, now: Any, *, lenient: bool) -> None:
    """Keep the definitions that are new, and hold the others to what they were.

    Args:
        store: Where they are kept.
        registry: The definitions that this process serves.
        now: The present instant.
        lenient: Whether a definition may change under its version, for development.

    Raises:
        VersionMismatch: A definition has other steps than the one that was first registered under its version.
    """
    found = await store.run(statements.find_definitions())
    known = {each["_id"]: each for each in found}
    for definition in registry.served:
        if (stored := known.get(definition.route)) is None:
            kept = await store.run(statements.insert_definition(_document(definition, now)))
            stored = kept[0] if kept else None
        if stored is None or stored["steps"] == signature_of(definition):
            continue
        if not lenient:
            raise _changed(definition, stored)
        logger.warning("%s has other steps than before; runs under way may not fit them", definition.route)
        await store.run(statements.put_definition(definition.route, {"steps": signature_of(definition)}))


async def versions(runtime: Runtime, scope: Scope) -> tuple[VersionInfo, ...]:
    """Return every version that was ever registered or has runs that have not ended."""
    found = await runtime.store.run(statements.find_definitions(), EVERYTHING)
    counted = await runtime.store.run(statements.count_routes(), scope)
    live = {(each["_id"]["workflow"], each["_id"]["version"]): each["n"] for each in counted}
    known = {(each["workflow"], each["version"]): each for each in found}
    served = served_by(await living(runtime)) | set(runtime.registry.routes)
    return tuple(
        VersionInfo(
            workflow=workflow,
            version=version,
            live=live.get((workflow, version), 0),
            served=f"{workflow}@{version}" in served,
            steps=tuple(step["id"] for step in known.get((workflow, version), {}).get("steps", ())),
            first_seen_at=known.get((workflow, version), {}).get("first_seen_at"),
        )
        for workflow, version in sorted(live.keys() | known.keys(), key=lambda each: (each[0], order_of(each[1])))
    )


def _document(definition: Definition, now: Any) -> dict[str, Any]:
    return {
        "_id": definition.route,
        "workflow": definition.name,
        "version": definition.version,
        "steps": signature_of(definition),
        "first_seen_at": now,
    }


def _changed(definition: Definition, stored: dict[str, Any]) -> VersionMismatch:
    before = ", ".join(step["id"] for step in stored["steps"])
    return VersionMismatch(
        f"{definition.route}: its steps were {before}; runs under way may rely on them. Give the changed "
        "workflow another version, or set Settings(development=True) where no run matters",
        field="version",
    )
