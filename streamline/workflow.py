"""Declaring workflows: plain objects without I/O, checked as they are written."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, Generic, overload

from typing_extensions import TypeVar

from streamline.declaring.ready_steps import ReadySteps
from streamline.declaring.rules import (
    check_handler,
    checked_ends,
    checked_gate,
    checked_guards,
    checked_history,
    checked_payload_limit,
    checked_retention,
    checked_retry,
    checked_timeout,
    checked_transactional,
    is_coroutine_function,
    policy,
)
from streamline.declaring.steps import StepDecorator, WorkflowStep
from streamline.domain.annotations import return_codec
from streamline.domain.definition import CompensationDefinition, Definition, OnError, StepDefinition, WorkflowReference
from streamline.domain.durations import Duration
from streamline.domain.flow import Concurrency, Debounce, Throttle
from streamline.domain.names import check_name, check_version
from streamline.domain.payloads import ANY, Codec
from streamline.domain.policies import RetryPolicy
from streamline.domain.reactions import CancelOn, Trigger, checked_cancel_on, checked_triggers
from streamline.domain.run import Run
from streamline.engine.driving.context import Context
from streamline.errors import DefinitionError, DuplicateStep, InvalidPolicy

InputT = TypeVar("InputT", default=Any)
StateT = TypeVar("StateT", default=Any)
OutputT = TypeVar("OutputT", default=Any)
T = TypeVar("T")

MigrateT = TypeVar("MigrateT", bound=Callable[[Run], Any])

STEPS_MAX = 1_000


class Workflow(ReadySteps[InputT, StateT], WorkflowReference[InputT, OutputT], Generic[InputT, StateT, OutputT]):
    """One version of a workflow: its steps run in the order in which they are declared.

    Args:
        name: 1 to 100 letters, digits, ``_`` and ``-``, not digits alone.
        version: A run is only ever driven by code of the version that it was started with.
        input: Type of the input, any that pydantic handles; default anything that can be stored as it is.
        state: Type of the state that steps share.
        output: Type of the last step's output; default that step's annotation.
        title: For people.
        description: For people.
        retry: Default policy of the steps.
        timeout: Default limit of one attempt.
        run_timeout: How long a run may take, from when it is to begin; past that it fails, and is compensated.
        start_by: How long a run may wait for its first step; past that it fails without having begun.
        compensate_on: Which ends of a run let it be compensated first: ``"failed"``, ``"cancelled"``.
        hooks: Observers, see `Hooks`: told of every handler and branch, unable to harm.
        guards: Functions of the context and a branch's key, None for the step itself; one that returns False or a
            reason, or raises, fails the step or branch for good.
        idempotency_key: Derives the key of a start from the validated input, where the caller gives none.
        concurrency: How many runs may be at work at once.
        throttle: How many runs may begin in a window of time.
        debounce: How starts that follow one another closely become one run.
        triggers: What starts runs by itself: `OnEvent`, `OnCompletion`.
        cancel_on: Which events cancel a run: `CancelOn`.
        retention: How long ended runs are kept: a duration, or durations by terminal status; default for ever.
        max_payload_bytes: Limit of one input, output or state; default the app's.

    Raises:
        DefinitionError: An argument is not of the allowed form; names the field.
    """

    def __init__(
        self,
        name: str,
        *,
        version: str = "1.0.0",
        input: type[InputT] | None = None,
        state: type[StateT] | None = None,
        output: type[OutputT] | None = None,
        title: str | None = None,
        description: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: Duration | None = None,
        run_timeout: Duration | None = None,
        start_by: Duration | None = None,
        compensate_on: Collection[str] = frozenset({"failed"}),
        hooks: Sequence[Any] = (),
        guards: Sequence[Callable[..., Any]] = (),
        idempotency_key: Callable[[InputT], str | None] | None = None,
        concurrency: Concurrency | None = None,
        throttle: Throttle | None = None,
        debounce: Debounce | None = None,
        triggers: Sequence[Trigger] = (),
        cancel_on: Sequence[CancelOn] = (),
        retention: Duration | Mapping[str, Duration] | None = None,
        max_payload_bytes: int | None = None,
    ) -> None:
        self.name = check_name(name, "name")
        self.version = check_version(version)
        self.title = title
        self.description = description
        self._input = ANY if input is None else Codec(input, "input")
        self._state = None if state is None else Codec(state, "state")
        self._output = None if output is None else Codec(output, "output")
        self._retry = checked_retry(retry) or RetryPolicy()
        self._timeout = checked_timeout(timeout)
        self._run_timeout = checked_timeout(run_timeout, "run_timeout")
        self._start_by = checked_timeout(start_by, "start_by")
        self._compensate_on = checked_ends(compensate_on)
        self._hooks, self._guards = tuple(hooks), checked_guards(guards)
        if idempotency_key is not None and not callable(idempotency_key):
            raise InvalidPolicy("idempotency_key: a function of the input", field="idempotency_key")
        self._idempotency_key = idempotency_key
        self._concurrency = checked_gate(concurrency, Concurrency, "concurrency")
        self._throttle = checked_gate(throttle, Throttle, "throttle")
        self._debounce = checked_gate(debounce, Debounce, "debounce")
        self._triggers, self._cancel_on = checked_triggers(triggers), checked_cancel_on(cancel_on)
        self._retention = checked_retention(retention)
        self._max_payload_bytes = checked_payload_limit(max_payload_bytes)
        self._steps: dict[str, StepDefinition] = {}
        self._migrations: dict[str, Callable[[Any], Any]] = {}
        self._definition: Definition | None = None

    @overload
    def step(self, fn: Callable[[Context[InputT, StateT]], Coroutine[Any, Any, T]], /) -> WorkflowStep[T]: ...
    @overload
    def step(self, fn: Callable[[Context[InputT, StateT]], T], /) -> WorkflowStep[T]: ...
    @overload
    def step(
        self,
        id: str | None = None,
        *,
        retry: RetryPolicy | None = None,
        max_attempts: int | None = None,
        timeout: Duration | None = None,
        skip_if: Callable[[Context[InputT, StateT]], bool | Awaitable[bool]] | None = None,
        run_if: Callable[[Context[InputT, StateT]], bool | Awaitable[bool]] | None = None,
        on_error: OnError = "fail",
        group: str | None = None,
        transactional: bool = False,
        output_history: int = 0,
    ) -> StepDecorator[InputT, StateT]: ...

    def step(self, id: Any = None, **rules: Any) -> Any:
        """Declare the next step, as ``@wf.step`` or ``@wf.step(...)``.

        Args:
            id: The step's id; default the handler's name.
            rules: ``retry``: when a failed attempt is followed by another, default the workflow's policy.
                ``max_attempts``: short for ``retry=RetryPolicy(max_attempts=...)``.
                ``timeout``: limit of one attempt, default the workflow's.
                ``skip_if``: takes the context, may be async; the step is skipped where it holds.
                ``run_if``: the opposite; a predicate that raises fails the step.
                ``on_error``: ``"skip"`` lets the run go on where the step fails for good.
                ``group``: steps that share it and stand next to each other run at the same time.
                ``transactional``: what the handler writes with ``ctx.session``, and the write that completes the step,
                are one transaction; not with ``group``, nor for a plain function.
                ``output_history``: how many earlier outputs are kept where the step is done again; 0 to 100.

        Raises:
            DefinitionError: An argument is not of the allowed form; names the field.
        """
        frame = inspect.currentframe()
        names = frame.f_back.f_locals if frame is not None and frame.f_back is not None else {}
        if callable(id):
            return self._declare(id, None, names, **rules)
        return lambda handler: self._declare(handler, id, names, **rules)

    def migrate(self, version: str) -> Callable[[MigrateT], MigrateT]:
        """Say how runs of another version are carried over to this one: ``@wf.migrate("1.0.0")``.

        The function takes the `Run`, may be async, and returns a `Migration`, or None: then the run goes on at the step
        of the same id, with what it has settled there. It must only look: it may be called more than once. A run is
        carried over while nobody drives it, once; where the function raises, or the run does not fit, it is left.

        Raises:
            DefinitionError: The version is this workflow's own, or has a function already.
        """
        check_version(version)
        if version == self.version or version in self._migrations:
            raise DefinitionError(f"migrate: not from {version!r} once more, nor from itself", field="migrate")
        if self._definition is not None:
            raise DefinitionError(f"workflow {self.name}: it is registered already", field="migrate")

        def declare(how: MigrateT) -> MigrateT:
            check_handler(how)
            self._migrations[version] = how
            return how

        return declare

    @property
    def definition(self) -> Definition:
        """The workflow as the engine sees it; no step can be added afterwards.

        Raises:
            DefinitionError: The workflow has no steps.
        """
        if self._definition is None:
            if not self._steps:
                raise DefinitionError(f"workflow {self.name}: it has no steps", field="steps")
            self._definition = Definition(
                name=self.name,
                version=self.version,
                steps=self._ordered_steps(),
                input=self._input,
                state=self._state,
                idempotency_key=self._idempotency_key,
                max_payload_bytes=self._max_payload_bytes,
                retention=self._retention,
                run_timeout=self._run_timeout,
                start_by=self._start_by,
                compensate_on=self._compensate_on,
                hooks=self._hooks,
                guards=self._guards,
                concurrency=self._concurrency,
                throttle=self._throttle,
                debounce=self._debounce,
                cancel_on=self._cancel_on,
                triggers=self._triggers,
                migrations=dict(self._migrations),
            )
        return self._definition

    def mermaid(self) -> str:
        """Return a Mermaid flowchart of the steps."""
        steps = tuple(self._steps.values())
        nodes = [f'    s{i}["{step.id}"]' for i, step in enumerate(steps)]
        ends = ["start", *(f"s{i}" for i in range(len(steps))), "finish"]
        edges = [f"    {a} --> {b}" for a, b in pairwise(ends)]
        skips = [
            f"    {ends[i]} -. skip .-> {ends[i + 2]}" for i, step in enumerate(steps) if step.skip_if or step.run_if
        ]
        lines = [
            "flowchart TD",
            f"    start([{self.name} {self.version}])",
            *nodes,
            "    finish([done])",
            *edges,
            *skips,
        ]
        return "\n".join(lines) + "\n"

    def __repr__(self) -> str:
        """Name the workflow and its version."""
        return f"<workflow {self.name}@{self.version}>"

    def _ordered_steps(self) -> tuple[StepDefinition, ...]:
        """The last step's output is the run's: where the workflow declares its type, that is the step's."""
        *others, last = self._steps.values()
        return (*others, last if self._output is None else replace(last, output=self._output))

    def _declare(self, fn: Any, step_id: str | None, names: Mapping[str, Any], **rules: Any) -> WorkflowStep[Any]:
        if self._definition is not None:
            raise DefinitionError(
                f"workflow {self.name}: it is registered already; declare every step before", field="steps"
            )
        check_handler(fn)
        name = check_name(getattr(fn, "__name__", None) if step_id is None else step_id, "step id")
        if name in self._steps:
            raise DuplicateStep(f"workflow {self.name}: step {name!r} is declared twice", field="id")
        if len(self._steps) == STEPS_MAX:
            raise DefinitionError(f"workflow {self.name}: at most {STEPS_MAX} steps", field="steps")
        self._steps[name] = self._step_definition(name, fn, names, **rules)
        return WorkflowStep(name, fn, partial(self._add_compensation, name))

    def _declare_ready(self, step_id: str, handler: Callable[..., Any], output: Codec | None, **rules: Any) -> Any:
        step = self._declare(handler, step_id, {}, **rules)
        self._steps[step.id] = replace(self._steps[step.id], output=output or ANY)
        return step

    def _add_compensation(self, step_id: str, fn: Any, **rules: Any) -> Any:
        if self._definition is not None:
            raise DefinitionError(
                f"workflow {self.name}: it is registered already; declare every compensation before", field="compensate"
            )
        step = self._steps[step_id]
        if step.compensation is not None:
            raise DefinitionError(f"step {step_id}: its compensation is declared twice", field="compensate")
        check_handler(fn, arguments=2)
        self._steps[step_id] = replace(step, compensation=self._compensation(fn, **rules))
        return fn

    def _compensation(
        self,
        fn: Any,
        *,
        retry: RetryPolicy | None = None,
        max_attempts: int | None = None,
        timeout: Duration | None = None,
    ) -> CompensationDefinition:
        return CompensationDefinition(
            handler=fn,
            threaded=not is_coroutine_function(fn),
            retry=policy(checked_retry(retry), max_attempts) or self._retry,
            timeout=self._timeout if timeout is None else checked_timeout(timeout),
        )

    def _step_definition(
        self,
        step_id: str,
        fn: Callable[..., Any],
        names: Mapping[str, Any],
        *,
        retry: RetryPolicy | None = None,
        max_attempts: int | None = None,
        timeout: Duration | None = None,
        skip_if: Callable[..., Any] | None = None,
        run_if: Callable[..., Any] | None = None,
        on_error: OnError = "fail",
        group: str | None = None,
        transactional: bool = False,
        output_history: int = 0,
    ) -> StepDefinition:
        if on_error not in ("fail", "skip"):
            raise InvalidPolicy('on_error: "fail" or "skip"', field="on_error")
        for name, predicate in (("skip_if", skip_if), ("run_if", run_if)):
            if predicate is not None and not callable(predicate):
                raise InvalidPolicy(f"{name}: a function of the context", field=name)
        return StepDefinition(
            id=step_id,
            handler=fn,
            threaded=not is_coroutine_function(fn),
            output=return_codec(fn, f"step {step_id}", names),
            retry=policy(checked_retry(retry), max_attempts) or self._retry,
            timeout=self._timeout if timeout is None else checked_timeout(timeout),
            skip_if=skip_if,
            run_if=run_if,
            on_error=on_error,
            group=None if group is None else check_name(group, "group"),
            output_history=checked_history(output_history),
            transactional=checked_transactional(step_id, fn, group, transactional=transactional),
        )
