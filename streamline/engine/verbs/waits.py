"""Waiting for somebody: payloads, events, hooks, decisions, answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, overload

from streamline.domain.durations import Duration
from streamline.engine.primitives import asking
from streamline.engine.primitives.asking import OnToken
from streamline.engine.primitives.calling import MISSING
from streamline.engine.primitives.webhooks import Hook, create_hook
from streamline.engine.verbs.ready import Ready
from streamline.features.replies import Answer, Decision

T = TypeVar("T")


class Waits(Ready):
    """``wait``, ``wait_for``, ``create_hook``, ``approve``, ``ask``: the run is parked until there is an answer."""

    @overload
    async def wait(
        self,
        reason: str,
        *,
        data: Any = None,
        timeout: Duration | None = None,
        default: Any = ...,
        model: type[T],
        key: str | None = None,
    ) -> T: ...
    @overload
    async def wait(
        self,
        reason: str,
        *,
        data: Any = None,
        timeout: Duration | None = None,
        default: Any = ...,
        model: None = None,
        key: str | None = None,
    ) -> Any: ...

    async def wait(
        self,
        reason: str,
        *,
        data: Any = None,
        timeout: Duration | None = None,
        default: Any = MISSING,
        model: Any = None,
        key: str | None = None,
    ) -> Any:
        """Return the payload that ``app.resume(run_id, payload)`` brings.

        Args:
            reason: What is waited for, for people; up to 4,096 characters.
            data: Shown with the wait to whoever is to answer.
            timeout: How long to wait, from when this line is first reached; default for ever.
            default: Returned where nobody answers in time.
            model: What the payload is to be, any type that pydantic handles.
            key: Unique within the step; default numbered.

        Raises:
            WaitTimeout: Nobody answered in time, and there is no default.
            InvalidInput: The payload does not fit the model.
        """
        return await asking.wait(
            self._ready(), reason, data=data, timeout=timeout, default=default, model=model, key=key
        )

    async def wait_for(
        self,
        event: str,
        *,
        match: Mapping[str, Any] | None = None,
        timeout: Duration | None = None,
        default: Any = MISSING,
        model: Any = None,
        key: str | None = None,
    ) -> Any:
        """Return the payload of an event that ``app.send_event(event, payload, run_id=...)`` brings.

        An event that came before this line was reached is not lost: it is kept with the run, and taken here, once.

        Args:
            event: Its name.
            match: Values that the payload must have, by field path such as ``"order.id"``.
            timeout: As for `wait`.
            default: As for `wait`.
            model: As for `wait`.
            key: As for `wait`.

        Raises:
            WaitTimeout: It did not come in time, and there is no default.
        """
        return await asking.wait_for(
            self._ready(), event, match=match, timeout=timeout, default=default, model=model, key=key
        )

    async def create_hook(self, key: str, *, expires: Duration | None = None) -> Hook:
        """Return a one-time hook: whoever has its token can call it, once, from this line on.

        Args:
            key: Unique within the step.
            expires: How long it can be called; default as long as the step is not done.
        """
        return await create_hook(self._ready(), key, expires=expires)

    async def approve(
        self,
        reason: str,
        *,
        data: Any = None,
        approvers: Sequence[str] | None = None,
        timeout: Duration | None = None,
        on_timeout: Literal["approved", "rejected", "timed_out"] = "timed_out",
        key: str | None = None,
        on_token: OnToken | None = None,
    ) -> Decision:
        """Return the decision that somebody takes with ``app.approve``, ``reject`` or ``withdraw``.

        Args:
            reason: What is to be approved, for people.
            data: Shown with the approval.
            approvers: Who may decide: the ``by`` of whoever does must be among them. Default anybody.
            timeout: How long to wait; default for ever.
            on_timeout: The outcome where nobody decides in time.
            key: Unique within the step; default numbered.
            on_token: Told a one-time token that lets whoever has it decide, before the run is parked; after a crash
                it may be told the same token again.
        """
        return await asking.approve(
            self._ready(),
            reason,
            data=data,
            approvers=approvers,
            timeout=timeout,
            on_timeout=on_timeout,
            key=key,
            on_token=on_token,
        )

    async def ask(
        self,
        question: str,
        *,
        data: Any = None,
        model: Any = None,
        timeout: Duration | None = None,
        key: str | None = None,
        on_token: OnToken | None = None,
    ) -> Answer:
        """Return what somebody answers with ``app.answer``, or that nobody did in time.

        Args:
            question: For people.
            data: Shown with the question.
            model: What the answer is to be.
            timeout: As for `approve`.
            key: As for `approve`.
            on_token: As for `approve`.
        """
        return await asking.ask(
            self._ready(), question, data=data, model=model, timeout=timeout, key=key, on_token=on_token
        )
