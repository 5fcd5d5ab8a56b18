"""Durable workflows on MongoDB, inside your own async Python process."""

from streamline.admin.following import Subscriber
from streamline.admin.scoped import AllTenants, Tenant
from streamline.app import Streamline
from streamline.declaring.steps import WorkflowStep
from streamline.domain.bulk_result import BulkFailure, BulkResult
from streamline.domain.dead_letter import DeadLetter
from streamline.domain.flow import Concurrency, Debounce, Throttle
from streamline.domain.health import Health, HealthCheck
from streamline.domain.policies import RetryPolicy
from streamline.domain.reactions import CancelOn, OnCompletion, OnEvent
from streamline.domain.run import Event, Failure, Progress, Run, Step, Wait
from streamline.domain.statistics import Queue, Stats
from streamline.domain.stuck import StuckRun
from streamline.domain.summary import RunSummary
from streamline.domain.tenancy import Tenancy
from streamline.domain.versions import Migration, VersionInfo
from streamline.engine.driving.context import Context
from streamline.engine.held.watching import Hooks
from streamline.engine.primitives.fanning import Settled
from streamline.engine.primitives.looping import Continue, Done
from streamline.engine.primitives.webhooks import Hook
from streamline.errors import NonRetriableError, RetryAfter, StreamlineError
from streamline.features.endpoints import CreatedWebhook, WebhookEndpoint
from streamline.features.recurrence.schedule import Schedule
from streamline.features.recurrence.wall_clock import Occurrence
from streamline.features.replies import Answer, Decision
from streamline.features.signing import verify_webhook
from streamline.handle import RunHandle
from streamline.paging import Page
from streamline.settings import Settings, Worker
from streamline.store.index_check import IndexIssue
from streamline.telemetry import RunFields
from streamline.workflow import Workflow

__all__ = [
    "AllTenants",
    "Answer",
    "BulkFailure",
    "BulkResult",
    "CancelOn",
    "Concurrency",
    "Context",
    "Continue",
    "CreatedWebhook",
    "DeadLetter",
    "Debounce",
    "Decision",
    "Done",
    "Event",
    "Failure",
    "Health",
    "HealthCheck",
    "Hook",
    "Hooks",
    "IndexIssue",
    "Migration",
    "NonRetriableError",
    "Occurrence",
    "OnCompletion",
    "OnEvent",
    "Page",
    "Progress",
    "Queue",
    "RetryAfter",
    "RetryPolicy",
    "Run",
    "RunFields",
    "RunHandle",
    "RunSummary",
    "Schedule",
    "Settings",
    "Settled",
    "Stats",
    "Step",
    "Streamline",
    "StreamlineError",
    "StuckRun",
    "Subscriber",
    "Tenancy",
    "Tenant",
    "Throttle",
    "verify_webhook",
    "VersionInfo",
    "Wait",
    "WebhookEndpoint",
    "Worker",
    "Workflow",
    "WorkflowStep",
]
