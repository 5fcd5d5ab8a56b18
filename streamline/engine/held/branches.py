"""The branches of a handler: where in the memo its calls stand, and which of its branches are awake.

A handler is one branch until it fans out. A run is parked only when no branch is awake any more: each has ended, or
waits for something that is not there yet.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import datetime

from streamline.clock import Clock
from streamline.domain.names import check_path_key
from streamline.errors import InvalidKey


class Suspension(BaseException):
    """Leaves a handler that waits; a `BaseException`, so that ``except Exception`` does not swallow it."""


class Jump(BaseException):
    """Leaves a handler that goes on at another step."""

    def __init__(self, to: str) -> None:
        super().__init__(to)
        self.to = to


class Branch:
    """One branch of a handler: the prefix of its calls' addresses, and which of them it has asked for.

    Args:
        owner: The attempt it belongs to; two attempts of one process never share a branch.
        path: Its address; empty for the handler itself.
        quorum: Counts it while it is awake.
        up: The branch that waits for this one in the same line of code; None where it goes on beside it.
        counts: Whether it is counted for itself, beside the branch that waits for it.

    Attributes:
        asleep: How many of its tasks wait: a branch is awake while none does.
    """

    __slots__ = ("_asked", "_numbers", "asleep", "counts", "owner", "path", "quorum", "up")

    def __init__(
        self, owner: object, path: str, quorum: Quorum, up: Branch | None = None, *, counts: bool = True
    ) -> None:
        self.owner = owner
        self.path = path
        self.quorum = quorum
        self.up = up
        self.counts = counts
        self.asleep = 0
        self._asked: set[str] = set()
        self._numbers: dict[str, int] = {}

    def address(self, kind: str, key: str | None) -> str:
        """Return the address of a call; without a key it is numbered in call order.

        Raises:
            InvalidKey: The key is not of the allowed form, or was used before in this branch.
        """
        if key is None:
            self._numbers[kind] = self._numbers.get(kind, 0) + 1
            name = f"{kind}#{self._numbers[kind]}"
        else:
            name = escaped(check_path_key(key, "key"))
        if name in self._asked:
            raise InvalidKey(f"key {key or name!r} is used twice in one step", field="key")
        self._asked.add(name)
        return self.within(name)

    def within(self, name: str) -> str:
        """Return the address of something in this branch."""
        return f"{self.path}/{name}" if self.path else name

    def child(self, path: str) -> Branch:
        """Return a branch that this one waits for; its calls do not mix with others'."""
        return Branch(self.owner, path, self.quorum, up=self, counts=False)

    def worker(self, path: str) -> Branch:
        """Return a branch that this one waits for, and that others of its tasks may outlast."""
        return Branch(self.owner, path, self.quorum, up=self)

    def beside(self, path: str) -> Branch:
        """Return a branch that goes on beside others."""
        return Branch(self.owner, path, self.quorum)

    def line(self) -> Iterator[Branch]:
        """Yield the branch and those that wait for it."""
        branch: Branch | None = self
        while branch is not None:
            yield branch
            branch = branch.up


class Quorum:
    """Counts the branches that are awake, of all handlers that are at work on a run.

    Attributes:
        suspended: Whether none was awake any more: everything is over but for parking the run.
    """

    def __init__(self, clock: Clock, awake: int = 1) -> None:
        self._clock = clock
        self._awake = awake
        self._parked: dict[asyncio.Future[None], Branch] = {}
        self._checking = False
        self.suspended = False

    def is_crowded(self, branch: Branch) -> bool:
        """Return whether other branches are awake beside this one."""
        return self._awake > sum(each.counts for each in branch.line() if not each.asleep)

    def begin(self) -> None:
        """Count a branch that begins."""
        self._awake += 1

    def end(self, branch: Branch | None = None) -> None:
        """Count a branch no longer that has ended; one that sleeps is not counted."""
        if branch is None or not branch.asleep:
            self._awake -= 1

    def sleep(self, branch: Branch) -> None:
        """Note that a branch waits, and with it those that wait for it."""
        for each in branch.line():
            self._awake -= each.counts and not each.asleep
            each.asleep += 1

    def wake(self, branch: Branch) -> None:
        """Note that a branch goes on, and with it those that wait for it."""
        for each in branch.line():
            each.asleep -= 1
            self._awake += each.counts and not each.asleep

    def check(self) -> None:
        """Suspend every parked branch where none is awake, once the code that is about to run has run."""
        if self._awake <= 0 and not self._checking:
            self._checking = True
            asyncio.get_running_loop().call_soon(self._check)

    def look_again(self) -> None:
        """Let every parked branch look whether what it waits for is there."""
        for waiter in tuple(self._parked):
            self._rouse(waiter)

    async def park(self, branch: Branch, due_at: datetime | None) -> None:
        """Return when `due_at` has come, or when it is time to look again, while other branches are awake.

        Raises:
            Suspension: No branch is awake any more.
        """
        if self.suspended:
            raise Suspension
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._parked[waiter] = branch
        self.sleep(branch)
        self.check()
        timer = None
        if due_at is not None:
            seconds = (due_at - self._clock.now()).total_seconds()
            timer = loop.call_later(max(0.0, seconds), self._rouse, waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                self.wake(branch)  # whoever cancelled this branch counts it as one that was awake
            raise
        finally:
            del self._parked[waiter]
            if timer is not None:
                timer.cancel()

    def _check(self) -> None:
        self._checking = False
        if self._awake <= 0:
            self.suspended = True
            for waiter in self._parked:
                if not waiter.done():
                    waiter.set_exception(Suspension())

    def _rouse(self, waiter: asyncio.Future[None]) -> None:
        # Counted here and now: by the time the branch runs, others may have gone to sleep.
        if not waiter.done():
            waiter.set_result(None)
            self.wake(self._parked[waiter])


def escaped(key: str) -> str:
    """Return a user's key such that it cannot be read as an address that the engine makes."""
    return _STRUCTURE.sub(lambda found: f"%{ord(found[0]):02X}", key)


_STRUCTURE = re.compile(r"[%/\[\]#]")
_CURRENT: ContextVar[Branch | None] = ContextVar("streamline_branch", default=None)


def current(root: Branch) -> Branch:
    """Return the branch that runs now, of the attempt that `root` belongs to."""
    found = _CURRENT.get()
    return found if found is not None and found.owner is root.owner else root


class entered:  # noqa: N801 - read as a word: `with entered(branch):`
    """Makes a branch the current one for the code inside."""

    __slots__ = ("_branch", "_token")

    def __init__(self, branch: Branch) -> None:
        self._branch = branch

    def __enter__(self) -> Branch:
        """Enter the branch."""
        self._token = _CURRENT.set(self._branch)
        return self._branch

    def __exit__(self, *_: object) -> None:
        """Leave it."""
        _CURRENT.reset(self._token)
