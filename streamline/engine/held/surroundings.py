"""What a context and its durable calls need to know of the attempt they belong to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from streamline.clock import Clock
from streamline.domain.definition import Definition, StepDefinition
from streamline.domain.payloads import Encoded
from streamline.domain.run import Event
from streamline.engine.held.branches import Branch
from streamline.engine.held.holding import Holding
from streamline.engine.held.memo import Memo
from streamline.engine.held.state_copy import StateCopy

T = TypeVar("T")


@dataclass(slots=True)
class Flags:
    """What has become of an attempt, known to its context and to whoever judges it.

    Args:
        cancelled: The handler has been told to end.
        closed: The attempt has ended; its context must not be used any more.
        pending: What its branches wait for at the moment, by address.
        failures: What its calls have raised, by address.
        operations: How many operations on the state each branch has asked for.
        beat_at: Monotonic instant of the last beat that the handler asked for.
    """

    cancelled: bool = False
    closed: bool = False
    pending: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    failures: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    operations: dict[str, int] = field(default_factory=dict)
    beat_at: float | None = None

    def cancel(self) -> None:
        """Note that the handler has been told to end."""
        self.cancelled = True


class Surroundings(Protocol):
    """An attempt, seen from inside its handler."""

    holding: Holding
    step: StepDefinition
    threads: ThreadPoolExecutor
    flags: Flags
    memo: Memo
    root: Branch
    state: StateCopy
    thread: int
    session: Any

    @property
    def clock(self) -> Clock:
        """The app's clock."""
        ...

    def say(self, event: Event) -> None:
        """Tell listeners of this process of something that is not stored, from whichever thread."""
        ...

    @property
    def models(self) -> dict[str, Any]:
        """The models that answers are to fit, by the name that is stored with the wait."""
        ...

    @property
    def number(self) -> int:
        """Which attempt it is, from 1."""
        ...

    @property
    def generation(self) -> int:
        """How often the step was begun anew."""
        ...

    def find_step(self, step_id: str) -> StepDefinition | None:
        """Return the workflow's step of this id, or None."""
        ...

    def check_size(self, encoded: Encoded, where: str, *, instead: int = 0) -> None:
        """Raise `PayloadTooLarge` where a value, or the run that would hold it, is over its limit."""
        ...

    def decoded_input(self) -> Any:
        """Return the run's input, of its declared type."""
        ...

    def token_of(self, address: str, generation: int) -> str:
        """Return the token of a hook."""
        ...

    async def watched(self, branch: Branch, path: str, work: Callable[[], Awaitable[T]]) -> T:
        """Carry out a branch's work, seen by the workflow's hooks, where its guards let it."""
        ...

    async def beat(self) -> None:
        """Extend the run's lease."""
        ...

    def definition_of(self, workflow: Any) -> Definition:
        """Return the definition of a workflow, or of the registered one of a name."""
        ...

    def serving(self, route: str) -> Definition | None:
        """Return the definition of a route that is registered here, or None."""
        ...

    async def kept_event(self, entry: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the first kept event that a wait for an event is for, or None."""
        ...

    async def post(self, address: str, name: str, payload: Encoded) -> tuple[dict[str, Any], list[str]]:
        """Store an event for other runs; return it, and the workflows that it may not start any more."""
        ...

    def deliver(self, event: dict[str, Any]) -> None:
        """Let a stored event be brought to whom it concerns."""
        ...

    async def spawn(self, wanted: Sequence[Any], *, fan: str, policy: Any, on_parent_close: str) -> list[str]:
        """Start children that are not there yet; return their ids."""
        ...

    async def children(self, fan: str) -> list[Mapping[str, Any]]:
        """Return the children of a join."""
        ...

    async def close_children(self, children: Sequence[Mapping[str, Any]]) -> None:
        """Cancel children that nobody waits for any more."""
        ...
