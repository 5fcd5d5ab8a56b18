"""Waiting for what must come, without an event loop: by a deadline, never by a bare sleep."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(look: Callable[[], T], *, within: float, every: float = 0.02, what: str = "") -> T:
    """Return what `look` answers as soon as that is true; fail where it is not by the deadline."""
    deadline = time.monotonic() + within
    while True:
        if seen := look():
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"not seen within {within:g} s: {what or look}; last answer: {seen!r}")
        time.sleep(every)
