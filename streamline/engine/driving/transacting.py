"""A transactional step: what its handler writes with `ctx.session` and the write that ends it, in one transaction.

The run is one of the documents that the transaction writes. So from its first operation on nobody here writes the run
beside it: heartbeats leave it out while its lease lasts, and what would ride waits for the write that ends the step.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from streamline.domain.change import Change
from streamline.domain.decisions import Completed, Failed, Jumped, Outcome
from streamline.engine.held.holding import Build, Holding
from streamline.engine.runtime import Runtime
from streamline.errors import Conflict, HeartbeatLost, NonRetriableError, RunNotFound, StoreUnavailable
from streamline.settings import Worker
from streamline.store.sessions import InSession, begin, is_conflict

# Of a lease. A heartbeat gives a run up that has less than 0.3 of its lease left, and the commit takes its time, too.
SHARE: Final = 0.6
_LEFT_AT_LEAST: Final = 0.35
_FRESH: Final = 0.95
_AWAY_PAUSE: Final = 0.1
_FIRST_PAUSE, _SHARE_OF_WAIT, _LONGEST_PAUSE = 0.005, 0.2, 1.0


@dataclass(frozen=True, slots=True)
class Again:
    """The transaction came to nothing, for a reason that may have passed when it is tried again."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Stored:
    """The transaction is committed."""


class Transaction:
    """The transaction of one attempt; leaving it ends what was not committed.

    Attributes:
        limit: Seconds that the handler may take.
    """

    def __init__(self, runtime: Runtime, settings: Worker, holding: Holding) -> None:
        self._runtime = runtime
        self._settings = settings
        self._holding = holding
        self._work: InSession | None = None
        self._said = dict(holding.riders)
        self.limit = 0.0

    async def __aenter__(self) -> Self:
        """Return the transaction; nothing has begun yet."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the session, so that no straggler of the handler can write with it any more."""
        try:
            if self._work is not None:
                await self._work.end()
        finally:
            self.loosen()

    async def begin(self, beat: Callable[[], Awaitable[None]]) -> Any:
        """Begin, with a lease that lasts, and return the session.

        Args:
            beat: Extends the lease.

        Raises:
            UnsafeDeployment: The database has no transactions.
            HeartbeatLost: The lease is gone.
        """
        self._work = await begin(self._runtime.store)
        await self._extend_lease(beat)
        with suppress(StoreUnavailable):  # the relay may then be in the way, and the step is tried again
            await self._runtime.outbox.settle(self._holding.run)
        self._holding.quiet = True
        self._said = dict(self._holding.riders)
        lease, left = self._settings.lease_seconds, self._seconds_left()
        self.limit = max(0.0, min(SHARE * lease, left - _LEFT_AT_LEAST * lease))
        return self._work.session

    def loosen(self) -> None:
        """Let heartbeats and riders write the run again: the transaction is over, or will not be committed."""
        self._holding.quiet = False

    async def settle(self, outcome: Outcome | None, build: Build | None) -> Outcome | Again | Stored | None:
        """Commit where the handler is done; return what is left to be seen to once the transaction is over."""
        if isinstance(outcome, (Completed, Jumped)) and self._work is not None and build is not None:
            if not self._work.in_transaction:
                return Failed(
                    NonRetriableError("ctx.session: its handler has ended the transaction itself"), final=True
                )
            return self._in_time(await self._store(self._work, build))
        if isinstance(outcome, Failed) and _may_pass(outcome):
            return self._in_time(Again(outcome.error))
        self._holding.contended_since = None
        return outcome

    async def pause(self) -> None:
        """Wait before the next try: longer, the longer others have been in the way."""
        waited = self._runtime.clock.monotonic() - (self._holding.contended_since or 0.0)
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE + _SHARE_OF_WAIT * waited)
        await self._runtime.clock.sleep(pause * random.uniform(0.5, 1.0))

    async def _store(self, work: InSession, build: Build) -> Again | Stored | None:
        try:
            stored = await self._holding.commit_by(lambda run, change: self._send(work, run, change), build)
        except HeartbeatLost:
            return None
        except StoreUnavailable as error:
            return Again(error)
        except Exception as error:
            if is_conflict(error):
                return Again(error)
            raise
        return Stored() if stored else Again(Conflict("the run was written by others while its transaction was open"))

    async def _send(self, work: InSession, run: dict[str, Any], change: Change) -> bool:
        """Send the write that ends the step, and commit; return whether both took effect.

        Raises:
            HeartbeatLost: Nobody knows, and there is no time left to find out.
        """
        statement, change = await self._runtime.advance(run, change)
        if not self._is_held() or not await work.update(statement):
            return False
        while (outcome := await work.commit()) == "unknown" and self._is_held():
            await self._runtime.clock.sleep(_AWAY_PAUSE)
        if outcome == "unknown" and not await self._shows(run["_id"], statement.mark):
            self._holding.lose()
            raise HeartbeatLost(f"run {run['_id']}: it is not known whether its transaction was committed")
        if outcome == "aborted":
            return False
        self._runtime.wrote(run, change)
        return True

    async def _shows(self, run_id: str, mark: str) -> bool:
        """Ask the run itself: it was moved on, or not."""
        try:
            found = await self._runtime.read(run_id, projection={"mark": 1})
        except (StoreUnavailable, RunNotFound):
            return False
        return bool(found.get("mark") == mark)

    def _in_time(self, result: Again | Stored | None) -> Again | Stored | Failed | None:
        """Past the patience that there is, what is in the way counts as a failure."""
        holding, now = self._holding, self._runtime.clock.monotonic()
        if not isinstance(result, Again):
            holding.contended_since = None
            return result
        self._holding.riders = {**self._said, **{name: p for name, p in holding.riders.items() if name == "logs"}}
        if holding.contended_since is None:
            holding.contended_since = now
        if now - holding.contended_since < self._runtime.settings.transaction_seconds:
            return result
        holding.contended_since = None
        return Failed(result.error)

    async def _extend_lease(self, beat: Callable[[], Awaitable[None]]) -> None:
        while self._seconds_left() < _FRESH * self._settings.lease_seconds:
            try:
                return await beat()
            except StoreUnavailable:
                if not self._is_held():
                    self._holding.lose()
                    raise HeartbeatLost(f"run {self._holding.run['_id']}: the lease was lost") from None
                await self._runtime.clock.sleep(_AWAY_PAUSE)

    def _seconds_left(self) -> float:
        return self._holding.safe_until - self._runtime.clock.monotonic()

    def _is_held(self) -> bool:
        return not self._holding.lost and self._seconds_left() > 0


def _may_pass(failed: Failed) -> bool:
    return not failed.final and not isinstance(failed.error, NonRetriableError) and is_conflict(failed.error)
