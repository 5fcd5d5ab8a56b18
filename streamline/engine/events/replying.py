"""Answers from outside: to waits, hooks, approvals and questions; who waits for what; events for runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from streamline.domain.names import check_note
from streamline.domain.payloads import NO_VALUE, Codec, Encoded, codec_of
from streamline.domain.run import Wait, read_waits
from streamline.domain.statuses import TERMINAL
from streamline.domain.transitions.answering import Reply, Target
from streamline.engine.control import Control
from streamline.engine.held.limits import check_payload
from streamline.engine.held.loaded import loaded
from streamline.engine.runtime import Runtime
from streamline.errors import HookNotFound, InvalidInput, InvalidQuery, NotWaiting, RunNotFound
from streamline.features.tokens import hash_of
from streamline.store import Scope, statements

KINDS = ("approval", "event", "hook", "question", "wait")
_TOKEN_LENGTH = 43
_PLAIN_MODELS = (bool, int, float, str, dict, list)


class Replying:
    """Brings answers to runs; of several for one wait, exactly one wins."""

    def __init__(self, runtime: Runtime, control: Control) -> None:
        self._runtime = runtime
        self._control = control

    async def resume(self, run_id: str, payload: Any, scope: Scope, *, key: str | None, by: str | None) -> None:
        """Answer a wait of a run; a hook only where it is meant by its key."""
        kinds = ("wait",) if key is None else ("wait", "hook")
        await self._answer(run_id, Target(kinds, key), "answered", payload, scope, by=by)

    async def resume_hook(self, token: str, payload: Any, scope: Scope) -> str:
        """Answer a hook by its token and return the run's id.

        Raises:
            HookNotFound: The token opens nothing: unknown, used, expired or another tenant's, which look alike.
        """
        run = await self._by_token(token, scope)
        try:
            await self._answer(run["_id"], Target(("hook",), hash=hash_of(token)), "answered", payload, scope, by=None)
        except NotWaiting as error:
            raise HookNotFound("the token opens nothing", field="token") from error
        return str(run["_id"])

    async def decide(
        self,
        token_or_run_id: str,
        kinds: Collection[str],
        outcome: str,
        payload: Any,
        scope: Scope,
        *,
        key: str | None = None,
        by: str | None = None,
        reason: str | None = None,
        authority: bool = False,
    ) -> None:
        """Answer an approval or question, by its token or by the run that asks."""
        run = await self._of_token(token_or_run_id, scope)
        run_id, target = token_or_run_id, Target(kinds, key)
        if run is not None:
            run_id, target = run["_id"], Target((*kinds, "hook"), hash=hash_of(token_or_run_id))
        try:
            await self._answer(run_id, target, outcome, payload, scope, by=by, reason=reason, authority=authority)
        except (NotWaiting, RunNotFound) as error:
            if run is None and not (isinstance(error, RunNotFound) and _is_like_token(token_or_run_id)):
                raise
            raise HookNotFound("the token opens nothing", field="token") from error

    async def pending_waits(
        self, scope: Scope, *, kind: str | None, workflow: str | None, run_id: str | None, limit: int
    ) -> list[Wait]:
        """Return who waits for what, the oldest first; no token is in it."""
        if kind is not None and kind not in KINDS:
            raise InvalidQuery(f"kind: one of {', '.join(KINDS)}", field="kind")
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= 1000:
            raise InvalidQuery("limit: 1 to 1000", field="limit")
        asked = {"workflow": workflow, "_id": run_id, "waiting_for": kind}
        if any(value is not None and not isinstance(value, str) for value in asked.values()):
            raise InvalidQuery("workflow, run_id: text", field="workflow")
        query = {name: value for name, value in asked.items() if value is not None}
        found = await self._runtime.store.run(statements.find_waiting(query, limit), scope)
        waits = [wait for run in found for wait in read_waits(run) if wait.is_open and kind in (None, wait.kind)]
        return sorted(waits, key=lambda wait: (wait.opened_at, wait.run_id, wait.key))[:limit]

    async def _answer(
        self,
        run_id: str,
        target: Target,
        outcome: str,
        payload: Any,
        scope: Scope,
        *,
        by: str | None,
        reason: str | None = None,
        authority: bool = False,
    ) -> None:
        by, reason = check_note(by, "by"), check_note(reason, "reason")
        run = await self._runtime.read(run_id, scope)
        found = None if run["status"] in TERMINAL else target.find(run)
        encoded = self._encoded(payload, found[2] if found is not None and outcome == "answered" else None)
        await self._control.answer(run_id, target, Reply(outcome, encoded, by, reason, authority), scope)

    def _encoded(self, payload: Any, entry: Mapping[str, Any] | None) -> Encoded:
        """Return an answer as it is stored, checked against what was asked for where that is known here."""
        if payload is None and entry is None:
            return NO_VALUE
        name = "" if entry is None else entry.get("model", "")
        model = self._runtime.models.get(name) or _known_model(name)
        if model is None:
            encoded = codec_of(payload).encode(payload, "payload")
        else:
            encoded = Codec(model, "payload").encode(payload, "payload", refuse=InvalidInput)
        check_payload(self._runtime, None, encoded, "payload")
        return encoded

    async def _by_token(self, token: str, scope: Scope) -> dict[str, Any]:
        run = await self._of_token(token, scope)
        if run is None:
            raise HookNotFound("the token opens nothing", field="token")
        return run

    async def _of_token(self, token: str, scope: Scope) -> dict[str, Any] | None:
        if not _is_like_token(token):
            return None
        found = await self._runtime.store.run(statements.find_hook(hash_of(token)), scope)
        return found[0] if found else None


def _is_like_token(text: object) -> bool:
    return isinstance(text, str) and len(text) == _TOKEN_LENGTH


def _known_model(name: str) -> Any:
    """Return the model of this name, or None where it is not loaded, or no model."""
    found = loaded(name)
    is_model = hasattr(found, "model_dump") or hasattr(found, "__dataclass_fields__") or found in _PLAIN_MODELS
    return found if isinstance(found, type) and is_model else None
