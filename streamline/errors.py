"""Every error a user of the package can meet, in one tree under `StreamlineError`.

Each class carries a dotted ``code`` (stable, for logs and APIs) and an ``http_status`` (for web handlers). An instance
may carry ``field``: the path of the argument or payload value that is to blame. Messages say what is wrong, where, and
what is allowed; they never repeat the user's values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta


class StreamlineError(Exception):
    """Root of the tree.

    Args:
        message: What is wrong and what is allowed.
        field: Path of the argument or value to blame, such as ``"retry.max_attempts"``.
    """

    code: ClassVar[str] = "streamline.error"
    http_status: ClassVar[int] = 500

    def __init__(self, message: str = "", *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


# Declaring


class DefinitionError(StreamlineError):
    """A workflow or step is declared in a way that cannot work."""

    code = "definition.invalid"
    http_status = 422


class InvalidName(DefinitionError):
    """A workflow name, step id or version is not of the allowed form."""

    code = "definition.name"


class DuplicateStep(DefinitionError):
    """Two steps of one workflow share an id."""

    code = "definition.duplicate_step"


class InvalidPolicy(DefinitionError):
    """A policy, duration or setting is out of its range."""

    code = "definition.policy"


class AlreadyRegistered(DefinitionError):
    """Another definition is already registered under this name and version."""

    code = "definition.already_registered"


# Values


class InvalidInput(StreamlineError):
    """An input, answer or payload does not fit its declared type."""

    code = "input.invalid"
    http_status = 422


class SerializationError(StreamlineError):
    """A value cannot be stored so that the same value comes back; ``field`` is its path."""

    code = "payload.serialization"
    http_status = 422


class PayloadTooLarge(StreamlineError):
    """A value, or the run that would hold it, is over its limit in bytes."""

    code = "payload.too_large"
    http_status = 413


class InvalidKey(StreamlineError):
    """A key (idempotency, memo, state, metadata) is not of the allowed form."""

    code = "key.invalid"
    http_status = 422


class InvalidQuery(StreamlineError):
    """A filter, order, limit or page cursor is not of the allowed form."""

    code = "query.invalid"
    http_status = 422


class ScheduleError(StreamlineError):
    """A schedule's expression, zone or policy is not of the allowed form."""

    code = "schedule.invalid"
    http_status = 422


class UrlNotAllowed(StreamlineError):
    """An outgoing address points where requests must not go."""

    code = "url.not_allowed"
    http_status = 422


# Not found


class NotFound(StreamlineError):
    """The thing named does not exist, or belongs to somebody else."""

    code = "not_found"
    http_status = 404


class RunNotFound(NotFound):
    """No such run within the caller's scope."""

    code = "run.not_found"


class WorkflowNotFound(NotFound):
    """No workflow of this name is registered."""

    code = "workflow.not_found"


class StepNotFound(NotFound):
    """The workflow has no such step."""

    code = "step.not_found"


class StepOutputMissing(NotFound):
    """The step has no output: it has not run yet, or was skipped."""

    code = "step.output_missing"


class HookNotFound(NotFound):
    """The token opens nothing: unknown, used, expired and foreign tokens look alike."""

    code = "hook.not_found"


class ScheduleNotFound(NotFound):
    """No such schedule within the caller's scope."""

    code = "schedule.not_found"


# Conflicts


class Conflict(StreamlineError):
    """The state of things does not allow what was asked."""

    code = "conflict"
    http_status = 409


class IllegalTransition(Conflict):
    """The run's status does not allow this change."""

    code = "run.illegal_transition"


class NotWaiting(Conflict):
    """The run waits for no such answer, or another caller has just given it."""

    code = "run.not_waiting"


class AlreadyFinished(Conflict):
    """The run has ended."""

    code = "run.already_finished"


class HookAlreadyUsed(Conflict):
    """The hook was answered before."""

    code = "hook.already_used"


class VersionMismatch(Conflict):
    """The run's version is not served by this process."""

    code = "workflow.version_mismatch"


class IdempotencyConflict(Conflict):
    """The idempotency key belongs to another run."""

    code = "idempotency.conflict"


class HookExpired(StreamlineError):
    """The hook's time is over."""

    code = "hook.expired"
    http_status = 410


class ConcurrencyLimitReached(StreamlineError):
    """Every slot of the concurrency key is taken; has the ``workflow``, the ``key`` and the ``limit``."""

    code = "concurrency.limit_reached"
    http_status = 429

    def __init__(self, workflow: str = "", key: str = "", limit: int = 0) -> None:
        super().__init__(f"workflow {workflow}: {limit} runs of the key are at work", field="concurrency")
        self.workflow = workflow
        self.key = key
        self.limit = limit


# Tenants and trust


class TenantRequired(StreamlineError):
    """The app is multi-tenant and the call names no tenant."""

    code = "tenant.required"
    http_status = 403


class ForeignTenant(StreamlineError):
    """The call reaches into another tenant."""

    code = "tenant.foreign"
    http_status = 403


class InvalidTenant(StreamlineError):
    """A tenant id is not of the allowed form."""

    code = "tenant.invalid"
    http_status = 403


class SignatureInvalid(StreamlineError):
    """A signature does not prove where a request comes from."""

    code = "signature.invalid"
    http_status = 401


# Database and process


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
