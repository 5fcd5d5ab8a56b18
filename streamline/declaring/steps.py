"""Declared steps, and what declares them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, overload

from typing_extensions import TypeVar

from streamline.domain.definition import StepReference
from streamline.domain.durations import Duration
from streamline.domain.policies import RetryPolicy
from streamline.engine.driving.context import Context
from streamline.errors import DefinitionError

InputT = TypeVar("InputT", default=Any)
StateT = TypeVar("StateT", default=Any)
T = TypeVar("T")
R = TypeVar("R")

AddCompensation = Callable[..., Any]


class WorkflowStep(StepReference[T]):
    """A declared step; pass it to ``ctx.output(...)``, and call its handler as ``step.fn(ctx)`` in unit tests.

    Attributes:
        id: The step's id within its workflow.
        fn: The handler as it was written.
    """

    def __init__(self, step_id: str, fn: Callable[..., Any], add: AddCompensation | None = None) -> None:
        super().__init__(step_id)
        self.fn = fn
        self._add = add

    @overload
    def compensate(self, fn: Callable[[Context[Any, Any], T], R], /) -> Callable[[Context[Any, Any], T], R]: ...
    @overload
    def compensate(
        self, *, retry: RetryPolicy | None = None, max_attempts: int | None = None, timeout: Duration | None = None
    ) -> Callable[[Callable[[Context[Any, Any], T], R]], Callable[[Context[Any, Any], T], R]]: ...

    def compensate(self, fn: Any = None, **rules: Any) -> Any:
        """Declare how the step is undone, as ``@step.compensate`` or ``@step.compensate(...)``.

        The handler takes the context and the step's output. It is called where the run fails after the step was done,
        the step that was done last first.

        Args:
            fn: The handler.
            rules: ``retry``, ``max_attempts``, ``timeout``: as for a step; default the workflow's.
        """
        if self._add is None:
            raise DefinitionError(f"step {self.id}: it cannot be compensated", field="compensate")
        add = self._add
        if fn is not None:
            return add(fn)
        return lambda handler: add(handler, **rules)

    def __repr__(self) -> str:
        """Name the step."""
        return f"<step {self.id}>"


class StepDecorator(Protocol[InputT, StateT]):
    """What ``@wf.step(...)`` returns: turns a handler into a step."""

    @overload
    def __call__(self, fn: Callable[[Context[InputT, StateT]], Coroutine[Any, Any, T]], /) -> WorkflowStep[T]: ...
    @overload
    def __call__(self, fn: Callable[[Context[InputT, StateT]], T], /) -> WorkflowStep[T]: ...
