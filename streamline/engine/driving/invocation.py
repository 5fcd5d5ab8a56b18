"""One attempt's handler at work: its end is awaited, whatever ends it.

An attempt ends by itself, by its timeout, because the worker stops, or because the lease is lost. In every case the
handler has ended before anything else happens to the run; one that ignores being told is abandoned after a grace, and
then no further attempt follows.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from streamline.engine.threads import call_guarded

Verdict = Literal["timeout", "stopping", "lost", "cancelled"]


@dataclass(slots=True)
class Ended:
    """How a handler ended.

    Args:
        value: What it returned.
        error: What it raised.
        verdict: Why it was told to end, if it was.
        abandoned: Whether it had not ended by the end of the grace.
    """

    value: Any = None
    error: BaseException | None = None
    verdict: str | None = None
    abandoned: bool = False


class Invocation:
    """A handler at work.

    Args:
        handler: Called with `argument`.
        argument: The handler's context.
        threads: Where a plain function runs; None for a coroutine function.
        timeout: Seconds the attempt may take; None for no limit.
        grace: Seconds the handler may take to end once it is told to.
        on_interrupt: Called when the handler is told to end.
    """

    def __init__(
        self,
        handler: Callable[[Any], Any],
        argument: Any,
        *,
        threads: ThreadPoolExecutor | None,
        timeout: float | None,
        grace: float,
        on_interrupt: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[Ended] = self._loop.create_future()
        self._grace, self._on_interrupt = grace, on_interrupt
        self._verdict: str | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._timeout = timeout
        self._cancel = self._begin(handler, argument, threads)
        if threads is None:
            self._start_timer()

    def interrupt(self, verdict: str) -> None:
        """Tell the handler to end; the first verdict stands, except that nothing outranks a lost lease."""
        if self._ended.done():
            return
        if self._verdict is None:
            self._timers.append(self._loop.call_later(self._grace, self._abandon))
        if self._verdict is None or verdict in ("lost", "cancelled"):
            self._verdict = verdict
        self._on_interrupt()
        self._cancel()

    async def outcome(self) -> Ended:
        """Return how the handler ended, once it has."""
        try:
            return await self._ended
        finally:
            for timer in self._timers:
                timer.cancel()

    def _begin(
        self, handler: Callable[[Any], Any], argument: Any, threads: ThreadPoolExecutor | None
    ) -> Callable[[], Any]:
        if threads is None:
            task = self._loop.create_task(self._await(handler, argument))
            task.add_done_callback(self._task_done)
            return task.cancel
        context = contextvars.copy_context()
        work = threads.submit(context.run, self._in_thread, handler, argument)
        # A thread cannot be cancelled: only its real end counts, and until then `ctx.cancelled` asks it to hurry.
        work.add_done_callback(lambda done: self._tell_loop(self._thread_done, done))
        return work.cancel

    def _in_thread(self, handler: Callable[[Any], Any], argument: Any) -> tuple[Any, BaseException | None]:
        # Waiting for a thread is not the attempt's: its time begins here.
        self._tell_loop(self._start_timer)
        return call_guarded(handler, argument)

    def _tell_loop(self, call: Callable[..., None], *args: Any) -> None:
        with suppress(RuntimeError):  # a thread that nobody could stop may outlive the loop
            self._loop.call_soon_threadsafe(call, *args)

    def _start_timer(self) -> None:
        if self._timeout is not None and not self._ended.done():
            self._timers.append(self._loop.call_later(self._timeout, self.interrupt, "timeout"))

    async def _await(self, handler: Callable[[Any], Any], argument: Any) -> None:
        try:
            value = await handler(argument)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - SystemExit in a handler must not end the app
            self._end(None, error)
        else:
            self._end(value, None)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            self._end(None, asyncio.CancelledError())

    def _thread_done(self, work: Future[tuple[Any, BaseException | None]]) -> None:
        value, error = (None, asyncio.CancelledError()) if work.cancelled() else work.result()
        self._end(value, error)

    def _end(self, value: Any, error: BaseException | None, *, abandoned: bool = False) -> None:
        if not self._ended.done():
            self._ended.set_result(Ended(value, error, self._verdict, abandoned))

    def _abandon(self) -> None:
        self._end(None, None, abandoned=True)
