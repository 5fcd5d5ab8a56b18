"""One-time hooks: a token that whoever holds it can answer the run with, once."""

from __future__ import annotations

from typing import Any

from streamline.domain.durations import Duration, parse_duration
from streamline.domain.transitions.answering import LASTING
from streamline.engine.held.branches import Branch, current
from streamline.engine.held.surroundings import Surroundings
from streamline.engine.primitives.calling import MISSING
from streamline.engine.primitives.waiting import Entry, decoded_answer, fits, hold_on, name_of, opened_wait
from streamline.errors import HookAlreadyUsed, HookExpired, WaitTimeout
from streamline.features.replies import decision_of
from streamline.features.tokens import hash_of


class Hook:
    """A one-time hook of a run.

    Attributes:
        key: Its key within the step.
        token: What opens it; the same at every re-entry, and nowhere in the database.
        path: A path to hang it under, such as ``"/hooks/<token>"``.
    """

    def __init__(self, attempt: Surroundings, branch: Branch, address: str, key: str, token: str) -> None:
        self._attempt = attempt
        self._branch = branch
        self._address = address
        self._awaited = False
        self._timer: str | None = None
        self.key = key
        self.token = token
        self.path = f"/hooks/{token}"

    async def wait(self, *, timeout: Duration | None = None, model: Any = None, default: Any = MISSING) -> Any:
        """Return what the hook is called with.

        Args:
            timeout: How long to wait, from when this is first reached.
            model: What the payload is to be.
            default: Returned where nobody calls in time.

        Raises:
            WaitTimeout: Nobody called it within `timeout`, and there is no default.
            HookExpired: Nobody called it before it expired.
            HookAlreadyUsed: The handler has waited for it already.
            InvalidInput: The payload does not fit the model.
        """
        if self._awaited:
            raise HookAlreadyUsed(f"hook {self.key!r} is for one call", field="hook")
        self._awaited = True
        entry = await self._settled(timeout, model)
        while entry["outcome"] == "answered" and not fits(entry, model):
            # Whoever took the call did not know what it has to be: the hook goes on waiting, as if nobody had called.
            open_again = {name: entry[name] for name in LASTING if name in entry} | {"open": True}
            await self._attempt.memo.reopen(self._address, open_again, ("wait.refused", {"key": self._address}))
            entry = await self._settled(timeout, model)
        if entry["outcome"] == "answered":
            return decoded_answer(entry, model)
        if entry["outcome"] != "timed_out":
            return decision_of(entry)
        if default is not MISSING:
            return default
        if self._was_impatient(entry):
            raise WaitTimeout(f"hook {self.key!r}: nobody called it in the time allowed", field="timeout")
        raise HookExpired(f"hook {self.key!r}: nobody called it before it expired", field="hook")

    def _was_impatient(self, entry: Entry) -> bool:
        """Return whether the handler's own limit came before the hook's."""
        timer = None if self._timer is None else self._attempt.memo.entry(self._timer)
        return timer is not None and ("due_at" not in entry or timer["due_at"] < entry["due_at"])

    async def _settled(self, timeout: Duration | None, model: Any) -> Entry:
        memo, stored = self._attempt.memo, self._attempt.memo.entry(self._address)
        assert stored is not None, "a hook is stored before its token is known"
        name = name_of(self._attempt, model)
        if name is not None and stored.get("open") and stored.get("model") != name:
            stored = {**stored, "model": name}
            await memo.reopen(self._address, stored)
        if timeout is not None:
            self._timer = f"{self._address}/#timeout"
            if memo.entry(self._timer) is None and "outcome" not in stored:
                due_at = self._attempt.clock.now() + parse_duration(timeout, "timeout")
                await memo.settle(self._timer, {"kind": "timer", "due_at": due_at}, spills=False)
        return await hold_on(self._attempt, self._branch, self._address, stored, self._timer)

    def __repr__(self) -> str:
        """Name the hook; its token is a secret."""
        return f"<hook {self.key}>"


async def create_hook(attempt: Surroundings, key: str, *, expires: Duration | None) -> Hook:
    """Return a hook that is stored already: whoever has its token can call it from now on."""
    branch = current(attempt.root)
    address, entry = attempt.memo.find(branch, "hook", key)
    generation: int = attempt.generation if entry is None else entry["generation"]
    token = attempt.token_of(address, generation)
    if entry is None:
        told = {"hash": hash_of(token), "generation": generation}
        await attempt.memo.open(address, opened_wait("hook", key, attempt.clock.now(), expires, **told))
    elif entry.get("open") and entry["hash"] != hash_of(token):
        # The secret has changed since: the token that the handler hands out from now on must work.
        older = [*entry.get("older", ()), entry["hash"]]
        await attempt.memo.reopen(address, {**entry, "hash": hash_of(token), "older": older})
    return Hook(attempt, branch, address, key, token)
