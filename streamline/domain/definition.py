"""A workflow as the engine sees it: frozen, checked, without decorators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Generic, Literal

from typing_extensions import TypeVar

from streamline.domain.flow import Concurrency, Debounce, Throttle
from streamline.domain.payloads import Codec
from streamline.domain.policies import RetryPolicy
from streamline.domain.reactions import CancelOn, Trigger

OnError = Literal["fail", "skip"]
Predicate = Callable[[Any], Any]
OutT_co = TypeVar("OutT_co", covariant=True, default=Any)
InT = TypeVar("InT", default=Any)
OutT = TypeVar("OutT", default=Any)


class StepReference(Generic[OutT_co]):
    """A step's id, together with the type of its output."""

    def __init__(self, step_id: str) -> None:
        self.id = step_id


class WorkflowReference(Generic[InT, OutT]):
    """A workflow, together with the types of its input and output."""

    @property
    def definition(self) -> Definition:
        """The workflow as the engine sees it."""
        raise AttributeError("definition")


@dataclass(frozen=True, slots=True)
class CompensationDefinition:
    """How a step is undone: its handler takes the context and the step's output."""

    handler: Callable[..., Any]
    threaded: bool
    retry: RetryPolicy
    timeout: timedelta | None = None


@dataclass(frozen=True, slots=True)
class StepDefinition:
    """One step: its handler and the rules around it."""

    id: str
    handler: Callable[..., Any]
    threaded: bool
    output: Codec
    retry: RetryPolicy
    timeout: timedelta | None = None
    skip_if: Predicate | None = None
    run_if: Predicate | None = None
    on_error: OnError = "fail"
    group: str | None = None
    output_history: int = 0
    transactional: bool = False
    compensation: CompensationDefinition | None = None


@dataclass(frozen=True, slots=True)
class Definition:
    """One version of a workflow.

    `route` is what claims match: a run is only ever driven by the version that it was started with.
    """

    name: str
    version: str
    steps: tuple[StepDefinition, ...]
    input: Codec
    state: Codec | None
    idempotency_key: Callable[[Any], str | None] | None = None
    max_payload_bytes: int | None = None
    retention: Mapping[str, timedelta] = field(default_factory=dict)
    run_timeout: timedelta | None = None
    start_by: timedelta | None = None
    compensate_on: frozenset[str] = frozenset({"failed"})
    hooks: tuple[Any, ...] = ()
    guards: tuple[Callable[..., Any], ...] = ()
    concurrency: Concurrency | None = None
    throttle: Throttle | None = None
    debounce: Debounce | None = None
    cancel_on: tuple[CancelOn, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    migrations: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    is_gated: bool = field(init=False)
    route: str = field(init=False)
    index: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        """Derive what is looked up again and again."""
        gates = (self.concurrency, self.throttle, self.debounce)
        object.__setattr__(self, "is_gated", any(gate is not None for gate in gates))
        object.__setattr__(self, "route", route_of(self.name, self.version))
        object.__setattr__(self, "index", MappingProxyType({step.id: i for i, step in enumerate(self.steps)}))

    @property
    def is_transactional(self) -> bool:
        """Whether any of its steps needs a database that has transactions."""
        return any(step.transactional for step in self.steps)


def route_of(workflow: str, version: str) -> str:
    """Return the value of a run's ``route`` field for this workflow and version."""
    return f"{workflow}@{version}"


def versioned(route: str) -> tuple[str, str]:
    """Return the workflow and the version that a ``route`` stands for."""
    workflow, _, version = route.partition("@")
    return workflow, version
