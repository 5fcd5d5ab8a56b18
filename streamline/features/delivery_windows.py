"""How far a subscriber is: which entries of the log are settled, which are at work, which are held back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Held:
    """A run whose events are held back from a subscriber: its handler failed on one of them.

    Attributes:
        run_id: The run.
        seq: Number of the event to be tried next.
        position: Its place in the log.
        attempts: How often it was tried.
        due_at: When it is to be tried again.
        error: What it failed with: ``{code, type, message}``.
    """

    run_id: str
    seq: int
    position: int
    attempts: int
    due_at: datetime
    error: Mapping[str, Any]


class Window:
    """What a driver knows of its subscriber.

    Entries are read in the order of the log. One is settled once it was handled, or was not wanted, or its run is held
    back. The position is the last before which all are settled: whoever drives the subscriber next begins there.

    Attributes:
        read: The position of the last entry that was read.
    """

    def __init__(self, position: int, held: Sequence[Mapping[str, Any]] = ()) -> None:
        self.read = position
        self._open: dict[int, None] = {}
        self._held = {each["run_id"]: Held(**each) for each in held}
        # Of runs that were held back before, anything up to here may be behind.
        self._behind = dict.fromkeys(self._held, position)

    @property
    def position(self) -> int:
        """The last position up to which everything is settled."""
        return next(iter(self._open)) - 1 if self._open else self.read

    @property
    def at_work(self) -> int:
        """How many entries are not settled."""
        return len(self._open)

    @property
    def held(self) -> tuple[Held, ...]:
        """The runs that are held back."""
        return tuple(self._held.values())

    def begin(self, run_id: str, position: int) -> bool:
        """Note that a wanted entry was read; return whether it is to be handled now, rather than behind others."""
        self.read = position
        if run_id in self._held:
            self._behind[run_id] = position
            return False
        self._open[position] = None
        return True

    def skip(self, position: int) -> None:
        """Note that an entry was read that is not wanted."""
        self.read = position

    def settle(self, position: int) -> None:
        """Note that an entry was handled, or put aside for good."""
        self._open.pop(position, None)

    def hold(self, failed: Held, behind: Sequence[int]) -> None:
        """Hold a run back from the entry that failed on; those at work behind it wait, too."""
        self._held[failed.run_id] = failed
        self._behind[failed.run_id] = max((failed.position, *behind))
        for position in (failed.position, *behind):
            self.settle(position)

    def again(self, held: Held, **changes: Any) -> Held:
        """Change what is known of a run that is held back, and return it."""
        self._held[held.run_id] = changed = replace(held, **changes)
        return changed

    def behind(self, run_id: str) -> int:
        """Return up to which position there may be entries of a run that is held back."""
        return self._behind[run_id]

    def release(self, run_id: str) -> None:
        """Note that nothing of a run is held back any more."""
        del self._held[run_id], self._behind[run_id]

    def record(self) -> dict[str, Any]:
        """Return what is to be stored."""
        return {"position": self.position, "held": [asdict(each) for each in self.held]}
