"""What a handler is given: who and where it is, its values, and the durable calls."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping
from datetime import datetime
from typing import Any, Generic, overload

from typing_extensions import TypeVar

from streamline.domain.definition import StepDefinition, StepReference
from streamline.domain.durations import Duration, check_instant, parse_duration
from streamline.domain.payloads import copied
from streamline.domain.policies import RetryPolicy
from streamline.engine.calling import MISSING, call_durably
from streamline.engine.memo import Memo, Suspension, due_of
from streamline.engine.surroundings import UNREAD, Surroundings
from streamline.errors import ContextClosed, StepNotFound, StepOutputMissing

InputT = TypeVar("InputT", default=Any)
StateT = TypeVar("StateT", default=Any)
T = TypeVar("T")


class Context(Generic[InputT, StateT]):
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
        log: A standard logger that adds the run and step to its records.
    """

    def __init__(self, attempt: Surroundings) -> None:
        run = attempt.holding.run
        self._attempt = attempt
        self._memo = Memo(attempt.holding, attempt.clock.now)
        self._flags = attempt.flags
        self.run_id: str = run["_id"]
        self.workflow: str = run["workflow"]
        self.version: str = run["version"]
        self.step_id: str = attempt.step.id
        self.attempt: int = run["attempt"]
        self.tenant_id: str | None = run.get("tenant_id")
        self.tags: tuple[str, ...] = tuple(run.get("tags", ()))
        self.metadata: Mapping[str, Any] = copied(run.get("metadata", {}))
        self.input: InputT = attempt.decoded_input()

    @property
    def state(self) -> StateT:
        """The run's state; changes to it are stored with the step's result."""
        if self._flags.state is UNREAD:
            self._flags.state = self._attempt.decoded_state()
        return self._flags.state  # type: ignore[no-any-return]

    @state.setter
    def state(self, value: StateT) -> None:
        self._flags.state = value

    @property
    def cancelled(self) -> bool:
        """Whether the handler has been told to end; for handlers in threads, which cannot be interrupted."""
        return self._flags.cancelled

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A standard logger that adds ``run_id``, ``workflow``, ``step_id`` and ``attempt`` to its records."""
        extra = {"run_id": self.run_id, "workflow": self.workflow, "step_id": self.step_id, "attempt": self.attempt}
        return logging.LoggerAdapter(logging.getLogger(f"streamline.workflow.{self.workflow}"), extra)

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
        return self.outputs[step.id]  # type: ignore[no-any-return]

    def idempotency_key(self, scope: str | None = None) -> str:
        """Return a key that is the same at every attempt and recovery of this step, for calls to other systems."""
        parts = [*([self.tenant_id] if self.tenant_id else []), self.run_id, self.step_id, *([scope] if scope else [])]
        return "/".join(parts)

    @overload
    async def call(
        self,
        key: str,
        fn: Callable[..., Coroutine[Any, Any, T]],
        *args: Any,
        retry: RetryPolicy | None = None,
        timeout: Duration | None = None,
        default: T = ...,
    ) -> T: ...
    @overload
    async def call(
        self,
        key: str,
        fn: Callable[..., T],
        *args: Any,
        retry: RetryPolicy | None = None,
        timeout: Duration | None = None,
        default: T = ...,
    ) -> T: ...

    async def call(
        self,
        key: str,
        fn: Callable[..., Any],
        *args: Any,
        retry: RetryPolicy | None = None,
        timeout: Duration | None = None,
        default: Any = MISSING,
    ) -> Any:
        """Call `fn` with `args` once: its result is stored before it is returned, and comes back at every re-entry.

        Args:
            key: Unique within the step.
            fn: A coroutine function, or a plain function, which runs in a thread.
            args: Passed on.
            retry: How often a failing call is tried within this attempt; default once.
            timeout: How long one try may take.
            default: Stored and returned where the call fails for good; without it the error is raised, nothing is
                stored, and a later attempt calls again.

        Raises:
            NonDeterministicStep: The key holds a durable call of another kind.
            InvalidKey: The key is not of the allowed form, or was used before in this attempt.
        """
        self._check_open()
        return await call_durably(
            self._memo, self._attempt, key, fn, args, retry=retry, timeout=timeout, default=default
        )

    async def sleep(self, duration: Duration, *, key: str | None = None) -> None:
        """Return once `duration` has passed since this line was first reached.

        The run is parked meanwhile, and the handler entered again when the time has come.
        """
        await self._sleep(lambda: self._attempt.clock.now() + parse_duration(duration, "duration"), key)

    async def sleep_until(self, instant: datetime, *, key: str | None = None) -> None:
        """Return once `instant`, an aware datetime, has come."""
        due_at = check_instant(instant, "instant")
        await self._sleep(lambda: due_at, key)

    async def save(self) -> None:
        """Store the state now, instead of with the step's result."""
        self._check_open()
        await self._attempt.save(self.state)

    async def _sleep(self, due: Callable[[], datetime], key: str | None) -> None:
        self._check_open()
        address, entry = self._memo.find("sleep", key)
        due_at = due() if entry is None else due_of(entry)
        if entry is not None and due_at <= self._attempt.clock.now():
            return
        self._flags.suspended = (address, due_at)
        raise Suspension

    def _check_open(self) -> None:
        if self._flags.closed:
            raise ContextClosed(f"step {self.step_id}: its attempt has ended", field="ctx")


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
            if stored["id"] == step_id and stored["status"] == "done":
                return definition.output.decode(stored.get("output"))
        raise StepOutputMissing(f"step {step_id!r} has no output", field="step")

    def __contains__(self, step_id: object) -> bool:
        """Return whether the step is done."""
        return step_id in tuple(self)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the ids of the steps that are done."""
        return (stored["id"] for stored in self._attempt.holding.run["steps"] if stored["status"] == "done")

    def __len__(self) -> int:
        """Return how many steps are done."""
        return sum(1 for _ in self)

    def get(self, step_id: str, default: Any = None) -> Any:
        """Return the output of a step, or `default` where there is none."""
        try:
            return self[step_id]
        except (StepOutputMissing, StepNotFound):
            return default


async def settle_awaitable(value: Any) -> Any:
    """Return `value`, awaited where it can be."""
    return await value if inspect.isawaitable(value) and not isinstance(value, asyncio.Task) else value
