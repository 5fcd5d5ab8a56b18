"""One attempt of one step: its context, its handler, and the judgement of how it went."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import ValidationError

from streamline.clock import Clock
from streamline.domain.decisions import Completed, Failed, Interrupted, Outcome, Skipped, Slept
from streamline.domain.definition import StepDefinition
from streamline.domain.payloads import ANY, Encoded
from streamline.domain.transitions import stepping
from streamline.engine.context import Context, settle_awaitable
from streamline.engine.holding import Holding
from streamline.engine.invocation import Ended, Invocation
from streamline.engine.limits import check_payload
from streamline.engine.memo import Suspension
from streamline.engine.runtime import Runtime
from streamline.engine.surroundings import UNREAD, Flags
from streamline.errors import (
    CorruptRun,
    NonRetriableError,
    PayloadTooLarge,
    SerializationError,
    StepTimeout,
    StreamlineError,
)
from streamline.settings import Worker


class Attempt:
    """One attempt of one step of a held run."""

    def __init__(
        self, runtime: Runtime, settings: Worker, threads: ThreadPoolExecutor, holding: Holding, step: StepDefinition
    ) -> None:
        self._runtime = runtime
        self._settings = settings
        self.threads = threads
        self.holding = holding
        self.step = step
        self.flags = Flags()

    @property
    def clock(self) -> Clock:
        """The app's clock."""
        return self._runtime.clock

    async def outcome(self) -> Outcome | None:
        """Carry the attempt out and return how it went; None where the lease was lost meanwhile."""
        try:
            ctx: Context[Any, Any] = Context(self)
        except ValidationError as error:
            return Failed(
                CorruptRun(f"the stored input does not fit its type: {error.error_count()} errors"), final=True
            )
        if self.step.skip_if is not None or self.step.run_if is not None:
            asked = await self._invoke(self._is_unwanted, ctx, threaded=False)
            if asked.value is not False:
                return self._judge_predicate(asked)
        ended = await self._invoke(self.step.handler, ctx, threaded=self.step.threaded)
        self.flags.closed = True
        return self._judge(ended)

    async def _is_unwanted(self, ctx: Context[Any, Any]) -> bool:
        if self.step.skip_if is not None and await settle_awaitable(self.step.skip_if(ctx)):
            return True
        return self.step.run_if is not None and not await settle_awaitable(self.step.run_if(ctx))

    async def _invoke(self, handler: Callable[[Any], Any], ctx: Context[Any, Any], *, threaded: bool) -> Ended:
        invocation = Invocation(
            handler,
            ctx,
            threads=self.threads if threaded else None,
            timeout=None if self.step.timeout is None else self.step.timeout.total_seconds(),
            grace=self._settings.grace_seconds,
            on_interrupt=self.flags.cancel,
        )
        self.holding.handler = invocation
        try:
            return await invocation.outcome()
        finally:
            self.holding.handler = None

    def _judge_predicate(self, asked: Ended) -> Outcome | None:
        """A predicate is part of its step: what it raises fails that, and it cannot wait."""
        if asked.value is True and asked.verdict is None:
            return Skipped()
        if self.flags.suspended is not None and asked.verdict is None:
            return Failed(NonRetriableError("a predicate cannot sleep or wait"), final=True)
        judged = self._judge(asked)
        return Failed(judged.error, final=True) if isinstance(judged, Failed) else judged

    def _judge(self, ended: Ended) -> Outcome | None:
        if ended.verdict in ("lost", "cancelled") or self.holding.lost:
            return None
        if ended.verdict == "timeout":
            return self._timed_out(ended)
        if ended.verdict == "stopping" and ended.abandoned:
            # Its thread still works: nobody else may begin before the lease has run out.
            return None
        if self.flags.suspended is not None:
            return Slept(*self.flags.suspended)
        if ended.error is None:
            return self._completed(ended.value)
        if ended.verdict == "stopping":
            return Interrupted()
        if isinstance(ended.error, Suspension):
            return Failed(SerializationError("a suspension of another attempt was raised", field="ctx"))
        return Failed(ended.error)

    def _timed_out(self, ended: Ended) -> Failed:
        assert self.step.timeout is not None
        said = f"the attempt took longer than {self.step.timeout.total_seconds():g} s"
        if ended.abandoned:
            said += " and did not end when told to; there is no further attempt while it may still be at work"
        return Failed(StepTimeout(said, field="timeout"), final=ended.abandoned)

    def _completed(self, value: Any) -> Outcome:
        try:
            output = self.step.output.encode(value, f"output of {self.step.id}")
            self.check_size(output, f"output of {self.step.id}", copies=2 if self._is_last else 1)
            return Completed(output, self._changed_state())
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the value, the step must hear of it
            return Failed(error, final=not isinstance(error, StreamlineError))

    @property
    def _is_last(self) -> bool:
        return bool(self.holding.run["cursor"] + 1 == len(self.holding.run["steps"]))

    def _changed_state(self) -> Encoded | None:
        return None if self.flags.state is UNREAD else self.encoded_state_if_changed(self.flags.state)

    def check_size(self, encoded: Encoded, where: str, *, copies: int = 1) -> None:
        """Warn of a large value; raise `PayloadTooLarge` where it, or the run that would hold it, is over its limit."""
        check_payload(self._runtime, self.holding.definition.max_payload_bytes, encoded, where)
        if self.holding.run.get("size", 0) + copies * encoded.size > self._runtime.settings.document_max:
            raise PayloadTooLarge(
                f"{where}: the run would grow too large to be written; store a reference", field=where
            )

    def find_step(self, step_id: str) -> StepDefinition | None:
        """Return the workflow's step of this id, or None."""
        definition = self.holding.definition
        return definition.steps[definition.index[step_id]] if step_id in definition.index else None

    def decoded_input(self) -> Any:
        """Return the run's input, of its declared type."""
        return self.holding.definition.input.decode(self.holding.run["input"])

    def decoded_state(self) -> Any:
        """Return the run's state, of its declared type; a fresh one where none is stored and the type allows it."""
        codec = self.holding.definition.state or ANY
        if "state" in self.holding.run:
            return codec.decode(self.holding.run["state"])
        try:
            return codec.decode({})
        except ValidationError:
            return None

    def encoded_state_if_changed(self, state: Any) -> Encoded | None:
        """Return the state as it will be stored, or None where that is what is stored already."""
        encoded = (self.holding.definition.state or ANY).encode(state, "state")
        if encoded.value == self.holding.run.get("state"):
            return None
        self.check_size(encoded, "state")
        return encoded

    async def save(self, state: Any) -> None:
        """Store the state now."""
        encoded = self.encoded_state_if_changed(state)
        if encoded is not None:
            await self.holding.commit(lambda run: stepping.save(run, encoded, self.clock.now()))
