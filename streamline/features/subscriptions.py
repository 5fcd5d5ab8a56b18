"""What a subscriber wants to hear of, and how what fails is tried again; apart from whoever delivers it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from streamline.domain.failures import is_worth_retrying, message_of
from streamline.domain.names import KEY_MAX, check_name
from streamline.domain.policies import RetryPolicy, check_attempts
from streamline.domain.run import Event
from streamline.errors import InvalidKey, InvalidPolicy, StreamlineError

GLOBS_MAX = 100
CONCURRENCY_MAX = 1000
PATIENT = RetryPolicy(max_attempts=10, delay="1s", max_delay="5m")
_ERROR_MAX = 500


@dataclass(frozen=True, slots=True)
class Subscription:
    """One durable consumer of the log, whoever delivers to it.

    Args:
        name: Its name within the deployment.
        on: Globs over event types, of which one must match.
        workflow: Only events of runs of this workflow.
        retry: When an event that could not be delivered is tried again, and when it is put aside.
        concurrency: Events of different runs that are delivered at once; 1 to 1,000.
        tenants: Only events of runs of these tenants, where None stands for runs of no tenant; default all.

    Raises:
        InvalidName, InvalidKey, InvalidPolicy: A value is not of the allowed form; names the field.
    """

    name: str
    on: Sequence[str] | str = ("*",)
    workflow: str | None = None
    retry: RetryPolicy = PATIENT
    concurrency: int = 10
    tenants: frozenset[str | None] | None = None
    globs: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        object.__setattr__(self, "globs", check_globs(self.on))
        if self.workflow is not None:
            check_name(self.workflow, "workflow")
        if not isinstance(self.retry, RetryPolicy):
            raise InvalidPolicy("retry: a RetryPolicy", field="retry")
        if check_attempts(self.concurrency, "concurrency") > CONCURRENCY_MAX:
            raise InvalidPolicy(f"concurrency: a whole number from 1 to {CONCURRENCY_MAX:,}", field="concurrency")

    def wants(self, event: Event) -> bool:
        """Return whether the event is to be delivered."""
        is_of_tenants = self.tenants is None or event.tenant_id in self.tenants
        return is_of_tenants and matches(event, self.globs, self.workflow)

    def record(self) -> dict[str, Any]:
        """Return what is stored of it, for whoever looks."""
        return {"on": list(self.globs), "workflow": self.workflow}


def matches(event: Event, globs: Sequence[str], workflow: str | None) -> bool:
    """Return whether an event is of a type that one of the globs matches, and of the workflow, where one is named."""
    return (workflow is None or event.workflow == workflow) and any(fnmatchcase(event.type, glob) for glob in globs)


def check_globs(on: object) -> tuple[str, ...]:
    """Return globs over event types as a tuple; raise `InvalidKey` where they are none."""
    globs = (on,) if isinstance(on, str) else on
    if not isinstance(globs, Sequence) or not 0 < len(globs) <= GLOBS_MAX:
        raise InvalidKey(f'on: a glob over event types such as "run.*", or 1 to {GLOBS_MAX} of them', field="on")
    if not all(isinstance(glob, str) and 0 < len(glob) <= KEY_MAX for glob in globs):
        raise InvalidKey(f"on: globs of 1 to {KEY_MAX} characters", field="on")
    return tuple(globs)


def is_final(error: BaseException, attempts: int, policy: RetryPolicy) -> bool:
    """Return whether an event that failed so often, and now with this error, is put aside."""
    return attempts >= policy.max_attempts or not is_worth_retrying(error, policy)


def told_of(error: BaseException) -> Mapping[str, Any]:
    """Return what is stored of an error: ``{code, type, message}``."""
    code = error.code if isinstance(error, StreamlineError) else "subscriber.error"
    return {"code": code, "type": type(error).__name__, "message": message_of(error)[:_ERROR_MAX]}
