"""Durable calls: a function's result is stored before the handler sees it, and never computed again."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Callable
from typing import Any, Final

from streamline.domain.annotations import return_codec
from streamline.domain.durations import Duration, parse_duration
from streamline.domain.failures import is_worth_retrying
from streamline.domain.payloads import ANY, codec_of
from streamline.domain.policies import RetryPolicy
from streamline.engine.held.branches import Branch, current, entered
from streamline.engine.held.surroundings import Surroundings
from streamline.engine.primitives.kept_failures import kept_failure, raised_again, stands
from streamline.engine.threads import in_thread
from streamline.errors import InvalidPolicy, StepTimeout

MISSING: Final[Any] = object()
_ONCE = RetryPolicy(max_attempts=1)


async def call(
    attempt: Surroundings,
    key: str,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    *,
    retry: RetryPolicy | None,
    timeout: Duration | None,
    default: Any,
) -> Any:
    """Return the stored result of the call, or carry it out, store its result and return that."""
    if not callable(fn):
        raise InvalidPolicy("fn: a function", field="fn")
    branch = current(attempt.root)
    address, entry = attempt.memo.find(branch, "call", key)
    codec = return_codec(fn, f"call {address}")
    if entry is not None and stands(attempt, entry):
        raise raised_again(entry)
    if entry is None or "failed_in" in entry:
        seconds = None if timeout is None else parse_duration(timeout, "timeout", positive=True).total_seconds()
        fresh: dict[str, Any] = {"kind": "call"}
        try:
            value = await _carry_out(attempt, branch, address, fn, args, retry or _ONCE, seconds)
            encoded = codec.encode(value, f"call {address}")
        except Exception as error:
            if default is MISSING:
                attempt.flags.failures[address] = kept_failure(attempt, "call", error)
                raise
            # What stands in for a result need not be of its type.
            encoded, fresh["default"] = ANY.encode(default, f"default of call {address}"), True
        attempt.check_size(encoded, f"call {address}")
        entry = await attempt.memo.settle(
            address,
            fresh | {"output": encoded.value},
            size=encoded.size,
            drop=attempt.memo.addresses_within(address),
        )
    return (ANY if entry.get("default") else codec).decode(entry["output"])


async def choose(attempt: Surroundings, key: str, value: Any) -> Any:
    """Return the value that was given when this was first reached."""
    address, entry = attempt.memo.find(current(attempt.root), "choose", key)
    codec = codec_of(value)
    if entry is None:
        encoded = codec.encode(value, f"choose {address}")
        attempt.check_size(encoded, f"choose {address}")
        entry = await attempt.memo.settle(address, {"kind": "choose", "output": encoded.value}, size=encoded.size)
    return codec.decode(entry["output"])


async def invoke(attempt: Surroundings, branch: Branch, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Call a function of the user's in a branch of its own, a plain one in a thread, and return what it returns."""
    with entered(branch):
        if inspect.iscoroutinefunction(fn):
            return await fn(*args)
        value = await in_thread(attempt.threads, fn, args)
        return await value if inspect.isawaitable(value) else value


async def work(attempt: Surroundings, branch: Branch, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Call a function in a branch that is awake for itself: the run is not parked while it is at work."""
    branch.quorum.begin()
    try:
        return await invoke(attempt, branch, fn, args)
    finally:
        branch.quorum.end(branch)
        branch.quorum.check()


async def _carry_out(
    attempt: Surroundings,
    branch: Branch,
    address: str,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    policy: RetryPolicy,
    timeout: float | None,
) -> Any:
    failures = 0
    while True:
        try:
            with attempt.holding.section.call(attempt.holding.run, attempt.step.id, address):
                return await _once(attempt, branch.worker(address), fn, args, timeout)
        except Exception as error:
            failures += 1
            if failures >= policy.max_attempts or not is_worth_retrying(error, policy):
                raise
        await attempt.clock.sleep(policy.pause_after(failures, random.uniform(-1, 1)).total_seconds())


async def _once(
    attempt: Surroundings, branch: Branch, fn: Callable[..., Any], args: tuple[Any, ...], timeout: float | None
) -> Any:
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            return await work(attempt, branch, fn, args)
    except TimeoutError as error:
        if limit.expired():
            raise StepTimeout(f"the call took longer than {timeout:g} s", field="timeout") from error
        raise
