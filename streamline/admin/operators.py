"""Operating runs: end, hold, repeat, rewind, fork."""

from __future__ import annotations

from typing import Any

from streamline.admin.opened import Opened
from streamline.domain.definition import StepReference
from streamline.domain.names import check_name
from streamline.handle import RunHandle
from streamline.workflow import Workflow


class Operators(Opened):
    """``cancel``, ``retry``, ``pause``, ``unpause``, ``pause_workflow``, ``rewind``, ``fork``, ``pin_output``."""

    async def cancel(self, run_id: str, *, reason: str | None = None, by: str | None = None) -> None:
        """End a run: its handler is cancelled, what it writes is refused; a finished run is left unchanged."""
        await self._open_session.control.cancel(run_id, self._scope, reason=reason, by=by)

    async def retry(self, run_id: str) -> None:
        """Let a failed or cancelled run go on from the step where it stopped.

        Raises:
            IllegalTransition: The run has not ended, or has ended well.
            IdempotencyConflict: Another active run holds its idempotency key now.
        """
        await self._open_session.control.retry(run_id, self._scope)

    async def pause(self, run_id: str, *, reason: str | None = None, by: str | None = None) -> None:
        """Hold a run: its present step finishes, the next does not begin; raise `AlreadyFinished` if it has ended."""
        await self._open_session.control.pause(run_id, self._scope, reason=reason, by=by)

    async def unpause(self, run_id: str) -> None:
        """Let a held run go on; raise `AlreadyFinished` where it has ended."""
        await self._open_session.control.unpause(run_id, self._scope)

    async def pause_workflow(self, workflow: Workflow[Any, Any, Any] | str) -> None:
        """Hold up all runs of a workflow, in every process: steps at work finish, none begins; starts are kept.

        It reaches the other processes within milliseconds, and within five seconds where a wake was lost. It holds
        for all versions, and until `unpause_workflow`, also over restarts. Limits in time go on.

        It holds for the runs of all tenants: where tenants are required it is for ``app.all_tenants()``.

        Raises:
            InvalidName: No workflow can have this name.
        """
        await self._open_session.hold_up(self._held_up(workflow))

    async def unpause_workflow(self, workflow: Workflow[Any, Any, Any] | str) -> None:
        """Let the runs of a workflow go on; what fell due meanwhile is due at once."""
        await self._open_session.let_go_on(self._held_up(workflow))

    def _held_up(self, workflow: Workflow[Any, Any, Any] | str) -> str:
        """Return the name of a workflow; raise `TenantRequired` where it has to be said whose runs are meant."""
        _, name = self._scope, _name_of(workflow)
        return name

    async def rewind(self, run_id: str, to_step: StepReference[Any] | str, *, by: str | None = None) -> None:
        """Do a run again from a step on, in place; the steps before it keep their outputs.

        A run that is at work, waits or has ended can be rewound, however it ended; what drove it is fenced off.

        Raises:
            StepNotFound: The run has no such step.
            IllegalTransition: The run has not come to that step, or is being compensated.
            IdempotencyConflict: Another active run holds its idempotency key now.
        """
        await self._open_session.control.rewind(run_id, _id_of(to_step), self._scope, by=by)

    async def fork(
        self, run_id: str, from_step: StepReference[Any] | str, *, state: Any = None, new_run_id: str | None = None
    ) -> RunHandle[Any]:
        """Start a new run that goes on from a step of an old one, with its input and the outputs of the steps before.

        Args:
            run_id: The old run; it is left as it is.
            from_step: Where the new one begins.
            state: Its state, instead of the old one's.
            new_run_id: Its id; default a time-ordered one.

        Raises:
            StepNotFound: The run has no such step.
            IllegalTransition: The run has not come to that step.
        """
        started = await self._open_session.starter.fork(run_id, _id_of(from_step), state, new_run_id, self._scope)
        return self._handle_of(started)

    async def pin_output(self, run_id: str, step: StepReference[Any] | str, version: int) -> None:
        """Make an earlier output of a step the one that later steps see; see ``ctx.output_history``.

        Raises:
            StepOutputMissing: The step has no output of this version.
            IllegalTransition: The run is cancelled.
        """
        await self._open_session.control.pin_output(run_id, _id_of(step), version, self._scope)


def _id_of(step: StepReference[Any] | str) -> str:
    return step.id if isinstance(step, StepReference) else step


def _name_of(workflow: Workflow[Any, Any, Any] | str) -> str:
    return check_name(workflow.name if isinstance(workflow, Workflow) else workflow, "workflow")
