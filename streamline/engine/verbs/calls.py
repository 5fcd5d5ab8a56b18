"""Durable calls: what is computed once, what is waited for by the clock, what is remembered."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, TypeVar, overload

from streamline.domain.durations import Duration, check_instant, parse_duration
from streamline.domain.policies import RetryPolicy
from streamline.engine.primitives.calling import MISSING, call, choose
from streamline.engine.primitives.checkpointing import checkpoint, stored_checkpoint
from streamline.engine.primitives.polling import poll
from streamline.engine.primitives.sleeping import sleep
from streamline.engine.verbs.ready import Ready

T = TypeVar("T")


class Calls(Ready):
    """``call``, ``sleep``, ``sleep_until``, ``poll``, ``choose``, ``checkpoint``, ``get_checkpoint``."""

    @overload
    async def call(
        self,
        key: str,
        fn: Callable[..., Coroutine[Any, Any, T]],
        *args: Any,
        retry: RetryPolicy | None = None,
        timeout: Duration | None = None,
        default: T = ...,
    ) -> T: ...
    @overload
    async def call(
        self,
        key: str,
        fn: Callable[..., T],
        *args: Any,
        retry: RetryPolicy | None = None,
        timeout: Duration | None = None,
        default: T = ...,
    ) -> T: ...

    async def call(
        self,
        key: str,
        fn: Callable[..., Any],
        *args: Any,
        retry: RetryPolicy | None = None,
        timeout: Duration | None = None,
        default: Any = MISSING,
    ) -> Any:
        """Call `fn` with `args` once: its result is stored before it is returned, and comes back at every re-entry.

        Args:
            key: Unique within the step.
            fn: A coroutine function, or a plain function, which runs in a thread.
            args: Passed on.
            retry: How often a failing call is tried within this attempt; default once.
            timeout: How long one try may take.
            default: Stored and returned where the call fails for good; without it the error is raised, nothing is
                stored, and a later attempt calls again.

        Raises:
            NonDeterministicStep: The key holds a durable call of another kind.
            InvalidKey: The key is not of the allowed form, or was used before in this attempt.
        """
        return await call(self._ready(), key, fn, args, retry=retry, timeout=timeout, default=default)

    async def sleep(self, duration: Duration, *, key: str | None = None) -> None:
        """Return once `duration` has passed since this line was first reached.

        The run is parked meanwhile, and the handler entered again when the time has come.
        """
        attempt = self._ready()
        await sleep(attempt, lambda: attempt.clock.now() + parse_duration(duration, "duration"), key)

    async def sleep_until(self, instant: datetime, *, key: str | None = None) -> None:
        """Return once `instant`, an aware datetime, has come."""
        due_at = check_instant(instant, "instant")
        await sleep(self._ready(), lambda: due_at, key)

    @overload
    async def poll(
        self,
        key: str,
        check: Callable[[], Coroutine[Any, Any, T | None]],
        *,
        every: Duration,
        max_wait: Duration | None = None,
    ) -> T: ...
    @overload
    async def poll(
        self, key: str, check: Callable[[], T | None], *, every: Duration, max_wait: Duration | None = None
    ) -> T: ...

    async def poll(
        self, key: str, check: Callable[[], Any], *, every: Duration, max_wait: Duration | None = None
    ) -> Any:
        """Ask `check` again and again until it returns something other than None; that is stored.

        Args:
            key: Unique within the step.
            check: A coroutine function, or a plain function, which runs in a thread; what it raises fails the attempt.
            every: Pause between two looks; the run is parked meanwhile.
            max_wait: How long to go on, from the first look; the last look is at its end. Default for ever.

        Raises:
            WaitTimeout: Nothing came within `max_wait`.
        """
        return await poll(self._ready(), key, check, every=every, max_wait=max_wait)

    async def choose(self, key: str, value: T) -> T:
        """Return the value that was given when this line was first reached: for what is random, or may change."""
        return await choose(self._ready(), key, value)  # type: ignore[no-any-return]

    async def checkpoint(self, value: Any) -> None:
        """Keep a value for the next time that the handler is entered; the last one stays."""
        await checkpoint(self._ready(), value)

    def get_checkpoint(self, default: Any = None) -> Any:
        """Return the value of the last checkpoint of this step, or of this branch of it; `default` without one."""
        return stored_checkpoint(self._ready(anywhere=True), default)
