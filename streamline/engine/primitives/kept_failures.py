"""Failures that a handler caught: a re-entry of the same attempt meets them again, instead of doing it again.

They are stored with the parking of the run, and hold for one attempt: the next one tries again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamline.domain.failures import describe
from streamline.domain.payloads import ANY
from streamline.engine.held.loaded import loaded, name_of_class
from streamline.engine.held.surroundings import Surroundings
from streamline.errors import StreamlineError

BRANCH_MESSAGE_MAX = 500
_PLAIN = (str, int, float, bool, type(None))


def kept_failure(attempt: Surroundings, kind: str, error: BaseException) -> dict[str, Any]:
    """Return what the memo keeps of an error, such that it can be raised again."""
    described = describe(error, attempt.step.id, attempt.number)
    described["message"] = described["message"][:BRANCH_MESSAGE_MAX]
    kept: dict[str, Any] = {"kind": kind, "failed": True, "failed_in": attempt.number, "error": described}
    kept["class"] = name_of_class(type(error))
    if all(type(each) in _PLAIN for each in error.args) and len(str(error.args)) <= BRANCH_MESSAGE_MAX:
        kept["args"] = ANY.encode(list(error.args), "error").value
    return kept


def stands(attempt: Surroundings, entry: Mapping[str, Any] | None) -> bool:
    """Return whether an entry is a failure of this very attempt."""
    return entry is not None and entry.get("failed_in") == attempt.number


def raised_again(entry: Mapping[str, Any]) -> BaseException:
    """Return the error that an entry keeps: of its own class where that can be made, else one that says the same."""
    found = loaded(str(entry.get("class", "")))
    if isinstance(found, type) and issubclass(found, BaseException) and "args" in entry:
        try:
            return found(*entry["args"])
        except Exception:  # noqa: BLE001 - a class of its own ways; the words are kept all the same
            pass
    error = entry["error"]
    return StreamlineError(f"{error['type']}: {error['message']}")
