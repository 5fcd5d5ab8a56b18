"""The ledgers of throttles: read, decided upon, written where nobody has written in between."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from streamline.domain.flow import Throttle
from streamline.engine.runtime import Runtime
from streamline.errors import StoreUnavailable, StreamlineError
from streamline.features import throttle as rules
from streamline.features.throttle import Ledger, Turns
from streamline.store import statements

T = TypeVar("T")
Decide = Callable[[Ledger, datetime], tuple[Ledger, T]]

_RACES = 1000
_PAUSE = 0.005
_KEPT = timedelta(days=1)
_KNOWN_MAX = 1000


class Throttles:
    """Says when runs of throttled workflows may begin."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._known: dict[str, dict[str, Any]] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._waiting: defaultdict[str, list[tuple[Decide[Any], asyncio.Future[Any]]]] = defaultdict(list)

    async def join(self, key: str, throttle: Throttle, count: int = 1) -> list[datetime]:
        """Return when so many new runs may begin: now, or a later instant that is kept free for each."""

        def decide(ledger: Ledger, now: datetime) -> tuple[Ledger, list[datetime]]:
            instants = list[datetime]()
            for _ in range(count):
                ledger, instant = rules.join(ledger, throttle.limit, throttle.window_time, now)
                instants.append(instant)
            return ledger, instants

        return await self._change(key, throttle, decide)

    async def begin(self, key: str, throttle: Throttle, run_ids: Sequence[str]) -> Turns:
        """Return which of the runs begin now, and when the others have to be tried again.

        Who begins is on record before it does: a process that dies in between wastes a start, and exceeds nothing.
        """
        return await self._change(
            key, throttle, lambda ledger, now: rules.begin(ledger, run_ids, throttle.limit, throttle.window_time, now)
        )

    async def enter(self, key: str, throttle: Throttle, run_id: str) -> Turns:
        """Return whether a new run begins now, or when it may."""

        def decide(ledger: Ledger, now: datetime) -> tuple[Ledger, Turns]:
            joined, instant = rules.join(ledger, throttle.limit, throttle.window_time, now)
            if instant > now:
                return joined, Turns({}, {run_id: instant})
            return rules.begin(joined, [run_id], throttle.limit, throttle.window_time, now)

        return await self._change(key, throttle, decide)

    async def room(self, key: str, throttle: Throttle) -> tuple[int, datetime]:
        """Return how many runs may begin now, and when the next may; others may be faster."""
        stored = self._known.get(key) or await self._read(key)
        return rules.room(_ledger(stored), throttle.limit, throttle.window_time, self._runtime.clock.now())

    async def leave(self, key: str, throttle: Throttle, instant: datetime, *, has_begun: bool) -> None:
        """Give back the place of a run that was not stored after all; arguments as for the ledger's `leave`."""
        await self._change(key, throttle, lambda ledger, _: (rules.leave(ledger, instant, has_begun=has_begun), None))

    async def _change(self, key: str, throttle: Throttle, decide: Decide[T]) -> T:
        # In one process one after the other, and those that wait meanwhile share a write; between processes whoever
        # finds the ledger as it was read.
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting[key].append((decide, answer))
        lock = self._locks.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                if not answer.done():
                    await self._serve(key, throttle)
            return await answer
        finally:
            answer.cancel()  # who is gone is not decided about

    async def _serve(self, key: str, throttle: Throttle) -> None:
        """Decide about all that wait for a ledger, in the order in which they came."""
        asked = [each for each in self._waiting.pop(key) if not each[1].done()]
        try:
            answers = await self._decided(key, throttle, [decide for decide, _ in asked])
        except asyncio.CancelledError:
            self._waiting[key][:0] = asked  # the next of them sees to it
            raise
        except StreamlineError as error:
            for _, answer in asked:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), said in zip(asked, answers, strict=True):
            if not answer.done():
                answer.set_result(said)

    async def _decided(self, key: str, throttle: Throttle, decisions: Sequence[Decide[Any]]) -> list[Any]:
        for _ in range(_RACES):
            stored = self._known.pop(key, None) or await self._read(key)
            changed, now, answers = _ledger(stored), self._runtime.clock.now(), list[Any]()
            for decide in decisions:
                changed, answer = decide(changed, now)
                answers.append(answer)
            if changed == _ledger(stored):
                self._remember(key, stored)
                return answers
            if await self._write(key, stored, changed, throttle):
                return answers
            await self._runtime.clock.sleep(random.uniform(0, _PAUSE))
        raise StoreUnavailable("the ledger of a throttle changed hands too often")

    async def _read(self, key: str) -> dict[str, Any]:
        found = await self._runtime.store.run(statements.find_gate(key))
        return found[0] if found else {"rev": 0, "started": [], "plan": []}

    async def _write(self, key: str, stored: dict[str, Any], changed: Ledger, throttle: Throttle) -> bool:
        last = max((*changed.plan[-1:], *changed.started[-1:]), default=self._runtime.clock.now())
        put: dict[str, Any] = {"started": list(changed.started), "plan": list(changed.plan)}
        put["expire_at"] = last + throttle.window_time + _KEPT
        rev: int = stored["rev"] + 1
        if not stored["rev"]:
            # A ledger that was removed and is begun anew must not come to a revision that somebody remembers.
            rev = int(self._runtime.clock.now().timestamp() * 1000)
            done = not await self._runtime.store.run(statements.insert_gate({"_id": key, "rev": rev, **put}))
        else:
            done = await self._runtime.store.run(statements.change_gate(key, stored["rev"], put)) == 1
        if done:
            self._remember(key, {**put, "rev": rev})
        return done

    def _remember(self, key: str, stored: dict[str, Any]) -> None:
        self._known[key] = stored
        if len(self._known) > _KNOWN_MAX:
            del self._known[next(iter(self._known))]


def _ledger(stored: dict[str, Any]) -> Ledger:
    return Ledger(tuple(stored["started"]), tuple(stored["plan"]))
