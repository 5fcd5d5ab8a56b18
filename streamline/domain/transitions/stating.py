"""What a write stores of a run's state: the fields that a handler has changed, and no others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streamline.domain.names import check_path_key

_NOTHING = object()


@dataclass(frozen=True, slots=True)
class StateChange:
    """A change of a run's state.

    Args:
        put: New values by field path.
        drop: Field paths to remove.
        weight: Bytes of users' values in it.
        growth: Bytes by which the run grows.
        value: The whole state after it, encoded.
    """

    put: Mapping[str, Any]
    drop: tuple[str, ...]
    weight: int
    growth: int
    value: Any


def state_changes(state: Any, found: Any, stored: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return what to put and drop so that the stored state gets what a handler has changed.

    Args:
        state: The handler's copy, encoded.
        found: The copy as it was when the two agreed last.
        stored: What is stored now; others may have changed other fields of it.
    """
    if not isinstance(state, dict) or not isinstance(stored, dict) or not isinstance(found, dict):
        return {"state": state}, ()
    put = {f"state.{name}": value for name, value in state.items() if found.get(name, _NOTHING) != value}
    return put, tuple(f"state.{name}" for name in found if name not in state and name in stored)


def check_state_keys(state: Any) -> None:
    """Raise `InvalidKey` where a key of a mapping within the state could not be reached by a path."""
    if isinstance(state, dict):
        for key, value in state.items():
            check_path_key(key, "state key")
            check_state_keys(value)
    elif isinstance(state, list):
        for value in state:
            check_state_keys(value)
