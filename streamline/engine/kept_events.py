"""Looking into the inbox for a run: which kept event comes next for a wait that it has open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from streamline.domain.heard import Position, passed_until
from streamline.domain.reactions import matches
from streamline.engine.letters import as_event
from streamline.engine.runtime import Runtime
from streamline.store import Scope, statements

_PAGE = 20

Stored = Mapping[str, Any]


async def kept_events(
    runtime: Runtime,
    run: Mapping[str, Any],
    name: str,
    *,
    match: Mapping[str, Any] | None = None,
    before: Position | None = None,
    limit: int = 1,
) -> list[dict[str, Any]]:
    """Return the first events of a name that are kept for a run and that it has not taken, in the order of arrival.

    Args:
        runtime: The app's parts.
        run: The run, or what of it says when it was created and what it has taken.
        name: The events' name.
        match: What their payload must have, by path.
        before: Only those that came before this place.
        limit: How many at most.
    """
    kept: list[dict[str, Any]] = []
    scope = Scope(run.get("tenant_id"))
    since, early = run["created_at"], run["created_at"] - runtime.settings.event_early_time
    behind, heard = passed_until(run, name), [each["id"] for each in run.get("heard", ()) if each["name"] == name]
    while True:
        asked = statements.find_events(name, since, early, behind=behind, before=before, heard=heard, limit=_PAGE)
        page = await runtime.store.run(asked, scope)
        fitting = [event for event in page if matches(match, event["payload"])]
        kept += [as_event(event) for event in await _for_run(runtime, run, fitting)]
        if len(page) < _PAGE or len(kept) >= limit:
            return kept[:limit]
        behind = (page[-1]["at"], page[-1]["_id"])


async def _for_run(runtime: Runtime, run: Mapping[str, Any], events: Sequence[Stored]) -> list[Stored]:
    """Return those of the events whose filter the run fits; the database decides, as it does for other runs."""
    filters = [event["match"] for event in events if "match" in event]
    if not filters:
        return list(events)
    if not await _fits(runtime, run, {"$or": filters}):
        return [event for event in events if "match" not in event]
    return [event for event in events if "match" not in event or await _fits(runtime, run, event["match"])]


async def _fits(runtime: Runtime, run: Mapping[str, Any], match: Mapping[str, Any]) -> bool:
    return bool(await runtime.store.run(statements.find_fitting(run["_id"], match), Scope(run.get("tenant_id"))))
