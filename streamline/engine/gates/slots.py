"""The slots of concurrency limits: counted where they are, in the runs."""

from __future__ import annotations

import random

from streamline.domain.flow import Concurrency, Debounce, Throttle
from streamline.engine.runtime import Runtime
from streamline.features.concurrency import free_slots
from streamline.store import statements


class Slots:
    """Knows which slots are free; whoever writes one first has it."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def free(self, slot_key: str, limit: int) -> list[int]:
        """Return the numbers that may be taken now, in no order, so that several who take one seldom meet."""
        taken = await self._runtime.store.run(statements.find_slots(slot_key))
        free = free_slots({each["slot"] for each in taken}, limit)
        random.shuffle(free)
        return free


def concurrency_of(runtime: Runtime, workflow: str, route: str) -> Concurrency | None:
    """Return the limit that holds now: of the definition that starts new runs, else of the run's own."""
    definition = runtime.registry.in_force(workflow, route)
    return None if definition is None else definition.concurrency


def throttle_of(runtime: Runtime, workflow: str, route: str) -> Throttle | None:
    """Return the throttle that holds now, as for `concurrency_of`."""
    definition = runtime.registry.in_force(workflow, route)
    return None if definition is None else definition.throttle


def debounce_of(runtime: Runtime, workflow: str, route: str) -> Debounce | None:
    """Return the debounce that holds now, as for `concurrency_of`."""
    definition = runtime.registry.in_force(workflow, route)
    return None if definition is None else definition.debounce
