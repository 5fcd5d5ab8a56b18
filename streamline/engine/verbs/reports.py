"""What a handler reports while it is at work."""

from __future__ import annotations

from typing import Any

from streamline.engine.primitives import telling
from streamline.engine.verbs.ready import Ready


class Reports(Ready):
    """``progress``, ``stream``, ``emit``, ``metric``, ``heartbeat``."""

    async def progress(self, fraction: float, message: str | None = None, **details: Any) -> None:
        """Say how far the step is: stored at most every half second, the last value in any case.

        Args:
            fraction: 0 to 1.
            message: For people.
            details: Anything more, plain data.
        """
        await telling.progress(self._ready(rides=True), fraction, message, details)

    def stream(self, frame: Any) -> None:
        """Hand a frame to this process' listeners of ``"step.stream"``: it is not stored, and may be lost."""
        telling.stream(self._attempt, frame)

    async def emit(self, event: str, payload: Any = None) -> None:
        """Add an event to the run's, once, in the same write as the memo of its being there."""
        await telling.emit(self._ready(), event, payload)

    def metric(self, name: str, value: float) -> None:
        """Add to a number of the run's, such as tokens spent; it is stored with the run's next write."""
        telling.metric(self._ready(anywhere=True), name, value)

    async def heartbeat(self) -> None:
        """Keep the run from being taken for lost; raise `HeartbeatLost` where it was.

        The worker beats by itself as long as its event loop runs; this is for handlers that want to know.
        """
        await telling.heartbeat(self._ready(rides=True))
