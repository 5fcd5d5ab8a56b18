"""What a context and its durable calls need to know of the attempt they belong to."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from streamline.clock import Clock
from streamline.domain.definition import StepDefinition
from streamline.domain.payloads import Encoded
from streamline.engine.holding import Holding


class Surroundings(Protocol):
    """An attempt, seen from inside its handler."""

    holding: Holding
    step: StepDefinition
    threads: ThreadPoolExecutor

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
