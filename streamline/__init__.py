"""Durable workflows on MongoDB, inside your own async Python process."""

from streamline.admin.scoped import AllTenants, Tenant
from streamline.app import Streamline
from streamline.declaring.steps import WorkflowStep
from streamline.domain.flow import Concurrency, Debounce, Throttle
from streamline.domain.policies import RetryPolicy
from streamline.domain.run import Event, Failure, Progress, Run, Step, Wait
from streamline.domain.statistics import Queue, Stats
from streamline.domain.tenancy import Tenancy
from streamline.engine.context import Context
from streamline.engine.primitives.fanning import Settled
from streamline.engine.primitives.looping import Continue, Done
from streamline.engine.primitives.webhooks import Hook
from streamline.engine.watching import Hooks
from streamline.errors import NonRetriableError, RetryAfter, StreamlineError
from streamline.features.replies import Answer, Decision
from streamline.handle import RunHandle
from streamline.paging import Page
from streamline.settings import Settings, Worker
from streamline.workflow import Workflow

__all__ = [
    "AllTenants",
    "Answer",
    "Concurrency",
    "Context",
    "Continue",
    "Debounce",
    "Decision",
    "Done",
    "Event",
    "Failure",
    "Hook",
    "Hooks",
    "NonRetriableError",
    "Page",
    "Progress",
    "Queue",
    "RetryAfter",
    "RetryPolicy",
    "Run",
    "RunHandle",
    "Settings",
    "Settled",
    "Stats",
    "Step",
    "Streamline",
    "StreamlineError",
    "Tenancy",
    "Tenant",
    "Throttle",
    "Wait",
    "Worker",
    "Workflow",
    "WorkflowStep",
]
