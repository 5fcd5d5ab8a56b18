"""Steps that are declared without a handler: each waits for one thing, and its output is what came."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Generic, Literal, TypeVar

from typing_extensions import TypeVar as DefaultTypeVar

from streamline.declaring.steps import WorkflowStep
from streamline.domain.definition import StepReference
from streamline.domain.durations import Duration, parse_duration
from streamline.domain.payloads import Codec
from streamline.engine.driving.context import Context
from streamline.engine.primitives.asking import check_on_timeout
from streamline.engine.primitives.calling import MISSING
from streamline.errors import InvalidPolicy, WaitTimeout
from streamline.features.replies import Decision

InputT = DefaultTypeVar("InputT", default=Any)
StateT = DefaultTypeVar("StateT", default=Any)
J = TypeVar("J")

OnTimeout = Literal["fail", "skip"] | StepReference[Any]
Wait = Callable[[Any], Awaitable[Any]]


class ReadySteps(Generic[InputT, StateT]):
    """``wait_step``, ``event_step``, ``approval_step``, ``sleep_step``, ``poll_step``."""

    @abstractmethod
    def _declare_ready(self, step_id: str, handler: Callable[..., Any], output: Codec | None, **rules: Any) -> Any:
        """Declare a step with a handler that is written here."""

    def wait_step(
        self,
        id: str,
        *,
        reason: str,
        data: Any = None,
        model: Any = None,
        timeout: Duration | None = None,
        on_timeout: OnTimeout = "fail",
        default: Any = MISSING,
    ) -> WorkflowStep[Any]:
        """Declare a step whose output is the payload that ``app.resume(run_id, payload)`` brings.

        Args:
            id: The step's id.
            reason: What is waited for, for people.
            data: Shown with the wait.
            model: What the payload is to be.
            timeout: How long to wait; default for ever.
            on_timeout: Where nobody answers in time: ``"fail"`` the step, ``"skip"`` it, or a step to go on at.
            default: The output where nobody answers in time, instead.
        """

        async def wait(ctx: Context[Any, Any]) -> Any:
            return await ctx.wait(reason, data=data, timeout=timeout, default=default, model=model, key=id)

        return self._waiting(id, wait, model, timeout, on_timeout)

    def event_step(
        self,
        id: str,
        *,
        event: str,
        match: Mapping[str, Any] | None = None,
        model: Any = None,
        timeout: Duration | None = None,
        on_timeout: OnTimeout = "fail",
        default: Any = MISSING,
    ) -> WorkflowStep[Any]:
        """Declare a step whose output is the payload of an event; arguments as for `wait_step` and ``ctx.wait_for``."""

        async def wait_for(ctx: Context[Any, Any]) -> Any:
            return await ctx.wait_for(event, match=match, timeout=timeout, default=default, model=model, key=id)

        return self._waiting(id, wait_for, model, timeout, on_timeout)

    def approval_step(
        self,
        id: str,
        *,
        reason: str,
        data: Any = None,
        approvers: Sequence[str] | None = None,
        timeout: Duration | None = None,
        on_timeout: Literal["approved", "rejected", "timed_out"] = "timed_out",
    ) -> WorkflowStep[Decision]:
        """Declare a step whose output is a `Decision`; arguments as for ``ctx.approve``."""
        check_on_timeout(on_timeout)
        if timeout is not None:
            parse_duration(timeout, "timeout")

        async def approve(ctx: Context[Any, Any]) -> Decision:
            return await ctx.approve(
                reason, data=data, approvers=approvers, timeout=timeout, on_timeout=on_timeout, key=id
            )

        return self._declare_ready(id, approve, Codec(Decision, f"step {id}"))  # type: ignore[no-any-return]

    def sleep_step(self, id: str, duration: Duration) -> WorkflowStep[None]:
        """Declare a step that does nothing for a while."""
        parse_duration(duration, "duration")

        async def sleep(ctx: Context[Any, Any]) -> None:
            await ctx.sleep(duration, key=id)

        return self._declare_ready(id, sleep, Codec(type(None), f"step {id}"))  # type: ignore[no-any-return]

    def poll_step(
        self,
        id: str,
        *,
        submit: Callable[[Context[InputT, StateT]], Coroutine[Any, Any, J] | J],
        check: Callable[[Context[InputT, StateT], J], Any],
        every: Duration,
        max_wait: Duration | None = None,
    ) -> WorkflowStep[Any]:
        """Declare a step that submits a job elsewhere, once, and looks after it until it has a result.

        Args:
            id: The step's id.
            submit: Takes the context and returns what the job is known by; stored.
            check: Takes the context and what `submit` returned; returns the result, or None while there is none.
            every: Pause between two looks.
            max_wait: How long to look; past it the step fails. Default for ever.
        """
        parse_duration(every, "every", positive=True)
        if max_wait is not None:
            parse_duration(max_wait, "max_wait")

        async def look(ctx: Context[InputT, StateT]) -> Any:
            begin: Callable[..., Any] = partial(submit, ctx)
            job: Any = await ctx.call("submit", begin)

            return await ctx.poll("result", partial(check, ctx, job), every=every, max_wait=max_wait)

        return self._declare_ready(id, look, None)  # type: ignore[no-any-return]

    def _waiting(
        self, step_id: str, wait: Wait, model: Any, timeout: Duration | None, on_timeout: OnTimeout
    ) -> WorkflowStep[Any]:
        if on_timeout not in ("fail", "skip") and not isinstance(on_timeout, StepReference):
            raise InvalidPolicy('on_timeout: "fail", "skip" or a step', field="on_timeout")
        if timeout is not None:
            parse_duration(timeout, "timeout")

        async def handler(ctx: Context[Any, Any]) -> Any:
            try:
                return await wait(ctx)
            except WaitTimeout:
                if isinstance(on_timeout, StepReference):
                    ctx.goto(on_timeout)
                raise

        codec = None if model is None else Codec(model, f"step {step_id}")
        rules = {"on_error": "skip"} if on_timeout == "skip" else {}
        return self._declare_ready(step_id, handler, codec, **rules)  # type: ignore[no-any-return]
