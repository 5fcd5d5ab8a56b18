"""Durable workflows on MongoDB, inside your own async Python process."""

from streamline.app import Streamline
from streamline.domain.policies import RetryPolicy
from streamline.domain.run import Event, Failure, Run, Step, Wait
from streamline.engine.context import Context
from streamline.errors import NonRetriableError, RetryAfter, StreamlineError
from streamline.handle import RunHandle
from streamline.paging import Page
from streamline.settings import Settings, Worker
from streamline.workflow import Workflow, WorkflowStep

__all__ = [
    "Context",
    "Event",
    "Failure",
    "NonRetriableError",
    "Page",
    "RetryAfter",
    "RetryPolicy",
    "Run",
    "RunHandle",
    "Settings",
    "Step",
    "Streamline",
    "StreamlineError",
    "Wait",
    "Worker",
    "Workflow",
    "WorkflowStep",
]
