"""The memo of a step: what a re-entered handler finds instead of doing it again.

A durable call is addressed by its key. Once settled it is never carried out again: the stored result comes back. A
handler must ask for the same calls under the same keys each time; another kind under a stored key is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from streamline.domain.names import check_path_key
from streamline.domain.transitions import stepping
from streamline.engine.holding import Holding
from streamline.errors import InvalidKey, NonDeterministicStep


class Suspension(BaseException):
    """Leaves a handler that waits; a `BaseException`, so that ``except Exception`` does not swallow it."""


class Memo:
    """The settled calls of the step that a holding stands at."""

    def __init__(self, holding: Holding, now_of: Callable[[], datetime]) -> None:
        self._holding = holding
        self._now = now_of
        self._counts: dict[str, int] = {}
        self._asked: set[str] = set()

    def find(self, kind: str, key: str | None) -> tuple[str, Mapping[str, Any] | None]:
        """Return the key of a call and its entry, or None where it is not settled.

        Raises:
            InvalidKey: The key is not of the allowed form, or was used before in this attempt.
            NonDeterministicStep: The key holds a call of another kind.
        """
        address = self._address(kind, key)
        step = self._holding.run["steps"][self._holding.run["cursor"]]
        entry = step.get("memo", {}).get(address)
        if entry is not None and entry["kind"] != kind:
            raise NonDeterministicStep(
                f"step {step['id']}: key {address!r} is stored as {entry['kind']}, and the handler asks for {kind}",
                field=address,
            )
        return address, entry

    async def settle(self, address: str, entry: Mapping[str, Any], *, weight: int) -> None:
        """Store the result of a call; raise `HeartbeatLost` where the run is no longer held."""
        await self._holding.commit(lambda run: stepping.settle(run, address, entry, self._now(), weight=weight))

    def _address(self, kind: str, key: str | None) -> str:
        if key is None:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            address = f"{kind}#{self._counts[kind]}"
        else:
            address = check_path_key(key, "key")
        if address in self._asked:
            raise InvalidKey(f"key {address!r} is used twice in one step", field="key")
        self._asked.add(address)
        return address


def due_of(entry: Mapping[str, Any]) -> datetime:
    """Return the instant that a stored timer is due."""
    instant: datetime = entry["due_at"]
    return instant
