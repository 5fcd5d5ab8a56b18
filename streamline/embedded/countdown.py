"""Bound every wait of a start by one deadline that can be brought forward."""

from __future__ import annotations

import threading
import time


class Countdown:
    """A deadline for work in a thread, which cannot be cancelled from outside.

    Args:
        seconds: Time allowed from now on.
        cut: Ends the time at once when it is set, if given.
    """

    def __init__(self, seconds: float, cut: threading.Event | None = None) -> None:
        self._end = time.monotonic() + seconds
        self._cut = cut or threading.Event()

    def left(self) -> float:
        """Return the seconds left, which are more than zero.

        Raises:
            TimeoutError: The time is over or was cut.
        """
        left = self._end - time.monotonic()
        if left <= 0 or self._cut.is_set():
            raise TimeoutError
        return left

    def pause(self, seconds: float) -> None:
        """Sleep, but not past the end.

        Raises:
            TimeoutError: The time is over or was cut.
        """
        self._cut.wait(min(seconds, self.left()))
        self.left()
