"""What is wrong around a call: the database, the deployment, the loop."""

from __future__ import annotations

from streamline.errors.root import StreamlineError


class StoreUnavailable(StreamlineError):
    """The database did not answer within the time allowed."""

    code = "store.unavailable"
    http_status = 503


class UnsafeDeployment(StreamlineError):
    """The database or client is set up so that durability cannot be promised."""

    code = "store.unsafe_deployment"


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
