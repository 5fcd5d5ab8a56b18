"""Starting runs, and waiting for what they come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack, overload

from typing_extensions import TypeVar

from streamline.admin.answers import Answers, OnApproval
from streamline.admin.queries import Queries
from streamline.domain.definition import Definition
from streamline.domain.durations import Duration
from streamline.engine.starting.ordering import StartOptions, StartRules
from streamline.handle import RunHandle
from streamline.workflow import Workflow

InputT = TypeVar("InputT", default=Any)
OutputT = TypeVar("OutputT", default=Any)


class Starting(Answers, Queries):
    """``start``, ``start_many``, ``run``, ``handle``."""

    @overload
    async def start(
        self,
        workflow: Workflow[InputT, Any, OutputT],
        input: InputT | Mapping[str, Any] | None = None,
        **options: Unpack[StartOptions],
    ) -> RunHandle[OutputT]: ...
    @overload
    async def start(self, workflow: str, input: Any = None, **options: Unpack[StartOptions]) -> RunHandle[Any]: ...

    async def start(
        self, workflow: Workflow[Any, Any, Any] | str, input: Any = None, **options: Unpack[StartOptions]
    ) -> RunHandle[Any]:
        """Start a run; once this returns, the run survives any crash.

        Args:
            workflow: The workflow, or the name of a registered one.
            input: Of the workflow's input type, or what pydantic can read as such.
            options: How to start it.
                ``idempotency_key``: at most one active run of the workflow holds it; all callers get that run's handle.
                ``idempotency``: ``"active"``, the key is free again once the run has ended; ``"forever"``, it stays
                taken, and all callers get the ended run's handle.
                ``priority``: larger goes first, then older; -2147483647 to 2147483647.
                ``delay``: how long to wait before the first step.
                ``run_at``: aware instant before which the first step does not begin.
                ``start_by``: instant, or duration from when it may, by which the first step must have begun.
                ``timeout``: how long the run may take, instead of the workflow's ``run_timeout``.
                ``tags``: up to 32 strings to find the run by.
                ``metadata``: anything to keep with the run; keys without dots.
                ``run_id``: chosen id; default a time-ordered one.
                ``session``: of this app's own client; the run is stored in its transaction, where one is under way, and
                begins when that is committed.

        Raises:
            InvalidInput, SerializationError, PayloadTooLarge, InvalidKey, InvalidPolicy: An argument is not of the
                allowed form; nothing is stored.
            WorkflowNotFound: No workflow of this name is registered.
            IdempotencyConflict: A run with the chosen id exists, or a key is kept for ever that was first used with
                another input.
            ConcurrencyLimitReached: Every slot is taken, and the workflow's limit refuses further runs.
            PyMongoError: With ``session``: the transaction is over, and the driver's ``with_transaction`` tries again.
            UnsafeDeployment: With ``session``: the database has no transactions.
            StoreUnavailable: The database did not answer; the run may or may not have been stored.
        """
        starter = self._open_session.starter
        return self._handle_of(await starter.start(self._definition(workflow), input, options, self._home))

    async def start_many(
        self,
        workflow: Workflow[InputT, Any, OutputT] | str,
        inputs: Sequence[InputT | Mapping[str, Any] | None],
        **options: Unpack[StartOptions],
    ) -> list[RunHandle[OutputT]]:
        """Start one run per input, in few round trips; all inputs are checked before the first run is stored.

        Args:
            workflow: As for `start`.
            inputs: One for each run; the handles come in the same order.
            options: As for `start`, for every run; ``run_id`` for a single input only.

        Raises:
            InvalidInput, SerializationError, PayloadTooLarge, InvalidKey, InvalidPolicy, WorkflowNotFound: As for
                `start`; nothing is stored.
            ConcurrencyLimitReached, IdempotencyConflict, StoreUnavailable: As for `start`; some of the runs may be
                stored.
        """
        starter = self._open_session.starter
        started = await starter.start_many(self._definition(workflow), inputs, options, self._home)
        return [self._handle_of(each) for each in started]

    @overload
    async def run(
        self,
        workflow: Workflow[InputT, Any, OutputT],
        input: InputT | Mapping[str, Any] | None = None,
        *,
        timeout: Duration | None = None,
        on_approval: OnApproval | None = None,
        **options: Unpack[StartRules],
    ) -> OutputT: ...
    @overload
    async def run(
        self,
        workflow: str,
        input: Any = None,
        *,
        timeout: Duration | None = None,
        on_approval: OnApproval | None = None,
        **options: Unpack[StartRules],
    ) -> Any: ...

    async def run(
        self,
        workflow: Workflow[Any, Any, Any] | str,
        input: Any = None,
        *,
        timeout: Duration | None = None,
        on_approval: OnApproval | None = None,
        **options: Unpack[StartRules],
    ) -> Any:
        """Start a run and return its output; arguments as for `start`, errors as for `RunHandle.result`.

        Args:
            workflow: As for `start`.
            input: As for `start`.
            options: As for `start`.
            timeout: How long to wait for the run, which goes on past it.
            on_approval: Asked to decide where the run wants an approval: takes the `Wait`, may be async, returns
                whether it is approved, or a `Decision`. Without it an approval is rejected.
        """
        handle = await self.start(workflow, input, **options)

        async def decide(run: Mapping[str, Any]) -> None:
            await self._decide_approvals(run, on_approval)

        return await self.result_of(handle.id, timeout, decide)

    def handle(self, run_id: str) -> RunHandle[Any]:
        """Return a handle of a run, without asking the database."""
        return self._handle_to(run_id)

    def _definition(self, workflow: Workflow[Any, Any, Any] | str) -> Definition:
        if isinstance(workflow, Workflow):
            return workflow.definition
        return self._registry.current(workflow)
