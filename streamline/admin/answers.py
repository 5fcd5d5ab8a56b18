"""Answering runs: payloads, hooks, decisions, events; and who waits for what."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from streamline.admin.opened import Opened
from streamline.domain.run import Wait, read_waits
from streamline.engine.events.sending import Missing
from streamline.errors import InvalidInput, InvalidPolicy, NotWaiting
from streamline.features.replies import Decision
from streamline.workflow import Workflow

Startable = Workflow[Any, Any, Any] | str
OnApproval = Callable[[Wait], Awaitable[bool | Decision] | bool | Decision]


class Answers(Opened):
    """``resume``, ``resume_hook``, ``approve``, ``reject``, ``withdraw``, ``answer``, ``send_event``."""

    async def resume(self, run_id: str, payload: Any = None, *, key: str | None = None, by: str | None = None) -> None:
        """Answer a ``ctx.wait`` of a run; of several callers exactly one wins.

        Args:
            run_id: The run.
            payload: What the handler gets.
            key: Which wait, where there are several; default the oldest.
            by: Who answers.

        Raises:
            NotWaiting: The run waits for nothing of the kind, or somebody else was first.
            InvalidInput: The payload does not fit the wait's model; the wait goes on.
            RunNotFound: There is no such run.
        """
        await self._open_session.replying.resume(run_id, payload, self._scope, key=key, by=by)

    async def resume_hook(self, token: str, payload: Any = None) -> str:
        """Call a one-time hook and return the id of its run.

        Raises:
            HookNotFound: The token opens nothing. Unknown, used, expired and foreign tokens look alike.
        """
        return await self._open_session.replying.resume_hook(token, payload, self._scope)

    async def approve(
        self,
        token_or_run_id: str,
        data: Any = None,
        *,
        by: str | None = None,
        reason: str | None = None,
        key: str | None = None,
    ) -> None:
        """Approve what a run asks; by its id, or by a token that it gave away.

        Raises:
            NotWaiting: The run waits for no decision, or somebody else has decided.
            InvalidInput: ``by`` is not among the approvers.
            RunNotFound: There is no such run, and no such token.
            HookNotFound: The token was used, or has expired.
        """
        await self._decide(token_or_run_id, "approved", data, key=key, by=by, reason=reason)

    async def reject(
        self,
        token_or_run_id: str,
        data: Any = None,
        *,
        reason: str | None = None,
        by: str | None = None,
        key: str | None = None,
    ) -> None:
        """Reject what a run asks; errors as for `approve`."""
        await self._decide(token_or_run_id, "rejected", data, key=key, by=by, reason=reason)

    async def withdraw(
        self, token_or_run_id: str, *, reason: str | None = None, by: str | None = None, key: str | None = None
    ) -> None:
        """Take back what a run asks, an approval or a question; errors as for `approve`."""
        await self._decide(token_or_run_id, "withdrawn", None, key=key, by=by, reason=reason)

    async def answer(
        self, token_or_run_id: str, data: Any = None, *, by: str | None = None, key: str | None = None
    ) -> None:
        """Answer a question that a run asks; errors as for `approve`, and `InvalidInput` where it does not fit."""
        await self._open_session.replying.decide(
            token_or_run_id, ("question",), "answered", data, self._scope, key=key, by=by
        )

    async def send_event(
        self,
        name: str,
        payload: Any = None,
        *,
        run_id: str | None = None,
        match: Mapping[str, Any] | None = None,
        start_if_missing: Startable | tuple[Startable, Any] | None = None,
    ) -> int:
        """Send an event: what waits for it goes on, what is cancelled or started by it is, and it is kept for later.

        It is stored before anything else is done. From then on every run that exists and that it fits gets it, now or
        when it waits for it; where it has reached nobody, runs that start soon after get it, too.

        Args:
            name: The event's name.
            payload: What it brings.
            run_id: The one run that it is for.
            match: Which runs it is for: a Mongo filter over ``input``, ``state`` and ``metadata``; default all.
            start_if_missing: A workflow, or a workflow and an input. The event is for the active runs of this workflow,
                those of `run_id` or `match`; where there is none, one is started that has the event from its beginning,
                one alone however many senders there are. Without an input, the payload is the input.

        Returns:
            How many runs it has reached so far: whose wait it answered, which it cancelled or started, and with
            `run_id` or `start_if_missing` those that keep it.

        Raises:
            RunNotFound: There is no run with this `run_id`.
            InvalidQuery: `match` is not of the allowed form; nothing is stored.
            TenantRequired: ``app.all_tenants()`` sends it to no `run_id`, and nothing that it starts names a tenant.
            IdempotencyConflict: `run_id` is that of an ended run, or one of another workflow than is to be started.
        """
        missing = None if start_if_missing is None else self._missing(start_if_missing)
        scope = self._scope if missing is None else self._home
        sending = self._open_session.sending
        return await sending.send(name, payload, scope, run_id=run_id, match=match, missing=missing)

    def _missing(self, wanted: Any) -> Missing:
        workflow, *given = wanted if isinstance(wanted, tuple) else (wanted,)
        if len(given) > 1 or not isinstance(workflow, (Workflow, str)):
            raise InvalidPolicy("start_if_missing: a workflow, or a workflow and an input", field="start_if_missing")
        definition = workflow.definition if isinstance(workflow, Workflow) else self._registry.current(workflow)
        return Missing(definition, given[0] if given else None, has_input=bool(given))

    async def pending_waits(
        self,
        kind: str | None = None,
        *,
        workflow: Workflow[Any, Any, Any] | str | None = None,
        run_id: str | None = None,
        limit: int = 100,
    ) -> list[Wait]:
        """Return who waits for what, the oldest first; no token is in it.

        Args:
            kind: Only ``"wait"``, ``"event"``, ``"hook"``, ``"approval"`` or ``"question"``.
            workflow: Only runs of this workflow.
            run_id: Only this run.
            limit: 1 to 1,000.
        """
        name = workflow.name if isinstance(workflow, Workflow) else workflow
        return await self._open_session.replying.pending_waits(
            self._scope, kind=kind, workflow=name, run_id=run_id, limit=limit
        )

    async def _decide(
        self, token_or_run_id: str, outcome: str, data: Any, *, key: str | None, by: str | None, reason: str | None
    ) -> None:
        kinds = ("approval",) if outcome == "approved" else ("approval", "question")
        await self._open_session.replying.decide(
            token_or_run_id, kinds, outcome, data, self._scope, key=key, by=by, reason=reason
        )

    async def _decide_approvals(self, run: Mapping[str, Any], decide: OnApproval | None) -> None:
        """Decide what a run asks that somebody awaits: as they say, and without their saying anything, no."""
        for wait in read_waits(run):
            if wait.kind != "approval" or not wait.is_open:
                continue
            try:
                decision = _NOBODY if decide is None else await _said(decide, wait)
            except BaseException:
                await self._decide_as_app(wait, Decision("rejected", reason="on_approval raised"))
                raise
            await self._decide_as_app(wait, decision)

    async def _decide_as_app(self, wait: Wait, decision: Decision) -> None:
        with suppress(NotWaiting):  # somebody else was first
            await self._open_session.replying.decide(
                wait.run_id,
                ("approval",),
                decision.outcome,
                decision.data,
                self._scope,
                key=wait.key,
                by=decision.by,
                reason=decision.reason,
                authority=True,
            )


_NOBODY = Decision("rejected", reason="nobody is there to approve")


async def _said(decide: OnApproval, wait: Wait) -> Decision:
    found = decide(wait)
    said = await found if inspect.isawaitable(found) else found
    if isinstance(said, bool):
        return Decision("approved" if said else "rejected")
    if not isinstance(said, Decision) or said.outcome == "timed_out":
        raise InvalidInput("on_approval: returns True, False or a Decision", field="on_approval")
    return said
