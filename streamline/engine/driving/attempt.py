"""One attempt at one place of a run: its context, its handler, and the judgement of how it went."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from pydantic import ValidationError

from streamline.clock import Clock
from streamline.domain.decisions import Completed, Failed, Interrupted, Jumped, Outcome, Parked, Skipped
from streamline.domain.definition import CompensationDefinition, Definition, StepDefinition
from streamline.domain.payloads import NO_VALUE, Encoded
from streamline.domain.place import Place, attempt_of, beginnings
from streamline.domain.run import Event
from streamline.engine.driving.context import Context, settle_awaitable
from streamline.engine.driving.invocation import Ended, Invocation
from streamline.engine.driving.transacting import Transaction
from streamline.engine.held.branches import Branch, Jump, Quorum, Suspension
from streamline.engine.held.holding import Holding
from streamline.engine.held.limits import check_growth
from streamline.engine.held.memo import Memo, memo_prefix
from streamline.engine.held.state_copy import StateCopy
from streamline.engine.held.surroundings import Flags
from streamline.engine.held.watching import Watch
from streamline.engine.kept_events import kept_events
from streamline.engine.letters import letter, post, within_chain
from streamline.engine.primitives.families import Wanted
from streamline.engine.runtime import Runtime
from streamline.engine.spawning import close, spawn
from streamline.engine.threads import in_thread
from streamline.errors import (
    CorruptRun,
    HeartbeatLost,
    NonRetriableError,
    SerializationError,
    StepTimeout,
    StreamlineError,
    UnsafeDeployment,
)
from streamline.features.triggers import emitted_id
from streamline.settings import Worker
from streamline.store import statements

T = TypeVar("T")


class Attempt:
    """One attempt of a step of a held run, or of its compensation."""

    def __init__(
        self,
        runtime: Runtime,
        settings: Worker,
        threads: ThreadPoolExecutor,
        holding: Holding,
        step: StepDefinition,
        place: Place,
        quorum: Quorum | None = None,
        transaction: Transaction | None = None,
    ) -> None:
        self._runtime = runtime
        self._settings = settings
        self.threads = threads
        self.holding = holding
        self.step = step
        self.place = place
        self.flags = Flags()
        self.memo = Memo(holding, place, runtime.clock)
        self.root = Branch(self.flags, "", quorum or Quorum(runtime.clock))
        self.number = attempt_of(holding.run, place)
        self._loop, self.thread = asyncio.get_running_loop(), threading.get_ident()
        self._watch: Watch | None = None
        self._transaction = transaction
        self.session: Any = None
        # Neither refers back to the attempt: what nobody holds any more is gone at once, the run's document with it.
        self.state = StateCopy(runtime, holding)
        if quorum is None:
            holding.on_news = self.root.quorum.look_again

    @property
    def clock(self) -> Clock:
        """The app's clock."""
        return self._runtime.clock

    @property
    def models(self) -> dict[str, Any]:
        """The models that answers are to fit, by the name that is stored with the wait."""
        return self._runtime.models

    @property
    def generation(self) -> int:
        """How often the step was begun anew."""
        return beginnings(self.holding.run["steps"][self.place.k])

    async def outcome(self) -> Outcome | None:
        """Carry the attempt out and return how it went; None where the lease was lost meanwhile."""
        try:
            if "spilled" in self.place.activity(self.holding.run):
                await self._load()
            ctx: Context[Any, Any] = Context(self)
        except ValidationError as error:
            return Failed(
                CorruptRun(f"the stored input does not fit its type: {error.error_count()} errors"), final=True
            )
        except HeartbeatLost:
            return None
        definition = self.holding.definition
        self._watch = Watch(definition, ctx) if definition.hooks or definition.guards else None
        asked = await self._invoke(self._is_unwanted, ctx, threaded=False) if self._is_to_be_asked() else None
        if asked is not None and asked.value is not False:
            outcome = self._judge_predicate(asked)
        else:
            outcome = await self._transacted(ctx) if self._transaction else self._judge(await self._handle(ctx))
        self.flags.closed = True
        if self.holding.queued:
            await self.holding.drained()
        return outcome

    async def _transacted(self, ctx: Context[Any, Any]) -> Outcome | None:
        assert self._transaction is not None
        try:
            self.session = await self._transaction.begin(self.beat)
        except HeartbeatLost:
            return None
        except UnsafeDeployment as error:
            return Failed(error, final=True)
        return self._judge(await self._handle(ctx))

    def _is_to_be_asked(self) -> bool:
        """Return whether the step's predicates have a say: not once it has begun."""
        if self.place.undo or (self.step.skip_if is None and self.step.run_if is None):
            return False
        activity = self.place.activity(self.holding.run)
        return not activity.get("memo") and not activity.get("failures") and activity["status"] != "waiting"

    def _handle(self, ctx: Context[Any, Any]) -> Awaitable[Ended]:
        rules = self._rules
        if self._watch is not None:
            return self._invoke(partial(self._watched_handler, rules), ctx, threaded=False)
        return self._invoke(self._handler(rules), ctx, threaded=rules.threaded)

    @property
    def _rules(self) -> StepDefinition | CompensationDefinition:
        if not self.place.undo:
            return self.step
        assert self.step.compensation is not None
        return self.step.compensation

    def _handler(self, rules: StepDefinition | CompensationDefinition) -> Callable[[Any], Any]:
        if not self.place.undo:
            return rules.handler
        handler = rules.handler
        if rules.threaded:
            return lambda ctx: handler(ctx, self._output_to_undo())

        async def undo(ctx: Any) -> Any:
            return await handler(ctx, self._output_to_undo())

        return undo

    def _output_to_undo(self) -> Any:
        """Return what the step brought; None where it ended with a jump."""
        stored = self.holding.run["steps"][self.place.k]
        try:
            return self.step.output.decode(stored["output"]) if "output" in stored else None
        except ValueError as error:
            raise CorruptRun(f"the output of {self.step.id} is not of its type", field="output") from error

    async def _watched_handler(self, rules: StepDefinition | CompensationDefinition, ctx: Any) -> Any:
        assert self._watch is not None
        handler = self._handler(rules)
        if rules.threaded:
            return await self._watch.over(None, partial(in_thread, self.threads, handler, (ctx,)))
        return await self._watch.over(None, lambda: handler(ctx))

    async def watched(self, branch: Branch, path: str, work: Callable[[], Awaitable[T]]) -> T:
        """Carry out a branch's work, seen by the workflow's hooks, where its guards let it."""
        return await work() if self._watch is None else await self._watch.over(path, work)

    async def _is_unwanted(self, ctx: Context[Any, Any]) -> bool:
        if self.step.skip_if is not None and await settle_awaitable(self.step.skip_if(ctx)):
            return True
        return self.step.run_if is not None and not await settle_awaitable(self.step.run_if(ctx))

    async def _invoke(self, handler: Callable[[Any], Any], ctx: Context[Any, Any], *, threaded: bool) -> Ended:
        invocation = Invocation(
            handler,
            ctx,
            threads=self.threads if threaded else None,
            timeout=self._timeout(),
            grace=self._settings.grace_seconds,
            on_interrupt=self._told_to_end,
        )
        self.holding.handlers.add(invocation)
        try:
            return await invocation.outcome()
        finally:
            self.holding.handlers.discard(invocation)

    def _told_to_end(self) -> None:
        self.flags.cancel()
        if self._transaction is not None:
            self._transaction.loosen()

    def _timeout(self) -> float | None:
        """Return the seconds that the attempt may take: its own limit, or what is left of the run's."""
        timeout = self._rules.timeout
        own = None if timeout is None else timeout.total_seconds()
        if self.session is not None and self._transaction is not None:
            own = self._transaction.limit if own is None else min(own, self._transaction.limit)
        deadline = None if self.place.undo else self.holding.run.get("deadline_at")
        if deadline is None:
            return own
        left: float = max(0.0, (deadline - self.clock.now()).total_seconds())
        return left if own is None else min(own, left)

    def _judge_predicate(self, asked: Ended) -> Outcome | None:
        """A predicate is part of its step: what it raises fails that, and it cannot wait."""
        if asked.value is True and asked.verdict is None:
            return Skipped()
        if self.flags.pending and asked.verdict is None:
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
        if ended.error is None:
            return self._parked() if self.flags.pending else self._completed(ended.value)
        leaves = tuple(_leaves(ended.error))
        jump = next((leaf for leaf in leaves if isinstance(leaf, Jump)), None)
        if jump is not None:
            return self._jumped(jump)
        if self.flags.pending and all(isinstance(leaf, Suspension) for leaf in leaves):
            return self._parked()
        if ended.verdict == "stopping":
            return Interrupted()
        if isinstance(ended.error, HeartbeatLost) and self.holding.lost:
            return None
        if any(isinstance(leaf, Suspension) for leaf in leaves) and len(leaves) == 1:
            return Failed(SerializationError("a suspension of another attempt was raised", field="ctx"))
        return Failed(next((leaf for leaf in leaves if isinstance(leaf, Exception)), ended.error))

    def _parked(self) -> Parked:
        return Parked({**self.flags.failures, **self.flags.pending})

    def _timed_out(self, ended: Ended) -> Outcome:
        deadline = None if self.place.undo else self.holding.run.get("deadline_at")
        if deadline is not None and deadline <= self.clock.now() and not ended.abandoned:
            return Interrupted()  # the run's own time is over, which its driver sees next
        said = self._limit_said()
        if ended.abandoned:
            said += " and did not end when told to; there is no further attempt while it may still be at work"
        return Failed(StepTimeout(said, field="timeout"), final=ended.abandoned)

    def _limit_said(self) -> str:
        timeout, limit = self._rules.timeout, self._transaction.limit if self._transaction and self.session else None
        if limit is not None and (timeout is None or timeout.total_seconds() > limit):
            return f"the attempt took longer than {limit:.3g} s, which is all that its lease leaves a transaction"
        return f"the attempt took longer than {timeout.total_seconds():g} s" if timeout else "the run's time is over"

    def _jumped(self, jump: Jump) -> Outcome:
        if "group" in self.holding.run["steps"][self.place.k]:
            return Failed(NonRetriableError("goto: a step of a group cannot jump"), final=True)
        try:
            self.state.change()
        except Exception as error:  # noqa: BLE001 - as for an output
            return Failed(error, final=not isinstance(error, StreamlineError))
        return Jumped(jump.to)

    def _completed(self, value: Any) -> Outcome:
        try:
            if self.place.undo:
                self.state.change()
                return Completed(NO_VALUE)
            output = self.step.output.encode(value, f"output of {self.step.id}")
            self.check_size(output, f"output of {self.step.id}", copies=2 if self._is_last else 1)
            self.state.change()
            return Completed(output)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the value, the step must hear of it
            return Failed(error, final=not isinstance(error, StreamlineError))

    @property
    def _is_last(self) -> bool:
        return bool(self.place.k + 1 == len(self.holding.run["steps"]))

    def say(self, event: Event) -> None:
        """Tell listeners of this process of something that is not stored, from whichever thread."""
        if threading.get_ident() == self.thread:
            self._runtime.bus.say(event)
        else:
            self._loop.call_soon_threadsafe(self._runtime.bus.say, event)

    def check_size(self, encoded: Encoded, where: str, *, copies: int = 1, instead: int = 0) -> None:
        """Warn of a large value; raise `PayloadTooLarge` where it, or the run that would hold it, is over its limit."""
        check_growth(self._runtime, self.holding, encoded, where, copies, instead)

    def find_step(self, step_id: str) -> StepDefinition | None:
        """Return the workflow's step of this id, or None."""
        definition = self.holding.definition
        return definition.steps[definition.index[step_id]] if step_id in definition.index else None

    def decoded_input(self) -> Any:
        """Return the run's input, of its declared type."""
        return self.holding.definition.input.decode(self.holding.run["input"])

    def token_of(self, address: str, generation: int) -> str:
        """Return the token of a hook."""
        run = self.holding.run
        undo = "undo" if self.place.undo else "step"
        return self._runtime.tokens.token(run.get("tenant_id"), run["_id"], self.step.id, undo, generation, address)

    async def beat(self) -> None:
        """Extend the run's lease; raise `HeartbeatLost` where it is gone."""
        sent = self.clock.monotonic()
        until = self.clock.now() + self._settings.lease_time
        beat = statements.beat_leases([self.holding.run["_id"]], [self.holding.token], until)
        if not await self._runtime.store.run(beat):
            self.holding.lose()
            raise HeartbeatLost(f"run {self.holding.run['_id']}: the lease was lost")
        self.holding.safe_until = sent + self._settings.lease_seconds

    def definition_of(self, workflow: Any) -> Definition:
        """Return the definition of a workflow, or of the registered one of a name."""
        found = getattr(workflow, "definition", None)
        return found if isinstance(found, Definition) else self._runtime.registry.current(workflow)

    def serving(self, route: str) -> Definition | None:
        """Return the definition of a route that is registered here, or None."""
        return self._runtime.registry.by_route(route) if route in self._runtime.registry.routes else None

    async def kept_event(self, entry: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the first kept event that a wait for an event is for, or None."""
        end, match = entry.get("due_at"), entry.get("match")
        found = await kept_events(self._runtime, self.holding.run, entry["name"], match=match)
        return next((event for event in found if end is None or event["at"] <= end), None)

    async def post(self, address: str, name: str, payload: Encoded) -> tuple[dict[str, Any], list[str]]:
        """Store an event for other runs; return it, and the workflows that it may not start any more."""
        run, undo = self.holding.run, "undo" if self.place.undo else "step"
        await self._runtime.triggers.refresh()
        event_id = emitted_id(run["born"], run["_id"], self.step.id, undo, self.generation, address)
        event = letter(self._runtime, event_id, name, payload, run.get("tenant_id"), origin=run)
        event["triggers"], refused = within_chain(self._runtime, run, event["triggers"])
        return await post(self._runtime, event), refused

    def deliver(self, event: dict[str, Any]) -> None:
        """Let a stored event be brought to whom it concerns."""
        self._runtime.bus.posted(event)

    async def spawn(self, wanted: Sequence[Wanted], *, fan: str, policy: Any, on_parent_close: str) -> list[str]:
        """Start children that are not there yet; return their ids."""
        return await spawn(
            self._runtime, self.holding.run, wanted, fan=fan, policy=policy, on_parent_close=on_parent_close
        )

    async def children(self, fan: str) -> list[Mapping[str, Any]]:
        """Return the children of a join."""
        run = self.holding.run
        return list(await self._runtime.store.run(statements.find_children(run["_id"], run["born"], fan)))

    async def close_children(self, children: Sequence[Mapping[str, Any]]) -> None:
        """Cancel children that nobody waits for any more."""
        await close(self._runtime, children, "its parent no longer waits for it")

    async def _load(self) -> None:
        """Read what the memo holds beside the run document."""
        found = await self._runtime.store.run(statements.find_memo(memo_prefix(self.holding.run, self.place)))
        for document in found:
            self.holding.spilled[document["_id"]] = document["entry"]


def _leaves(error: BaseException | None) -> Iterable[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    elif error is not None:
        yield error
