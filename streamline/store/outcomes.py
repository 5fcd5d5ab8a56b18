"""What an error of the driver says about the write it was raised for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymongo.errors import (
    AutoReconnect,
    ConnectionFailure,
    ExecutionTimeout,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
)

from streamline.errors import StoreUnavailable, StreamlineError, UnsafeDeployment
from streamline.store.operations import Inserted

_TAKEN: dict[str, Inserted] = {"slot": "slot_taken", "debounce_key": "draft_taken"}
# Failovers, shutdowns, interrupted and timed-out operations: the same statement may succeed a moment later.
_PASSING = frozenset(
    {
        6,
        7,
        24,
        50,
        64,
        89,
        91,
        112,
        133,
        175,
        189,
        202,
        234,
        262,
        290,
        317,
        358,
        384,
        9001,
        10107,
        11600,
        11602,
        13435,
        13436,
    }
)
_PASSING_LABELS = ("RetryableWriteError", "TransientTransactionError", "RetryableError", "SystemOverloadedError")
_DENIED = frozenset({13, 18, 8000})


class SlotTaken(StreamlineError):
    """Another run has the slot that a run was to be admitted with."""


def taken_by(error: Mapping[str, Any]) -> Inserted:
    """Return what another run has that a refused one was to have: its key, slot or place as a draft."""
    for name in error.get("keyPattern", ()):
        if name in _TAKEN:
            return _TAKEN[name]
    return "key_taken"


def is_passing(error: PyMongoError) -> bool:
    """Return whether sending the same statement again may succeed.

    Whether the failed attempt took effect stays open; every write is such that a second one has no further effect.
    """
    if isinstance(error, (ConnectionFailure, AutoReconnect, NetworkTimeout, ExecutionTimeout, WriteConcernError)):
        return True
    if isinstance(error, OperationFailure) and error.code in _PASSING:
        return True
    return error.timeout or any(error.has_error_label(label) for label in _PASSING_LABELS)


def is_passing_code(code: int | None) -> bool:
    """Return whether a write concern error of this code may pass when the statement is sent again."""
    return code in _PASSING


def translate(error: PyMongoError) -> StreamlineError:
    """Return the error to show a user: without the values that the driver's message repeats."""
    if isinstance(error, OperationFailure) and error.code in _DENIED:
        return UnsafeDeployment(f"the database refuses the engine's user (code {error.code})", field="target")
    code = f" (code {error.code})" if isinstance(error, OperationFailure) else ""
    return StoreUnavailable(f"the database could not carry out a statement: {type(error).__name__}{code}")
