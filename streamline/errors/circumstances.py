"""What is wrong around a call: the database, the deployment, the loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamline.errors.root import StreamlineError

if TYPE_CHECKING:
    from datetime import timedelta


class StoreUnavailable(StreamlineError):
    """The database did not answer within the time allowed."""

    code = "store.unavailable"
    http_status = 503


class UnsafeDeployment(StreamlineError):
    """The database or client is set up so that durability cannot be promised."""

    code = "store.unsafe_deployment"


class IndexConflict(UnsafeDeployment):
    """An index is there under the same name and with another definition, or what is stored breaks a unique one."""

    code = "store.index_conflict"


class CorruptRun(StreamlineError):
    """A stored run is not of the form this engine writes: reading it is refused; a worker that takes it fails it."""

    code = "run.corrupt"


class ContextClosed(StreamlineError):
    """A context was used after its attempt had ended."""

    code = "context.closed"


class WrongLoop(StreamlineError):
    """The app was used from another event loop than the one it was opened in."""

    code = "app.wrong_loop"


class AppClosed(StreamlineError):
    """The app is not open."""

    code = "app.closed"


class ExtraMissing(StreamlineError):
    """Something needs a package that is not installed; the message names the extra that brings it."""

    code = "app.extra_missing"


class WebhookFailed(StreamlineError):
    """A webhook was sent and not taken; kept with the endpoint and with dead letters, never raised by a verb.

    Args:
        message: What was met.
        after: When the receiver wants to be asked again, if it says so.
        gone: Whether it wants no more webhooks at all.
    """

    code = "webhook.failed"
    http_status = 502

    def __init__(self, message: str = "", *, after: timedelta | None = None, gone: bool = False) -> None:
        super().__init__(message)
        self.after = after
        self.gone = gone
