"""Starting runs because something happened: an event came, or a run of another workflow ended.

What starts what is known to every process. Whoever notices that something has happened writes down which workflows it
starts; a process that serves one of them starts the run, under an id that follows from what happened.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamline.engine.facts import Facts
from streamline.engine.registry import Registry
from streamline.features.triggers import (
    announcement,
    is_to_be_announced,
    names_tenant,
    started_by_end,
    started_by_event,
)

_FACT = "triggers"


class Triggers:
    """What starts what, as this process knows it."""

    def __init__(self, facts: Facts, registry: Registry) -> None:
        self._facts = facts
        self._registry = registry

    async def announce(self) -> None:
        """Let every process know what starts the workflows that are served here, where that is not known yet."""
        for definition in self._registry.definitions:
            wanted = announcement(definition)
            if is_to_be_announced(wanted, self._known.get(definition.name)):
                await self._facts.put(f"{_FACT}.{definition.name}", wanted)

    async def refresh(self) -> None:
        """Learn what others have announced."""
        await self._facts.load()

    def started_by_event(self, name: str, payload: Any) -> list[str]:
        """Return the workflows that an event starts."""
        return started_by_event(self._known, name, payload)

    def names_tenant(self, name: str, payload: Any) -> bool:
        """Return whether something that an event of no tenant starts says whose it is."""
        return names_tenant(self._known, name, payload)

    def started_by_end(self, workflow: str, status: str) -> list[str]:
        """Return the workflows that the end of another one's run starts."""
        known = self._known
        return started_by_end(known, workflow, status) if known else []

    @property
    def _known(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._facts.get(_FACT, {})
        return found
