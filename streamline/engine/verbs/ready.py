"""What every verb of a context begins with."""

from __future__ import annotations

import inspect
import threading
from types import FrameType

from streamline.engine.held.branches import Suspension
from streamline.engine.held.surroundings import Surroundings
from streamline.errors import ContextClosed, NonRetriableError, WrongLoop


class Ready:
    """Lets a verb see the attempt it belongs to, while that is at work."""

    _attempt: Surroundings

    def _ready(self, *, anywhere: bool = False, rides: bool = False) -> Surroundings:
        """Return the attempt.

        Args:
            anywhere: Whether the verb may be used in a thread; such a verb stores nothing at once.
            rides: Whether what the verb stores goes with another write.

        Raises:
            NonRetriableError: The verb stores something at once, and the step does so as a whole.
            ContextClosed: It has ended.
            WrongLoop: The verb is awaited in another thread's event loop.
            Suspension: It is about to be parked, and nothing more is to be done.
        """
        attempt = self._attempt
        if attempt.flags.closed:
            raise ContextClosed(f"step {attempt.step.id}: its attempt has ended", field="ctx")
        if not anywhere and threading.get_ident() != attempt.thread:
            raise WrongLoop("a durable call is awaited in the app's event loop: make the handler an `async def`")
        if attempt.session is not None and not anywhere and not rides:
            raise _refused(attempt.step.id, inspect.currentframe())
        if attempt.root.quorum.suspended:
            raise Suspension
        return attempt


def _refused(step_id: str, frame: FrameType | None) -> NonRetriableError:
    verb = frame.f_back.f_code.co_name if frame is not None and frame.f_back is not None else "call"
    return NonRetriableError(
        f"ctx.{verb}: not in a transactional step: {step_id} is stored as a whole, with its transaction, or not at "
        "all; do it in a step before or after",
        field=verb,
    )
