"""What a workflow's and a step's rules may be."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from streamline.domain.durations import Duration, parse_duration
from streamline.domain.policies import RetryPolicy, check_attempts
from streamline.domain.statuses import TERMINAL
from streamline.errors import DefinitionError, InvalidPolicy

GateT = TypeVar("GateT")

PAYLOAD_MAX = 12 * 1024 * 1024


def policy(retry: RetryPolicy | None, max_attempts: int | None) -> RetryPolicy | None:
    """Return the retry policy that a policy, or a number of attempts, comes to; None where neither is given."""
    if max_attempts is None:
        return retry
    if retry is not None:
        raise InvalidPolicy("retry, max_attempts: give one of them", field="max_attempts")
    return RetryPolicy(max_attempts=check_attempts(max_attempts, "max_attempts"))


def is_coroutine_function(fn: Any) -> bool:
    """Return whether calling it gives a coroutine; plain functions run in threads."""
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004


def check_handler(fn: Any, arguments: int = 1) -> None:
    """Raise `DefinitionError` where `fn` cannot be called with so many arguments."""
    if not callable(fn):
        raise DefinitionError("handler: a function that takes the context", field="handler")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise DefinitionError("handler: a function, not a generator", field="handler")
    try:
        inspect.signature(fn).bind(*(object() for _ in range(arguments)))
    except (TypeError, ValueError) as error:
        wanted = "one argument, the context" if arguments == 1 else "the context and the step's output"
        raise DefinitionError(f"handler: it must take {wanted}: {error}", field="handler") from error


def checked_retry(retry: RetryPolicy | None) -> RetryPolicy | None:
    """Return a retry policy, or None; raise `InvalidPolicy` for anything else."""
    if retry is not None and not isinstance(retry, RetryPolicy):
        raise InvalidPolicy("retry: a RetryPolicy", field="retry")
    return retry


def checked_timeout(timeout: Duration | None, field: str = "timeout") -> timedelta | None:
    """Return a limit of time, or None for no limit; raise `InvalidPolicy` where it is none."""
    return None if timeout is None else parse_duration(timeout, field, positive=True)


def checked_ends(ends: Collection[str]) -> frozenset[str]:
    """Return which ends of a run are compensated; raise `InvalidPolicy` for anything else."""
    is_collection = isinstance(ends, Collection) and not isinstance(ends, str)
    if not is_collection or not set(ends) <= {"failed", "cancelled"}:
        raise InvalidPolicy('compensate_on: a set of "failed" and "cancelled"', field="compensate_on")
    return frozenset(ends)


def checked_gate(gate: object, kind: type[GateT], name: str) -> GateT | None:
    """Return the gate if it is of its kind; raise `InvalidPolicy` otherwise."""
    if gate is not None and not isinstance(gate, kind):
        raise InvalidPolicy(f"{name}: a {kind.__name__}", field=name)
    return gate


def checked_guards(guards: Sequence[Callable[..., Any]]) -> tuple[Callable[..., Any], ...]:
    """Return the guards; raise `InvalidPolicy` where one cannot be called."""
    if not all(callable(guard) for guard in guards):
        raise InvalidPolicy("guards: functions of the context and a branch's key", field="guards")
    return tuple(guards)


def checked_history(kept: int) -> int:
    """Return how many earlier outputs a step keeps; raise `InvalidPolicy` where that is no such number."""
    if isinstance(kept, bool) or not isinstance(kept, int) or not 0 <= kept <= 100:
        raise InvalidPolicy("output_history: 0 to 100", field="output_history")
    return kept


def checked_transactional(step_id: str, fn: Any, group: str | None, *, transactional: bool) -> bool:
    """Return whether a step is transactional; raise `DefinitionError` where it cannot be."""
    if not isinstance(transactional, bool):
        raise InvalidPolicy("transactional: True or False", field="transactional")
    if transactional and group is not None:
        raise DefinitionError(
            f"step {step_id}: a transactional step stands alone, in no group: others would write the run meanwhile",
            field="transactional",
        )
    if transactional and not is_coroutine_function(fn):
        raise DefinitionError(
            f"step {step_id}: a transactional step is an `async def`: what it awaits on the session is the transaction",
            field="transactional",
        )
    return transactional


def checked_payload_limit(limit: int | None) -> int | None:
    """Return the limit of a payload in bytes, or None; raise `InvalidPolicy` where it is out of range."""
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or not 0 < limit <= PAYLOAD_MAX):
        raise InvalidPolicy(f"max_payload_bytes: 1 to {PAYLOAD_MAX}", field="max_payload_bytes")
    return limit


def checked_retention(retention: Duration | Mapping[str, Duration] | None) -> dict[str, timedelta]:
    """Return how long ended runs are kept, by terminal status; raise `InvalidPolicy` for anything else."""
    if retention is None:
        return {}
    by_status = retention if isinstance(retention, Mapping) else dict.fromkeys(sorted(TERMINAL), retention)
    if unknown := set(by_status) - TERMINAL:
        raise InvalidPolicy(
            f"retention: not a terminal status: {', '.join(sorted(map(str, unknown)))}", field="retention"
        )
    return {status: parse_duration(kept, f"retention.{status}") for status, kept in by_status.items()}
