"""The branches of a handler: where in the memo its calls stand, and which of its branches are awake.

A handler is one branch until it fans out. A run is parked only when no branch is awake any more: each has ended, or
waits for something that is not there yet.
"""

from __future__ import annotations

import asyncio
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


class Quorum:
    """Counts the branches that are awake, of all handlers that are at work on a run.

    Attributes:
        suspended: Whether none was awake any more: everything is over but for parking the run.
    """

    def __init__(self, clock: Clock, awake: int = 1) -> None:
        self._clock = clock
        self._awake = awake
        self._parked: dict[asyncio.Future[None], datetime | None] = {}
        self.suspended = False

    @property
    def is_crowded(self) -> bool:
        """Whether other branches are awake beside the one that asks."""
        return self._awake > 1

    def doze(self, count: int = 1) -> None:
        """Note that branches are awake no longer; `check` decides what follows."""
        self._awake -= count

    def rouse(self, count: int = 1) -> None:
        """Note that branches are awake."""
        self._awake += count

    def check(self) -> None:
        """Suspend every parked branch where none is awake."""
        if self._awake == 0 and not self.suspended:
            self.suspended = True
            for waiter in self._parked:
                if not waiter.done():
                    waiter.set_exception(Suspension())

    def look_again(self) -> None:
        """Let every parked branch look whether what it waits for is there."""
        for waiter in self._parked:
            self._wake(waiter)

    async def park(self, due_at: datetime | None) -> None:
        """Return when `due_at` has come, or when it is time to look again, while other branches are awake.

        Raises:
            Suspension: No branch is awake any more.
        """
        if self.suspended:
            raise Suspension
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._parked[waiter] = due_at
        self.doze()
        self.check()
        timer = None
        if due_at is not None and not waiter.done():
            seconds = (due_at - self._clock.now()).total_seconds()
            timer = loop.call_later(max(0.0, seconds), self._wake, waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            self._wake(waiter)  # whoever cancelled this branch counts it as one that was awake
            raise
        finally:
            del self._parked[waiter]
            if timer is not None:
                timer.cancel()

    def _wake(self, waiter: asyncio.Future[None]) -> None:
        # Counted here and now: by the time the branch runs, others may have gone to sleep.
        if not waiter.done():
            waiter.set_result(None)
            self.rouse()
        elif waiter.cancelled():
            self.rouse()


class Branch:
    """One branch of a handler: the prefix of its calls' addresses, and which of them it has asked for.

    Args:
        owner: The attempt it belongs to; two attempts of one process never share a branch.
        path: Its address; empty for the handler itself.
        quorum: Counts it while it is awake.
    """

    __slots__ = ("_asked", "_counts", "owner", "path", "quorum", "touched")

    def __init__(self, owner: object, path: str, quorum: Quorum) -> None:
        self.owner = owner
        self.path = path
        self.quorum = quorum
        self.touched: list[str] = []
        self._asked: set[str] = set()
        self._counts: dict[str, int] = {}

    @property
    def is_root(self) -> bool:
        """Whether it is the handler itself."""
        return not self.path

    def address(self, kind: str, key: str | None) -> str:
        """Return the address of a call; without a key it is numbered in call order.

        Raises:
            InvalidKey: The key is not of the allowed form, or was used before in this branch.
        """
        if key is None:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            name = f"{kind}#{self._counts[kind]}"
        else:
            name = check_path_key(key, "key")
        if name in self._asked:
            raise InvalidKey(f"key {name!r} is used twice in one step", field="key")
        self._asked.add(name)
        address = self.within(name)
        self.touched.append(address)
        return address

    def within(self, name: str) -> str:
        """Return the address of something in this branch."""
        return f"{self.path}/{name}" if self.path else name

    def child(self, path: str) -> Branch:
        """Return a branch of this one; its calls do not mix with others'."""
        return Branch(self.owner, path, self.quorum)


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
