"""A handler's own copy of the run's state, and what it has changed of it."""

from __future__ import annotations

from typing import Any, Final

from pydantic import ValidationError

from streamline.domain.payloads import ANY, Encoded
from streamline.domain.transitions.stating import StateChange, check_state_keys, state_changes
from streamline.engine.held.holding import Holding
from streamline.engine.held.limits import check_growth
from streamline.engine.runtime import Runtime

_UNREAD: Final[Any] = object()


class StateCopy:
    """The state as a handler has it; nothing is decoded before it is asked for.

    Args:
        runtime: The app's parts.
        holding: The run, as it is stored.
    """

    def __init__(self, runtime: Runtime, holding: Holding) -> None:
        self._runtime = runtime
        self._holding = holding
        self._codec = holding.definition.state or ANY
        self._value: Any = _UNREAD
        self._found: Any = None

    @property
    def value(self) -> Any:
        """The state, of its declared type."""
        if self._value is _UNREAD:
            self._value = self._decoded()
        return self._value

    @value.setter
    def value(self, value: Any) -> None:
        self._value = value

    @property
    def stored(self) -> Any:
        """The state as it is stored."""
        return self._holding.run.get("state")

    @property
    def stored_size(self) -> int:
        """The bytes of the stored state."""
        return int(self._holding.run.get("state_size", 0))

    def encode(self, value: Any) -> Encoded:
        """Return a state as it would be stored.

        Raises:
            InvalidKey: A key of it could not be reached by a path.
            SerializationError: It would not come back as it is.
            PayloadTooLarge: It, or the run with it, is over its limit.
        """
        encoded = self._codec.encode(value, "state")
        check_state_keys(encoded.value)
        check_growth(self._runtime, self._holding, encoded, "state", 1, self.stored_size)
        return encoded

    def change(self) -> StateChange | None:
        """Return what to store of the copy, or None where nothing of it has changed.

        Only what the handler has changed is stored: branches and other steps of a group have their hands on it, too.
        """
        if self._value is _UNREAD:
            return None
        encoded, stored = self._codec.encode(self._value, "state"), self.stored
        if encoded.value == (self._found if isinstance(stored, dict) else stored):
            return None
        encoded = self.encode(self._value)
        put, drop = state_changes(encoded.value, self._found, stored)
        growth = encoded.size - self.stored_size
        return StateChange(put | {"state_size": encoded.size}, drop, encoded.size, growth, encoded.value)

    def keep(self, change: StateChange) -> None:
        """Note that a change is stored."""
        self._found = change.value

    def know(self, path: str, state: Any) -> None:
        """Note that what is at a path of an encoded state is stored: it is no change of the handler's."""
        name = path.partition(".")[0]
        if isinstance(self._found, dict) and isinstance(state, dict):
            self._found = {**self._found, name: state.get(name)}

    def _decoded(self) -> Any:
        """Return the state as it is stored; a fresh one where none was stored and the type allows it."""
        stored = self._found = self.stored
        if stored is not None:
            return self._codec.decode(stored)
        try:
            fresh = self._codec.decode({})
        except ValidationError:
            return None
        self._found = self._codec.encode(fresh, "state").value
        return fresh
