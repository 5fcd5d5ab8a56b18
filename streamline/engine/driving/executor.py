"""Driving a held run: decide, invoke, turn the outcome into a change, commit, repeat."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from streamline.domain.change import Change
from streamline.domain.decisions import (
    Completed,
    Failed,
    Interrupted,
    Jumped,
    Limit,
    Outcome,
    Parked,
    check_run,
    conclude,
    conclude_member,
    conclude_undo,
    dead_letter,
    end_lost,
    is_lost,
    is_overdue,
    next_attempt,
    refused_jump,
    step_at,
    time_out,
)
from streamline.domain.definition import StepDefinition
from streamline.domain.failures import describe
from streamline.domain.place import Place, beginnings, here, next_undo, recoveries_of_step, unfinished
from streamline.domain.transitions import parking, stepping
from streamline.domain.transitions.closing import is_unwanted
from streamline.domain.transitions.operating import abandon
from streamline.domain.transitions.parking import Waits
from streamline.domain.transitions.stepping import Ending
from streamline.engine.driving.attempt import Attempt
from streamline.engine.driving.observed import observed
from streamline.engine.driving.transacting import Again, Stored, Transaction
from streamline.engine.held.branches import Branch, Quorum, Suspension
from streamline.engine.held.holding import Build, Holding
from streamline.engine.runtime import Runtime
from streamline.errors import CorruptRun, HeartbeatLost, NonRetriableError, RunNotFound, StreamlineError
from streamline.settings import Worker
from streamline.telemetry import TELEMETRY, about, driving

logger = logging.getLogger("streamline.engine")


_OF_PARENT = {"status": 1, "steps.id": 1, "steps.generation": 1, "steps.retries": 1}


@dataclass(slots=True)
class _Left:
    """What a step of a group is left with when no other of it is at work.

    Args:
        waits: What its handler waits for.
        due_at: When it is to be tried again.
    """

    waits: Waits | None = None
    due_at: datetime | None = None


class Executor:
    """Drives held runs until they end, are parked, or are lost."""

    def __init__(self, runtime: Runtime, settings: Worker, threads: ThreadPoolExecutor) -> None:
        self.runtime = runtime
        self.settings = settings
        self.threads = threads

    def drive(self, holding: Holding) -> Coroutine[Any, Any, None]:
        """Return what does for the run whatever there is to do while it is held, in a task of its own."""
        return self._drive(holding) if TELEMETRY.tracer is None else self._traced(holding)

    async def _traced(self, holding: Holding) -> None:
        with driving(holding.run) as holding.section:
            try:
                await self._drive(holding)
            finally:
                holding.section.left(holding.run, holding.why_lost)

    async def _drive(self, holding: Holding) -> None:
        try:
            check_run(holding.run)
            if holding.run.get("parent"):
                await self._see_to_parent(holding)
            while not holding.over and self._is_held(holding):
                await self._next(holding)
        except HeartbeatLost:
            holding.lose()
        except StreamlineError as error:
            await self._quarantine(holding, error)
        if holding.why_lost == "lost":
            said = "run %s: the lease was lost; left to its new holder"
            logger.info(said, holding.run["_id"], extra=about(holding.run))

    async def _see_to_parent(self, holding: Holding) -> None:
        """End a child that has not begun and is no longer wanted: its parent may have ended while it was inserted."""
        run, parent = holding.run, holding.run["parent"]
        if parent.get("on_close") != "cancel" or not _is_untouched(run):
            return
        with suppress(RunNotFound):
            found = await self.runtime.read(parent["run_id"], projection=_OF_PARENT)
            if is_unwanted(found, run, knows_memo=False):
                now, reason = self.runtime.clock.now(), f"its parent is {found['status']}"
                await holding.commit(lambda run: abandon(run, now, reason))

    def _is_held(self, holding: Holding) -> bool:
        if self.runtime.clock.monotonic() < holding.safe_until:
            return True
        # Answered too late, or blocked too long: somebody else may have the run by now.
        holding.lose()
        return False

    def _next(self, holding: Holding) -> Awaitable[None]:
        """Return what there is to do for the run next, to be awaited."""
        if self.settings.on_lost != "recover" and is_lost(holding.run):
            return holding.commit(lambda run: self._ended_for_loss(holding, run))
        if self.runtime.is_held_up(holding.definition.name):
            return holding.commit(lambda run: stepping.release(run, self.runtime.clock.now()))
        if holding.run["status"] == "compensating":
            return self._undo(holding)
        if (limit := self._limit_passed(holding.run)) is not None:
            return holding.commit(lambda run: time_out(run, limit, self._ending(holding)))
        if recoveries_of_step(holding.run) > self.settings.max_recoveries:
            return holding.commit(lambda run: dead_letter(run, self._ending(holding)))
        if "group" in holding.run["steps"][holding.run["cursor"]]:
            return self._group(holding)
        return self._step(holding)

    def _limit_passed(self, run: Mapping[str, Any]) -> Limit | None:
        # Most runs have no limits, and need not know what time it is.
        has_limits = "deadline_at" in run or "start_by" in run
        return is_overdue(run, self.runtime.clock.now()) if has_limits else None

    def _ended_for_loss(self, holding: Holding, run: dict[str, Any]) -> Change:
        ending = self._ending(holding)
        if recoveries_of_step(run) > self.settings.max_recoveries:
            return dead_letter(run, ending)
        return end_lost(run, cancel=self.settings.on_lost == "cancel", ending=ending)

    async def _step(self, holding: Holding) -> None:
        place = here(holding.run)
        step = step_at(holding.run, place.k, holding.definition)
        if step.transactional:
            await self._transact(holding, step, place)
            return
        attempt = self._attempt(holding, step, place)
        outcome = Interrupted() if holding.stopping else await observed(attempt)
        await self._conclude(holding, attempt, outcome)

    async def _conclude(self, holding: Holding, attempt: Attempt, outcome: Outcome | None) -> None:
        if outcome is None:
            holding.lose()
            return
        if isinstance(outcome, Interrupted) and not holding.stopping:
            return  # the run's time is over
        await holding.commit(self._following(holding, attempt, outcome))

    def _following(self, holding: Holding, attempt: Attempt, outcome: Outcome) -> Build:
        """Return what builds the change that follows from the outcome of an attempt."""
        place, step, chance, most = attempt.place, attempt.step, random.uniform(-1, 1), self.runtime.settings.max_jumps
        return lambda run: conclude(run, place, step, outcome, self._ending(holding, attempt, outcome), chance, most)

    async def _transact(self, holding: Holding, step: StepDefinition, place: Place) -> None:
        """Try a transactional step once; where others were in the way, it is looked at again, and tried again."""
        async with Transaction(self.runtime, self.settings, holding) as transaction:
            attempt = self._attempt(holding, step, place, transaction=transaction)
            outcome = Interrupted() if holding.stopping else await observed(attempt)
            if isinstance(outcome, Jumped):
                refused = refused_jump(holding.run, outcome.to, self.runtime.settings.max_jumps)
                outcome = outcome if refused is None else Failed(refused, final=True)
            build = None if outcome is None else self._following(holding, attempt, outcome)
            left = await transaction.settle(outcome, build)
        if isinstance(left, Again):
            await transaction.pause()
            await holding.refresh()
        elif not isinstance(left, Stored):
            await self._conclude(holding, attempt, left)

    async def _undo(self, holding: Holding) -> None:
        place = next_undo(holding.run)
        if place is None:
            raise CorruptRun(f"run {holding.run['_id']}: nothing is left to be compensated", field="status")
        step, attempt = step_at(holding.run, place.k, holding.definition), None
        outcome: Outcome | None = self._refused_undo(holding, step)
        if outcome is None:
            attempt = self._attempt(holding, step, place)
            outcome = Interrupted() if holding.stopping else await observed(attempt)
        if outcome is None:
            holding.lose()
            return
        judged, chance = outcome, random.uniform(-1, 1)
        await holding.commit(
            lambda run: conclude_undo(run, place, step, judged, self._ending(holding, attempt, judged), chance)
        )

    def _refused_undo(self, holding: Holding, step: StepDefinition) -> Failed | None:
        if step.compensation is None:
            return Failed(NonRetriableError("the step has no compensation any more"), final=True)
        if recoveries_of_step(holding.run) > self.settings.max_recoveries:
            return Failed(NonRetriableError("given up: the worker died each time"), final=True)
        return None

    async def _group(self, holding: Holding) -> None:
        """Drive the steps of a group at the same time, each stored when it ends; park the run when all others wait."""
        places = unfinished(holding.run)
        quorum = Quorum(self.runtime.clock, awake=len(places))
        holding.on_news = quorum.look_again
        tasks = {place: asyncio.ensure_future(self._member(holding, place, quorum)) for place in places}
        try:
            await asyncio.wait(tasks.values())
        except asyncio.CancelledError:
            for task in tasks.values():
                task.cancel()
            raise
        left = {place: task.result() for place, task in tasks.items()}
        await self._park_group(holding, {place: each for place, each in left.items() if each is not None})

    async def _park_group(self, holding: Holding, left: dict[Place, _Left]) -> None:
        still = [place for place in unfinished(holding.run) if place in left]
        if not still or holding.over or (not holding.stopping and self._limit_passed(holding.run)):
            return
        if holding.stopping or any(left[place].waits is None and left[place].due_at is None for place in still):
            await holding.commit(lambda run: stepping.release(run, self.runtime.clock.now()))
            return
        waits = {place: left[place].waits or {} for place in still if left[place].waits is not None}
        others = tuple(due for place in still if (due := left[place].due_at) is not None)
        await holding.commit(lambda run: parking.park(run, waits, self.runtime.clock.now(), others=others))

    async def _member(self, holding: Holding, place: Place, quorum: Quorum) -> _Left | None:
        """Drive one step of a group until it ends or waits; return what it is left with, None where it has ended."""
        step = step_at(holding.run, place.k, holding.definition)
        due_at = place.activity(holding.run).get("due_at")
        try:
            while not holding.stopping:
                if due_at is not None and due_at > self.runtime.clock.now():
                    await quorum.park(Branch(None, "", quorum), due_at)
                    continue
                attempt = self._attempt(holding, step, place, quorum)
                outcome = await observed(attempt)
                if outcome is None:
                    holding.lose()
                    return None
                if isinstance(outcome, Parked):
                    return _Left(waits=outcome.waits)
                if isinstance(outcome, Interrupted):
                    return self._ended(quorum, _Left())
                due_at = next_attempt(
                    holding.run, place, step, outcome, self.runtime.clock.now(), random.uniform(-1, 1)
                )
                await self._conclude_member(holding, attempt, outcome, due_at)
                if due_at is None:
                    return self._ended(quorum, None)
        except Suspension:
            return _Left(due_at=due_at)
        except HeartbeatLost:
            return None
        return self._ended(quorum, _Left())

    async def _conclude_member(
        self, holding: Holding, attempt: Attempt, outcome: Outcome, due_at: datetime | None
    ) -> None:
        place, step = attempt.place, attempt.step
        await holding.commit(
            lambda run: conclude_member(run, place, step, outcome, self._ending(holding, attempt, outcome), due_at)
        )

    @staticmethod
    def _ended(quorum: Quorum, left: _Left | None) -> _Left | None:
        quorum.end()
        quorum.check()
        return left

    def _attempt(
        self,
        holding: Holding,
        step: StepDefinition,
        place: Place,
        quorum: Quorum | None = None,
        transaction: Transaction | None = None,
    ) -> Attempt:
        return Attempt(self.runtime, self.settings, self.threads, holding, step, place, quorum, transaction)

    def _ending(self, holding: Holding, attempt: Attempt | None = None, outcome: Outcome | None = None) -> Ending:
        ending = Ending(self.runtime.clock.now(), go_on=not holding.stopping)
        if attempt is not None and isinstance(outcome, (Completed, Jumped)):
            ending.state = attempt.state.change()
        return ending

    async def _quarantine(self, holding: Holding, error: StreamlineError) -> None:
        holding.section.failed(error)
        logger.error("run %s cannot be driven and is failed: %s", holding.run["_id"], error, extra=about(holding.run))
        kept = describe(error, None, 0)
        holding.riders = {}  # they may be to blame
        try:
            await holding.commit(lambda run: stepping.quarantine(run, kept, self.runtime.clock.now()))
        except StreamlineError:
            logger.exception("run %s could not be failed", holding.run.get("_id"), extra=about(holding.run))


def _is_untouched(run: Mapping[str, Any]) -> bool:
    """Return whether no step of the run has begun before, nor has it been begun anew."""
    first = run["steps"][0]
    return run["cursor"] == 0 and "attempt" not in first and not beginnings(first)
