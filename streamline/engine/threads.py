"""Plain functions in threads: what they raise comes back as a value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def call_guarded(function: Callable[..., Any], *args: Any) -> tuple[Any, BaseException | None]:
    """Call `function` and return its value, or what it raised: a future cannot carry a StopIteration or SystemExit."""
    try:
        return function(*args), None
    except BaseException as error:  # noqa: BLE001 - whatever it is, the step that called must hear of it
        return None, error
