"""How runs, steps and waits end badly, and what handlers raise to say so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamline.errors.root import StreamlineError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta


# Ends of runs


class RunFailed(StreamlineError):
    """Raised by ``result()``: the run failed.

    Attributes:
        run_id: The run.
        error: What is stored on the run: ``{code, type, message, step, attempt}``.
    """

    code = "run.failed"

    def __init__(self, message: str = "", *, run_id: str = "", error: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.run_id = run_id
        self.error = error or {}


class RunCancelled(StreamlineError):
    """Raised by ``result()``: the run was cancelled."""

    code = "run.cancelled"
    http_status = 409

    def __init__(self, message: str = "", *, run_id: str = "", reason: str | None = None) -> None:
        super().__init__(message)
        self.run_id = run_id
        self.reason = reason


class ResultTimeout(StreamlineError, TimeoutError):
    """The run did not end within the time the caller allowed; it goes on."""

    code = "result.timeout"
    http_status = 504


# Inside handlers


class NonDeterministicStep(StreamlineError):
    """A re-entered handler asked for another durable call than the one that is stored."""

    code = "step.non_deterministic"


class NonRetriableError(StreamlineError):
    """Raised by a handler: fail the step at once, whatever its retry policy."""

    code = "step.non_retriable"


class RetryAfter(StreamlineError):
    """Raised by a handler: try again after this delay, if attempts are left.

    Args:
        delay: A ``timedelta``, seconds as a number, or text such as ``"30s"``.
        message: Kept as the attempt's error.
    """

    code = "step.retry_after"

    def __init__(self, delay: timedelta | float | str, message: str = "the handler asked to be retried later") -> None:
        super().__init__(message)
        self.delay = delay


class StepTimeout(StreamlineError, TimeoutError):
    """An attempt took longer than the step's timeout."""

    code = "step.timeout"


class WaitTimeout(StreamlineError, TimeoutError):
    """A wait ended without an answer."""

    code = "wait.timeout"


class ChildFailed(StreamlineError):
    """A child failed, was cancelled or compensated; has its ``run_id``, ``status`` and stored ``error``."""

    code = "child.failed"

    def __init__(
        self, message: str = "", *, run_id: str = "", status: str = "", error: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.run_id = run_id
        self._status = status
        self.error = dict(error or {})

    @property
    def status(self) -> str:
        """How the child ended."""
        return self._status


class HeartbeatLost(StreamlineError):
    """The worker no longer holds the run's lease; what the handler did since then is not stored."""

    code = "lease.lost"
