"""What a handler is given: who and where it is, its values, and the durable calls."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Generic

from typing_extensions import TypeVar

from streamline.domain.definition import StepDefinition, StepReference
from streamline.domain.payloads import copied
from streamline.engine.held.surroundings import Surroundings
from streamline.engine.primitives import state_operations
from streamline.engine.primitives.past_outputs import PastOutput, outputs_before, pin_output
from streamline.engine.primitives.telling import RunLog
from streamline.engine.verbs.calls import Calls
from streamline.engine.verbs.fans import Fans
from streamline.engine.verbs.reports import Reports
from streamline.engine.verbs.waits import Waits
from streamline.errors import NonRetriableError, StepNotFound, StepOutputMissing

InputT = TypeVar("InputT", default=Any)
StateT = TypeVar("StateT", default=Any)
T = TypeVar("T")


class Context(Calls, Waits, Fans, Reports, Generic[InputT, StateT]):
    """One attempt of one step.

    A handler may run more than once; what it awaits here happens once.

    Attributes:
        run_id: The run.
        workflow: Its workflow's name.
        version: Its workflow's version.
        step_id: The step.
        attempt: Which attempt this is, from 1; those that lost their worker count.
        tenant_id: The tenant the run belongs to, if any.
        tags: The run's tags.
        metadata: The run's metadata.
        scheduled_at: The instant for which a schedule started the run, whenever it began; None for other runs.
        log: A standard logger that adds the run and step to its records.
    """

    def __init__(self, attempt: Surroundings) -> None:
        run = attempt.holding.run
        self._attempt = attempt
        self._flags = attempt.flags
        self.run_id: str = run["_id"]
        self.workflow: str = run["workflow"]
        self.version: str = run["version"]
        self.step_id: str = attempt.step.id
        self.attempt: int = attempt.number
        self.tenant_id: str | None = run.get("tenant_id")
        self.tags: tuple[str, ...] = tuple(run.get("tags", ()))
        self.metadata: Mapping[str, Any] = copied(run.get("metadata", {}))
        self.scheduled_at: datetime | None = run.get("scheduled_at")
        self.input: InputT = attempt.decoded_input()

    @property
    def state(self) -> StateT:
        """The run's state; changes to it are stored with the step's result."""
        return self._attempt.state.value  # type: ignore[no-any-return]

    @state.setter
    def state(self, value: StateT) -> None:
        self._attempt.state.value = value

    @property
    def cancelled(self) -> bool:
        """Whether the handler has been told to end; for handlers in threads, which cannot be interrupted."""
        return self._flags.cancelled

    @property
    def session(self) -> Any:
        """The driver's session in whose transaction the step's result is stored: what is written with it is, too.

        Raises:
            NonRetriableError: The step is not declared ``transactional=True``, or this is not its handler.
        """
        session = self._ready(anywhere=True).session
        if session is None:
            raise NonRetriableError(
                "ctx.session: only in the handler of a step that is declared transactional=True", field="session"
            )
        return session

    @property
    def log(self) -> RunLog:
        """A standard logger that adds the run and step to its records, and keeps lines of level INFO up in the run."""
        return RunLog(self._attempt)

    @property
    def outputs(self) -> Outputs:
        """The outputs of the steps that are done, by step id."""
        return Outputs(self._attempt)

    def output(self, step: StepReference[T]) -> T:
        """Return the output of an earlier step, of its annotated type.

        Raises:
            StepOutputMissing: The step has not run, or was skipped.
            StepNotFound: The workflow has no such step.
        """
        return self.outputs[_id_of(step)]  # type: ignore[no-any-return]

    def idempotency_key(self, scope: str | None = None) -> str:
        """Return a key that is the same at every attempt and recovery of this step, for calls to other systems.

        A step that is done again, after a rewind or a jump back, has another one; so has its compensation.
        """
        place = self._attempt.memo.place
        visit = int(self._attempt.holding.run["steps"][place.k].get("generation", 0))
        step = f"{self.step_id}~{visit}" if visit else self.step_id
        parts = (self.tenant_id, self.run_id, step, "~undo" if place.undo else None, scope)
        return "/".join(part.replace("%", "%25").replace("/", "%2F") for part in parts if part)

    async def save(self) -> None:
        """Store the state now, instead of with the step's result."""
        await state_operations.save(self._ready())

    async def inc(self, path: str, n: float = 1) -> None:
        """Add `n` to the number at `path` of the state, such as ``"totals.sent"``, now and in one operation."""
        await state_operations.inc(self._ready(), path, n)

    async def push(self, path: str, value: Any) -> None:
        """Add a value at the end of the list at `path` of the state, now and in one operation."""
        await state_operations.push(self._ready(), path, value)

    async def put(self, path: str, key: str, value: Any) -> None:
        """Set a key of the mapping at `path` of the state, now and in one operation; path ``""`` is the state itself.

        Raises:
            InvalidKey: The key has a dot or a leading ``$``.
        """
        await state_operations.put(self._ready(), path, key, value)

    async def drop(self, path: str, key: str) -> None:
        """Remove a key of the mapping at `path` of the state, now and in one operation."""
        await state_operations.drop(self._ready(), path, key)

    def output_history(self, step: StepReference[T]) -> list[PastOutput[T]]:
        """Return the earlier outputs of a step that was done again, the oldest first.

        A step keeps as many as its ``output_history`` says.
        """
        return outputs_before(self._attempt, _id_of(step))

    async def pin_output(self, step: StepReference[Any], version: int) -> None:
        """Make an earlier output of a step the one that this and later steps see.

        Raises:
            StepOutputMissing: The step has no output of this version.
        """
        await pin_output(self._ready(), _id_of(step), version)


class Outputs(Mapping[str, Any]):
    """The outputs of finished steps by id; ``get`` answers None for a step that is not done."""

    def __init__(self, attempt: Surroundings) -> None:
        self._attempt = attempt

    def __getitem__(self, step_id: str) -> Any:
        """Return the output of a step; raise `StepOutputMissing` or `StepNotFound`."""
        definition: StepDefinition | None = self._attempt.find_step(step_id)
        if definition is None:
            raise StepNotFound(f"the workflow has no step {step_id!r}", field="step")
        for stored in self._attempt.holding.run["steps"]:
            if stored["id"] == step_id and _has_output(stored):
                return definition.output.decode(stored.get("output"))
        raise StepOutputMissing(f"step {step_id!r} has no output", field="step")

    def __contains__(self, step_id: object) -> bool:
        """Return whether the step is done."""
        return step_id in tuple(self)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the ids of the steps that are done."""
        return (stored["id"] for stored in self._attempt.holding.run["steps"] if _has_output(stored))

    def __len__(self) -> int:
        """Return how many steps are done."""
        return sum(1 for _ in self)

    def get(self, step_id: str, default: Any = None) -> Any:
        """Return the output of a step, or `default` where there is none."""
        try:
            return self[step_id]
        except (StepOutputMissing, StepNotFound):
            return default


def _has_output(step: Mapping[str, Any]) -> bool:
    return step["status"] == "done" and "output" in step


def _id_of(step: StepReference[Any] | str) -> str:
    # A type checker asks for the step; a caller without one may give its id.
    return step if isinstance(step, str) else step.id


async def settle_awaitable(value: Any) -> Any:
    """Return `value`, awaited where it can be."""
    return await value if inspect.isawaitable(value) and not isinstance(value, asyncio.Task) else value
