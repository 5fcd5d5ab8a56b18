"""What is kept of an exception, and whether another attempt is worth it."""

from __future__ import annotations

import re
from typing import Any

from streamline.domain.policies import RetryPolicy
from streamline.errors import (
    ChildFailed,
    CorruptRun,
    DefinitionError,
    HookExpired,
    InvalidInput,
    InvalidKey,
    NonDeterministicStep,
    NonRetriableError,
    NotFound,
    PayloadTooLarge,
    RetryAfter,
    SerializationError,
    StreamlineError,
    WaitTimeout,
)

MESSAGE_MAX = 4096
_CREDENTIALS = re.compile(r"(\w[\w+.-]{0,30}://)[^\s/@]*@")

# The same code with the same values ends the same way: trying again would only cost time.
_HOPELESS = (
    ChildFailed,
    CorruptRun,
    HookExpired,
    InvalidInput,
    WaitTimeout,
    NonRetriableError,
    NonDeterministicStep,
    SerializationError,
    PayloadTooLarge,
    DefinitionError,
    InvalidKey,
    NotFound,
)


def describe(error: BaseException, step: str | None, attempt: int) -> dict[str, Any]:
    """Return what is stored of `error`: ``{code, type, message, step, attempt}``; the message capped at 4 KiB."""
    return {
        "code": _code_of(error),
        "type": type(error).__name__,
        "message": message_of(error),
        "step": step,
        "attempt": attempt,
    }


def _code_of(error: BaseException) -> str:
    """Return the error's code; by it failed runs are found, so that it is text whatever a user's class says."""
    code = error.code if isinstance(error, StreamlineError) else None
    return code if isinstance(code, str) and code else "step.error"


def message_of(error: BaseException) -> str:
    """Return the error's text without credentials, whatever its ``__str__`` does."""
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - a broken __str__ must not break the recording of the failure
        text = "(the error's text could not be read)"
    text = text[: 2 * MESSAGE_MAX].encode("utf-8", "replace").decode()
    return (_CREDENTIALS.sub(r"\1", text) if "://" in text else text)[:MESSAGE_MAX]


def is_worth_retrying(error: BaseException, policy: RetryPolicy) -> bool:
    """Return whether this kind of error may be followed by another attempt."""
    if isinstance(error, _HOPELESS) or getattr(error, "retriable", True) is False:
        return False
    if isinstance(error, RetryAfter):
        return True
    # What ends a process or a task says nothing about the work itself.
    return not isinstance(error, Exception) or isinstance(error, policy.retry_on)
