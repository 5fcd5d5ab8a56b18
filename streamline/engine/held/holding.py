"""A run that this worker holds: its document, its lease, the handlers at work on it, and what they have stored."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol

from streamline.domain.change import Change
from streamline.domain.definition import Definition
from streamline.domain.transitions.patching import Patch, carrying, fitting, joined, patched
from streamline.engine.runtime import Runtime
from streamline.errors import HeartbeatLost, RunNotFound, StoreUnavailable, StreamlineError
from streamline.store import statements
from streamline.telemetry import NOTHING, TELEMETRY, Section, about

logger = logging.getLogger("streamline.engine")


Build = Callable[[dict[str, Any]], Change]

_AWAY = "run %s: the database is away; trying again while the lease stands"
_AWAY_PAUSE = 0.1
RIDE_SECONDS = 1.0
_PATCHES_MAX = 500
# Held for microseconds, by threads that say something: one for all holdings.
_RIDERS = threading.Lock()


class Interruptible(Protocol):
    """Something that can be told to end."""

    def interrupt(self, verdict: str) -> None:
        """End, for the reason given."""
        ...


class Holding:
    """One held run.

    Attributes:
        run: The document; nobody else may write it while the lease stands, so this copy is current after each commit.
        safe_until: Monotonic instant up to which the lease certainly stands.
        handlers: What is at work on the run and can be told to end.
        lost: Whether the lease is gone: nothing may be done for the run any more.
        on_news: Called when somebody else has written the run meanwhile, and it was read again.
        queued: How many patches have been handed in and are not written yet.
        queued_bytes: Bytes of users' values in them.
        riders: What goes with the next write, whichever it is.
        rode_at: Monotonic instant at which riders went last.
        quiet: Whether only the transaction that is under way may write the run: no heartbeat, nothing that rides alone.
        contended_since: Monotonic instant since which others have kept a transaction from being committed.
        why_lost: Why the lease is gone that had not been given back: ``"lost"`` or ``"cancelled"``.
        section: What tells of this stretch to traces.
        spilled: Entries of memos that the run document does not hold, by the id of their document.
        stopping: Whether the worker wants to let go of the run as soon as it can.
    """

    __slots__ = (
        "_flushing",
        "_lock",
        "_loop",
        "_queue",
        "_riding",
        "_runtime",
        "_state_lock",
        "contended_since",
        "definition",
        "handlers",
        "lost",
        "on_news",
        "queued",
        "queued_bytes",
        "quiet",
        "riders",
        "rode_at",
        "run",
        "safe_until",
        "section",
        "spilled",
        "stopping",
        "token",
        "why_lost",
    )

    def __init__(self, runtime: Runtime, run: dict[str, Any], definition: Definition, safe_until: float) -> None:
        self._runtime = runtime
        self._lock = asyncio.Lock()
        self._state_lock: asyncio.Lock | None = None
        self._loop = asyncio.get_running_loop()
        self._riding: asyncio.Future[None] | None = None
        self.rode_at = -math.inf
        self._queue: list[tuple[Patch, asyncio.Future[None]]] = []
        self._flushing: asyncio.Task[None] | None = None
        self.queued = 0
        self.queued_bytes = 0
        self.run = run
        self.definition = definition
        self.token: str = run["lease"]["token"]
        self.safe_until = safe_until
        self.handlers: set[Interruptible] = set()
        self.spilled: dict[str, Any] = {}
        self.riders: dict[str, Patch] = {}
        self.on_news: Callable[[], None] | None = None
        self.lost = False
        self.why_lost: str | None = None
        self.section: Section = NOTHING
        self.stopping = False
        self.quiet = False
        self.contended_since: float | None = None

    @property
    def over(self) -> bool:
        """Whether there is nothing left to do here."""
        return self.lost or "lease" not in self.run

    @property
    def state_lock(self) -> asyncio.Lock:
        """Held while a branch stores the state as a whole."""
        if self._state_lock is None:
            self._state_lock = asyncio.Lock()
        return self._state_lock

    def lose(self, verdict: str = "lost") -> None:
        """Give up the run: somebody else has it, or has ended it."""
        if not self.lost:
            self.lost, self.why_lost = True, verdict if "lease" in self.run else None
            if TELEMETRY.meters is not None and self.why_lost == "lost":
                TELEMETRY.meters.lost(self.run)
            self.interrupt(verdict)

    def stop(self) -> None:
        """End the handlers so that the run can be released."""
        self.stopping = True
        self.interrupt("stopping")

    def interrupt(self, verdict: str) -> None:
        """Tell every handler to end."""
        for handler in tuple(self.handlers):
            handler.interrupt(verdict)

    async def commit(self, build: Build) -> None:
        """Write the change that `build` makes of the run, again on a fresh copy where an operator came in between.

        Raises:
            HeartbeatLost: The lease is gone, and with it the change.
        """
        async with self._lock:
            await self._commit(build)

    async def commit_by(self, send: Callable[[dict[str, Any], Change], Awaitable[bool]], build: Build) -> bool:
        """Let `send` write the change that `build` makes of the run, once; what rides goes with it, or stays."""
        async with self._lock:
            riders, stored = self._take_riders() if self.riders else {}, False
            try:
                change = carrying(self.section.leaving(self.run, build(self.run)), tuple(riders.values()))
                stored = await send(self.run, change)
            finally:
                if not stored:
                    self._give_back(riders)
            return stored

    async def settle(self, patch: Patch) -> None:
        """Write part of what a handler has to store; what several have to store at once shares a write.

        Raises:
            HeartbeatLost: The lease is gone, and with it the patch.
        """
        if self.over:
            self.lose()
            raise HeartbeatLost(f"run {self.run['_id']}: the lease was lost")
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((patch, stored))
        self.queued += 1
        self.queued_bytes += patch.weight
        if self._flushing is None:
            self._flushing = asyncio.ensure_future(self._flush())
        await stored

    def add_rider(self, name: str, patch: Patch, within: float = RIDE_SECONDS) -> None:
        """Let something go with the next write, or after so many seconds; handlers in threads say things, too."""
        with _RIDERS:
            is_first = not self.riders
            self.riders = joined(self.riders, {name: patch})
        if is_first:
            self._loop.call_soon_threadsafe(self._loop.call_later, within, self._ride_alone)

    def _ride_alone(self) -> None:
        if self.riders and not self.over:
            self._riding = asyncio.ensure_future(self._try_to_ride())

    async def _try_to_ride(self) -> None:
        with suppress(StreamlineError):  # the handler hears of it at its next call
            await self.ride()

    def _take_riders(self) -> dict[str, Patch]:
        with _RIDERS:
            riders, self.riders = self.riders, {}
        self.rode_at = self._runtime.clock.monotonic()
        return riders

    def _give_back(self, riders: dict[str, Patch]) -> None:
        with _RIDERS:
            self.riders = joined(riders, self.riders)

    async def ride(self) -> None:
        """Write what would go with the next write, now; raise `HeartbeatLost` where the lease is gone."""
        if self.riders and not self.quiet:
            await self.commit(lambda run: patched(run, (), self._runtime.clock.now()))

    async def refresh(self) -> None:
        """Read the run again where somebody else may have written it: a branch waits for what they bring."""
        async with self._lock:
            if not self.over:
                await self._moved_on(self.run.get("cursor"))

    async def drained(self) -> None:
        """Return when what was handed in is written: the handlers have ended, and the outcome comes next."""
        if self._flushing is not None:
            await asyncio.wait((self._flushing,))

    async def _flush(self) -> None:
        try:
            while self._queue:
                count = fitting([patch for patch, _ in self._queue[:_PATCHES_MAX]])
                taken, self._queue = self._queue[:count], self._queue[count:]
                await self._write(taken)
                self.queued -= len(taken)
                self.queued_bytes -= sum(patch.weight for patch, _ in taken)
        finally:
            self._flushing = None

    async def _write(self, taken: list[tuple[Patch, asyncio.Future[None]]]) -> None:
        try:
            await self._spill([patch for patch, _ in taken if patch.spill is not None])
            await self.commit(lambda run: self._patched(run, [patch for patch, _ in taken]))
        except StreamlineError as error:
            if isinstance(error, HeartbeatLost) and any(patch.spill for patch, _ in taken):
                await self._expire_late_entries()
            if len(taken) > 1 and not isinstance(error, HeartbeatLost):
                # Only one of them can be to blame; the others must not suffer for sharing its write.
                for each in taken:
                    await self._write([each])
                return
            _answer(taken, error)
        except BaseException as error:
            _answer(taken, error)
            raise
        else:
            self._remember([patch for patch, _ in taken])
            _answer(taken, None)

    def _patched(self, run: dict[str, Any], patches: list[Patch]) -> Change:
        wanted = [patch for patch in patches if patch.wanted is None or patch.wanted(run)]
        return patched(run, wanted, self._runtime.clock.now())

    async def _spill(self, patches: list[Patch]) -> None:
        """Store entries beside the run; that there are such is on record in the run before."""
        documents = [patch.spill for patch in patches if patch.spill is not None]
        if documents:
            if "spilled" not in self.run:
                mark = Patch(patches[0].place, {"spilled": True})
                await self.commit(lambda run: self._patched(run, [mark]))
            for stored in await self._runtime.store.run(statements.insert_memo(documents)):
                # Whoever held the run before may have been first: what is stored stands.
                next(each for each in documents if each["_id"] == stored["_id"])["entry"] = stored["entry"]

    async def _expire_late_entries(self) -> None:
        """What was stored beside a run that had ended already goes with it; beside one that is gone, at once."""
        store, run_id, born = self._runtime.store, self.run["_id"], self.run["born"]
        with suppress(StoreUnavailable):
            try:
                run = await self._runtime.read(run_id, projection={"expire_at": 1, "ended_at": 1})
            except RunNotFound:
                await store.run(statements.remove_memo(run_id, born, self._runtime.clock.now()))
                return
            if "expire_at" in run:
                await store.run(statements.expire_memo(run_id, born, run["expire_at"]))

    def _remember(self, patches: list[Patch]) -> None:
        for patch in patches:
            if patch.spill is not None:
                self.spilled[patch.spill["_id"]] = patch.spill["entry"]

    async def _commit(self, build: Build) -> None:
        while not self.over and self._runtime.clock.monotonic() < self.safe_until:
            before = self.run.get("cursor")
            # What is said while the write is under way goes with the next one.
            riders = self._take_riders() if self.riders else {}
            try:
                change = build(self.run)
                if self.section is not NOTHING:
                    change = self.section.leaving(self.run, change)
                if riders:
                    change = carrying(change, tuple(riders.values()))
                if await self._try(change) or await self._moved_on(before):
                    return
            except StreamlineError:
                self._give_back(riders)
                raise
            self._give_back(riders)
        self.lose()
        raise HeartbeatLost(f"run {self.run['_id']}: the lease was lost")

    async def _try(self, change: Change) -> bool:
        try:
            return await self._runtime.commit(self.run, change)
        except StoreUnavailable:
            # The lease decides how long to go on: the heartbeat ends this loop once it can no longer be trusted.
            logger.warning(_AWAY, self.run["_id"], extra=about(self.run))
            await self._runtime.clock.sleep(_AWAY_PAUSE)
            return False

    async def _moved_on(self, before: int | None) -> bool:
        """Read the run again; return whether the change had taken effect after all."""
        try:
            fresh = await self._runtime.read(self.run["_id"])
        except StoreUnavailable:
            return False
        except RunNotFound:
            fresh = {}
        if (fresh.get("lease") or {}).get("token") != self.token:
            if TELEMETRY.meters is not None:
                TELEMETRY.meters.fenced(self.run)
            self.lose("cancelled" if "ended_at" in fresh else "lost")
            return False
        self.run = fresh
        if self.on_news is not None:
            asyncio.get_running_loop().call_soon(self.on_news)
        return bool(fresh.get("cursor") != before)


def _answer(taken: list[tuple[Patch, asyncio.Future[None]]], error: BaseException | None) -> None:
    for _, stored in taken:
        if stored.done():
            continue
        if error is None:
            stored.set_result(None)
        else:
            stored.set_exception(error)
