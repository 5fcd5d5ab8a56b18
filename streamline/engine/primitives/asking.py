"""Waiting for somebody: a payload, an event, a decision, an answer."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from streamline.domain.durations import Duration
from streamline.domain.names import check_key, check_note
from streamline.domain.payloads import ANY
from streamline.domain.transitions.answering import LASTING
from streamline.engine.held.branches import current
from streamline.engine.held.surroundings import Surroundings
from streamline.engine.primitives.calling import MISSING
from streamline.engine.primitives.waiting import (
    Entry,
    decoded_answer,
    encoded_details,
    fits,
    hold_on,
    name_of,
    opened_wait,
)
from streamline.errors import InvalidKey, InvalidPolicy, WaitTimeout
from streamline.features.replies import Answer, Decision, decision_of
from streamline.features.tokens import hash_of

OnToken = Callable[[str], Awaitable[Any] | Any]


async def wait(
    attempt: Surroundings,
    reason: str,
    *,
    data: Any,
    timeout: Duration | None,
    default: Any,
    model: Any,
    key: str | None,
) -> Any:
    """Return the payload that somebody resumes the run with; raise `WaitTimeout` where nobody does in time."""
    entry = await _held(attempt, "wait", key, timeout, reason=_noted(reason), data=data, model=model)
    return _payload_of(entry, default, model, f"wait {reason!r}")


async def wait_for(
    attempt: Surroundings,
    event: str,
    *,
    match: Mapping[str, Any] | None,
    timeout: Duration | None,
    default: Any,
    model: Any,
    key: str | None,
) -> Any:
    """Return the payload of an event of this name that is sent to the run, before now or from now on."""
    name = check_key(event, "event")
    asked = None if match is None else ANY.encode(dict(match), "match").value
    entry = await _held(attempt, "event", key, timeout, name=name, match=asked, model=model)
    return _payload_of(entry, default, model, f"event {event!r}")


async def approve(
    attempt: Surroundings,
    reason: str,
    *,
    data: Any,
    approvers: Sequence[str] | None,
    timeout: Duration | None,
    on_timeout: str,
    key: str | None,
    on_token: OnToken | None,
) -> Decision:
    """Return the decision that somebody takes, or the one that stands for none in time."""
    check_on_timeout(on_timeout)
    allowed = _checked_approvers(approvers)
    noted = _noted(reason)
    entry = await _held(
        attempt, "approval", key, timeout, data=data, on_token=on_token, reason=noted, approvers=allowed
    )
    decided = decision_of(entry)
    return decided if decided.outcome != "timed_out" else Decision(on_timeout, at=decided.at)  # type: ignore[arg-type]


def check_on_timeout(outcome: str) -> None:
    """Raise `InvalidPolicy` where this cannot be the decision that stands for none."""
    if outcome not in ("approved", "rejected", "timed_out"):
        raise InvalidPolicy('on_timeout: "approved", "rejected" or "timed_out"', field="on_timeout")


async def ask(
    attempt: Surroundings,
    question: str,
    *,
    data: Any,
    model: Any,
    timeout: Duration | None,
    key: str | None,
    on_token: OnToken | None,
) -> Answer:
    """Return what somebody answers, or that nobody did in time."""
    noted = _noted(question)
    entry = await _held(attempt, "question", key, timeout, reason=noted, data=data, model=model, on_token=on_token)
    value = decoded_answer(entry, model) if entry["outcome"] == "answered" else None
    return Answer(entry["outcome"], value, entry.get("by"), entry.get("reason"), entry.get("at"))


async def _held(
    attempt: Surroundings,
    kind: str,
    key: str | None,
    timeout: Duration | None,
    *,
    name: str | None = None,
    data: Any = None,
    model: Any = None,
    on_token: OnToken | None = None,
    **told: str | list[str] | None,
) -> Entry:
    branch = current(attempt.root)
    address, entry = attempt.memo.find(branch, kind, key, name=name)
    details = {"name": name, "data": encoded_details(attempt, data), "model": name_of(attempt, model), **told}
    fresh: Entry = opened_wait(kind, key or address, attempt.clock.now(), timeout, **details)
    if on_token is not None and (entry is None or entry.get("open")):
        fresh = await _with_token(attempt, address, entry or fresh, on_token)
    while True:
        entry = await hold_on(attempt, branch, address, fresh)
        if entry["outcome"] != "answered" or fits(entry, model):
            return entry
        # Whoever took the answer did not know the model: it goes on waiting, as if nobody had answered.
        kept = {each: entry[each] for each in LASTING if each in entry}
        await attempt.memo.reopen(address, {**fresh, **kept}, ("wait.refused", {"key": address}))


async def _with_token(attempt: Surroundings, address: str, entry: Entry, on_token: OnToken) -> Entry:
    """The token works before anybody has it, and whoever is to have it gets it before the run is parked."""
    told = f"{address}/#told"
    if attempt.memo.entry(told) is not None:
        return entry
    generation = entry.get("generation", attempt.generation)
    token = attempt.token_of(address, generation)
    entry = {**entry, "hash": hash_of(token), "generation": generation}
    await attempt.memo.open(address, entry)
    said = on_token(token)
    if inspect.isawaitable(said):
        await said
    await attempt.memo.settle(told, {"kind": "told"}, spills=False)
    return entry


def _payload_of(entry: Entry, default: Any, model: Any, what: str) -> Any:
    if entry["outcome"] == "answered":
        return decoded_answer(entry, model)
    if default is not MISSING and entry["outcome"] == "timed_out":
        return default
    raise WaitTimeout(f"{what}: nobody answered in the time allowed", field="timeout")


def _noted(reason: object) -> str:
    if not isinstance(reason, str):
        raise InvalidKey("reason: a string", field="reason")
    return check_note(reason, "reason") or ""


def _checked_approvers(approvers: Sequence[str] | None) -> list[str] | None:
    if approvers is None:
        return None
    if isinstance(approvers, str) or not isinstance(approvers, Sequence):
        raise InvalidKey("approvers: a sequence of names", field="approvers")
    if not approvers:
        raise InvalidKey("approvers: one or more, or None for anybody", field="approvers")
    return [check_key(each, f"approvers[{i}]") for i, each in enumerate(approvers)]
