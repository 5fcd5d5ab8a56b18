"""What a context and its durable calls need to know of the attempt they belong to."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from streamline.clock import Clock
from streamline.domain.definition import StepDefinition
from streamline.domain.payloads import Encoded
from streamline.engine.holding import Holding

UNREAD: Final[Any] = object()


@dataclass(slots=True)
class Flags:
    """What has become of an attempt, known to its context and to whoever judges it.

    Args:
        cancelled: The handler has been told to end.
        closed: The attempt has ended; its context must not be used any more.
        suspended: The timer the handler waits for: its key in the memo, and when it is due.
        state: The run's state as the handler sees it; `UNREAD` until it is asked for.
    """

    cancelled: bool = False
    closed: bool = False
    suspended: tuple[str, datetime] | None = None
    state: Any = UNREAD

    def cancel(self) -> None:
        """Note that the handler has been told to end."""
        self.cancelled = True


class Surroundings(Protocol):
    """An attempt, seen from inside its handler."""

    holding: Holding
    step: StepDefinition
    threads: ThreadPoolExecutor
    flags: Flags

    @property
    def clock(self) -> Clock:
        """The app's clock."""
        ...

    def find_step(self, step_id: str) -> StepDefinition | None:
        """Return the workflow's step of this id, or None."""
        ...

    def check_size(self, encoded: Encoded, where: str) -> None:
        """Raise `PayloadTooLarge` where a value, or the run that would hold it, is over its limit."""
        ...

    def decoded_input(self) -> Any:
        """Return the run's input, of its declared type."""
        ...

    def decoded_state(self) -> Any:
        """Return the run's state, of its declared type."""
        ...

    def encoded_state_if_changed(self, state: Any) -> Encoded | None:
        """Return the state as it will be stored, or None where that is what is stored already."""
        ...

    async def save(self, state: Any) -> None:
        """Store the state now."""
        ...
