"""What every verb of a context begins with."""

from __future__ import annotations

from streamline.engine.branches import Suspension
from streamline.engine.surroundings import Surroundings
from streamline.errors import ContextClosed


class Ready:
    """Lets a verb see the attempt it belongs to, while that is at work."""

    _attempt: Surroundings

    def _ready(self) -> Surroundings:
        """Return the attempt.

        Raises:
            ContextClosed: It has ended.
            Suspension: It is about to be parked, and nothing more is to be done.
        """
        attempt = self._attempt
        if attempt.flags.closed:
            raise ContextClosed(f"step {attempt.step.id}: its attempt has ended", field="ctx")
        if attempt.root.quorum.suspended:
            raise Suspension
        return attempt
