"""Taking runs that have gates: each is claimed by a write of its own, which takes its slot along."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from streamline.domain.change import Change
from streamline.domain.decisions import is_overdue
from streamline.domain.transitions import gating
from streamline.engine.driving.crew import Crew
from streamline.engine.gates.slots import Slots, concurrency_of, throttle_of
from streamline.engine.gates.throttles import Throttles
from streamline.engine.runtime import Runtime
from streamline.errors import CorruptRun
from streamline.store import statements
from streamline.store.outcomes import SlotTaken

Document = dict[str, Any]


@dataclass(slots=True)
class _Passing:
    """A run on its way through its gates."""

    run: Document
    slot: int | None = None
    begun_at: datetime | None = None


_RACES = 10
_FRESH = timedelta(milliseconds=500)


class Admission:
    """Claims runs that pass their gates, lets the others wait, and hands what it has won to the crew."""

    def __init__(
        self,
        runtime: Runtime,
        crew: Crew,
        throttles: Throttles,
        new_lease: Callable[[datetime, str | None], dict[str, Any]],
        lease_seconds: float,
    ) -> None:
        self._runtime = runtime
        self._crew = crew
        self._slots = Slots(runtime)
        self._throttles = throttles
        self._new_lease = new_lease
        self._lease_seconds = lease_seconds
        self._taking = set[str]()

    async def take(self, run_ids: Sequence[str], by: datetime | None = None) -> int:
        """Claim those of the runs that are due by an instant, default now, or in line, and that pass their gates.

        Returns:
            How many were won; they are tried in the order given.
        """
        # Of two looks that have found the same run, the second would spend a turn, or put the run off.
        run_ids = [run_id for run_id in run_ids if run_id not in self._taking]
        kept = self._crew.reserve(len(run_ids))
        if not kept:
            return 0
        taking = set(run_ids[:kept])
        self._taking |= taking
        by = self._runtime.clock.now() if by is None else by
        try:
            found = {run["_id"]: run for run in await self._runtime.store.run(statements.find_gated(run_ids[:kept]))}
            pending = [found[run_id] for run_id in run_ids if run_id in found]
            return await self._admit([_Passing(run) for run in pending if gating.is_up(run, by)])
        finally:
            self._taking -= taking
            self._crew.unreserve(kept)

    async def _admit(self, wanted: list[_Passing]) -> int:
        pending, won = wanted, set[str]()
        for _ in range(_RACES):
            taken, pending = await self._claim(await self._with_turns(await self._with_slots(pending)))
            won |= taken
            if not pending:
                break
        await self._give_back([each for each in wanted if each.run["_id"] not in won])
        return len(won)

    async def _give_back(self, lost: Sequence[_Passing]) -> None:
        """Give back the turns of runs that do not begin after all: others were faster to take or to change them."""
        for each in lost:
            policy = throttle_of(self._runtime, each.run["workflow"], each.run["route"]) if each.begun_at else None
            if policy is not None and each.begun_at is not None:
                await self._throttles.leave(each.run["throttle_key"], policy, each.begun_at, has_begun=True)

    async def _with_slots(self, pending: Sequence[_Passing]) -> list[_Passing]:
        """Return the runs for which there is a slot, or that need none; the others are put in line."""
        now, by_key = self._runtime.clock.now(), defaultdict[str, list[_Passing]](list)
        passing = list[_Passing]()
        for each in pending:
            if gating.is_sound(each.run) and self._needs_slot(each.run) and not _is_over(each.run, now):
                by_key[each.run["slot_key"]].append(each)
            else:
                passing.append(each)
        for found in await asyncio.gather(*(self._slots_for(key, several) for key, several in by_key.items())):
            passing += found
        return passing

    def _needs_slot(self, run: Mapping[str, Any]) -> bool:
        is_limited = concurrency_of(self._runtime, run["workflow"], run["route"]) is not None
        return is_limited and "slot_key" in run and "slot" not in run

    async def _slots_for(self, slot_key: str, several: list[_Passing]) -> list[_Passing]:
        first = several[0].run
        policy = concurrency_of(self._runtime, first["workflow"], first["route"])
        assert policy is not None, "it was asked for"
        free = await self._slots.free(slot_key, policy.limit)
        now = self._runtime.clock.now()
        late = [each.run for each in several[len(free) :] if gating.is_in_the_way(each.run, now)]
        damaged = await self._write(late, lambda run: gating.put_in_line(run, now))
        if late:
            # Whoever gave a slot back meanwhile has not seen these in line.
            self._runtime.freed(slot_key)
        for each, slot in zip(several, free, strict=False):
            each.slot = slot
        return [*damaged, *several[: len(free)]]

    async def _with_turns(self, passing: list[_Passing]) -> list[_Passing]:
        """Return the runs that may begin now; the others are put off."""
        now, by_key = self._runtime.clock.now(), defaultdict[str, list[_Passing]](list)
        begun = list[_Passing]()
        for each in passing:
            # From a moment ago, when somebody else was faster to take the slot. One that is older has passed unused.
            has_turn = each.begun_at is not None and now - each.begun_at <= _FRESH
            if (
                not has_turn
                and gating.is_sound(each.run)
                and self._needs_turn(each.run)
                and not _is_over(each.run, now)
            ):
                by_key[each.run["throttle_key"]].append(each)
            else:
                begun.append(each)
        for found in await asyncio.gather(*(self._turns_of(key, runs) for key, runs in by_key.items())):
            begun += found
        return begun

    def _needs_turn(self, run: Mapping[str, Any]) -> bool:
        # To undo what a run did is not to begin it.
        is_throttled = throttle_of(self._runtime, run["workflow"], run["route"]) is not None
        return is_throttled and "throttle_key" in run and run["status"] != "compensating"

    async def _turns_of(self, throttle_key: str, passing: list[_Passing]) -> list[_Passing]:
        first = passing[0].run
        policy = throttle_of(self._runtime, first["workflow"], first["route"])
        assert policy is not None, "it was asked for"
        turns = await self._throttles.begin(throttle_key, policy, [each.run["_id"] for each in passing])
        now = self._runtime.clock.now()
        for each in passing:
            each.begun_at = turns.begun.get(each.run["_id"])
        late = [each.run for each in passing if each.begun_at is None]
        damaged = await self._write(late, lambda run: gating.put_off(run, turns.later[run["_id"]], now))
        return [*damaged, *(each for each in passing if each.begun_at is not None)]

    async def _claim(self, passing: list[_Passing]) -> tuple[set[str], list[_Passing]]:
        """Claim the runs; return which have begun, and those whose slot somebody else was faster to take."""
        if not passing:
            return set(), []
        # The leases count from before the claim is sent, whenever it is answered.
        safe_until, now = self._runtime.clock.monotonic() + self._lease_seconds, self._runtime.clock.now()
        lease = self._new_lease(now, "claimed")
        store = self._runtime.store
        changes = [
            gating.admit(each.run, now, lease, slot=each.slot, begun_at=each.begun_at or now) for each in passing
        ]
        ids = [each.run["_id"] for each in passing]
        writes = [statements.advance_run(i, change, store.new_mark()) for i, change in zip(ids, changes, strict=True)]
        answers = await asyncio.gather(*(store.run(write) for write in writes), return_exceptions=True)
        won = await store.run(statements.find_claimed(ids, lease["token"]))
        dues = {each.run["_id"]: None if "queued_at" in each.run else each.run.get("due_at") for each in passing}
        for run in won:
            self._crew.take(run, safe_until, due_at=dues[run["_id"]])
        refused = [each for each, answer in zip(passing, answers, strict=True) if isinstance(answer, SlotTaken)]
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, SlotTaken):
                raise answer
        # One that was claimed and ended at once by somebody else has begun as well.
        return {i for i, answer in zip(ids, answers, strict=True) if answer is True} | {
            run["_id"] for run in won
        }, refused

    async def _write(self, runs: Sequence[Document], change: Callable[[Document], Change]) -> list[_Passing]:
        """Write what lets runs wait; where somebody else has changed one meanwhile, the next look sees to it.

        Returns:
            Those that cannot be written, because they are damaged: whoever takes them fails them.
        """
        writes = (self._runtime.commit(run, change(run)) for run in runs)
        answers = await asyncio.gather(*writes, return_exceptions=True)
        for run in runs:
            if "queued_at" not in run:
                self._runtime.announce(run["route"], run.get("due_at"))
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, CorruptRun):
                raise answer
        return [_Passing(run) for run, answer in zip(runs, answers, strict=True) if isinstance(answer, CorruptRun)]


def _is_over(run: Mapping[str, Any], now: datetime) -> bool:
    """Return whether the run's time is over: whoever takes it only ends it."""
    return run["status"] != "compensating" and is_overdue(run, now) is not None
