"""What every verb of a context begins with."""

from __future__ import annotations

import threading

from streamline.engine.branches import Suspension
from streamline.engine.surroundings import Surroundings
from streamline.errors import ContextClosed, WrongLoop


class Ready:
    """Lets a verb see the attempt it belongs to, while that is at work."""

    _attempt: Surroundings

    def _ready(self, *, anywhere: bool = False) -> Surroundings:
        """Return the attempt.

        Args:
            anywhere: Whether the verb may be used in a thread.

        Raises:
            ContextClosed: It has ended.
            WrongLoop: The verb is awaited in another thread's event loop.
            Suspension: It is about to be parked, and nothing more is to be done.
        """
        attempt = self._attempt
        if attempt.flags.closed:
            raise ContextClosed(f"step {attempt.step.id}: its attempt has ended", field="ctx")
        if not anywhere and threading.get_ident() != attempt.thread:
            raise WrongLoop("a durable call is awaited in the app's event loop: make the handler an `async def`")
        if attempt.root.quorum.suspended:
            raise Suspension
        return attempt
