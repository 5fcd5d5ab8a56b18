"""What is refused: it is not of the allowed form, not there, or not possible now."""

from __future__ import annotations

from streamline.errors.root import StreamlineError

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


class WebhookNotFound(NotFound):
    """No such webhook endpoint within the caller's scope."""

    code = "webhook.not_found"


class SubscriberNotFound(NotFound):
    """No such subscriber within the caller's scope."""

    code = "subscriber.not_found"


# Conflicts


class Conflict(StreamlineError):
    """The state of things does not allow what was asked."""

    code = "conflict"
    http_status = 409


class DocumentIsReadOnly(Conflict):
    """The documents of `streamline.odm` are for reading; runs are changed by the verbs of the app."""

    code = "document.read_only"


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


class WebhookExists(Conflict):
    """There is a webhook endpoint of this id already."""

    code = "webhook.exists"


class HookExpired(StreamlineError):
    """The hook's time is over."""

    code = "hook.expired"
    http_status = 410


class ConcurrencyLimitReached(StreamlineError):
    """Every slot of the concurrency key is taken; has the ``workflow``, the ``key`` and the ``limit``."""

    code = "concurrency.limit_reached"
    http_status = 429

    def __init__(self, message: str = "", *, workflow: str = "", key: str = "", limit: int = 0) -> None:
        super().__init__(message, field="concurrency")
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
