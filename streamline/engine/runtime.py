"""What every part of the engine works with, and the one way a change reaches a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from streamline.bus import Bus
from streamline.clock import Clock
from streamline.domain.change import Change, carry_out
from streamline.domain.definition import versioned
from streamline.domain.names import is_storable
from streamline.domain.tenancy import Tenancy
from streamline.domain.transitions.closing import telling
from streamline.engine.facts import Facts
from streamline.engine.outbox import Outbox
from streamline.engine.registry import Registry
from streamline.engine.triggering import Triggers
from streamline.errors import RunNotFound
from streamline.features.tokens import TokenMaker
from streamline.settings import Settings
from streamline.store import EVERYTHING, Scope, Store, WakeChannel, statements
from streamline.store.operations import Insert, Write
from streamline.telemetry import TELEMETRY

SLOTS = "slots"


@dataclass(frozen=True, slots=True)
class Runtime:
    """The app's parts, as the engine uses them."""

    store: Store
    clock: Clock
    bus: Bus
    registry: Registry
    settings: Settings
    wakes: WakeChannel | None
    tokens: TokenMaker
    facts: Facts
    outbox: Outbox
    triggers: Triggers
    tenancy: Tenancy
    models: dict[str, Any] = field(default_factory=dict)

    def announce(self, route: str, due_at: datetime | None) -> None:
        """Tell whoever takes runs, here and elsewhere, that one of this route falls due; a hint, never the truth."""
        if due_at is None:
            return
        if route in self.registry.routes:
            self.bus.due(due_at)
        if self.wakes is not None:
            self.wakes.due(route, due_at)

    def freed(self, slot_key: str) -> None:
        """Tell whoever calls up runs, here or elsewhere, that a slot is free; a hint, never the truth."""
        is_served = self.bus.freed(slot_key) and self.registry.latest(slot_key.partition("/")[0]) is not None
        if not is_served and self.wakes is not None:
            self.wakes.hint(SLOTS)

    @property
    def routes(self) -> tuple[str, ...]:
        """The routes whose runs this process may take now."""
        if not self.facts.get("paused"):
            return self.registry.routes
        return tuple(route for route in self.registry.routes if not self.is_held_up(versioned(route)[0]))

    def is_held_up(self, workflow: str) -> bool:
        """Return whether an operator holds all runs of a workflow up."""
        paused = self.facts.get("paused")
        return bool(paused) and workflow in paused

    def hint(self, name: str) -> None:
        """Tell this process and the others that there may be something new of this name; never the truth."""
        self.bus.hint(name)
        if self.wakes is not None:
            self.wakes.hint(name)

    async def commit(self, run: dict[str, Any], change: Change, scope: Scope = EVERYTHING) -> bool:
        """Write `change`; where it took effect, bring `run` up to date, tell the bus, and return True."""
        if scope.everything and (tenant_id := run.get("tenant_id")) is not None:
            scope = Scope(tenant_id)  # whoever decides it, a run is only written as its tenant's
        statement, change = await self.advance(run, change)
        if not await self.store.run(statement, scope):
            return False
        self.wrote(run, change)
        return True

    async def advance(self, run: dict[str, Any], change: Change) -> tuple[Write, Change]:
        """Return the statement that writes `change`, and the change with what every write of a run takes along."""
        change = await self.outbox.mark(run, self.owing(run, change))
        return statements.advance_run(run["_id"], change, self.store.new_mark()), change

    def insertion(self, run: dict[str, Any], weight: int) -> Insert:
        """Return the statement that stores a new run; the run keeps the mark that tells it from others of its id."""
        run["born"] = self.store.new_mark()
        return statements.insert_run(self.outbox.born(run), run["born"], weight)

    def newborn(self, run: Mapping[str, Any]) -> None:
        """Tell listeners of this process of a new run that is stored, and count it."""
        self.bus.publish(run["_id"], tuple(run["events"]), run["tenant_id"])
        if TELEMETRY.meters is not None:
            TELEMETRY.meters.born(run)

    def announce_newborns(self, runs: Sequence[Mapping[str, Any]]) -> None:
        """Tell whoever takes or calls up runs of new ones that are stored."""
        for route in {run["route"] for run in runs}:
            dues = [run["due_at"] for run in runs if run["route"] == route and "due_at" in run]
            self.announce(route, min(dues, default=None))
        for slot_key in {run["slot_key"] for run in runs if "queued_at" in run}:
            self.freed(slot_key)

    def owing(self, run: dict[str, Any], change: Change) -> Change:
        """Return a change such that an end which starts runs of other workflows is owed to them."""
        if "ended_at" in change.put and self.triggers.started_by_end(run.get("workflow", ""), change.put["status"]):
            return telling(run, change)
        return change

    def wrote(self, run: dict[str, Any], change: Change) -> None:
        """Bring `run` up to date with a change that took effect, and tell the bus."""
        freed = run.get("slot_key") if "slot" in run and "slot" in change.drop else None
        carry_out(run, change)
        if TELEMETRY.meters is not None:
            TELEMETRY.meters.written(run, change)
        self.bus.publish(run["_id"], change.events, run.get("tenant_id"))
        if freed is not None:
            self.freed(freed)
        if "owes_at" in change.put:
            self.bus.closed(dict(run))

    async def read(
        self, run_id: str, scope: Scope = EVERYTHING, projection: Mapping[str, int] | None = None
    ) -> dict[str, Any]:
        """Return the run's document, or the fields named; raise `RunNotFound` where there is none in scope."""
        # Anything but text would be an operator to the database.
        asked = isinstance(run_id, str) and is_storable(run_id)
        found = asked and await self.store.run(statements.find_run(run_id, projection), scope)
        if not found:
            raise RunNotFound(f"no run {run_id!r:.100}", field="run_id")
        return found[0]
