"""A run from the outside: ask for it, wait for it, change it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Generic, Protocol

from typing_extensions import TypeVar

from streamline.domain.definition import StepReference
from streamline.domain.durations import Duration
from streamline.domain.run import Event, Progress, Run
from streamline.domain.statuses import RunStatus

OutputT = TypeVar("OutputT", default=Any)


class Verbs(Protocol):
    """What a handle asks of its app."""

    async def get(self, run_id: str) -> Run:
        """Return the run."""
        ...

    async def cancel(self, run_id: str, *, reason: str | None = None, by: str | None = None) -> None:
        """End the run."""
        ...

    async def delete(self, run_id: str, *, children: bool = False) -> int:
        """Remove the run."""
        ...

    async def pause(self, run_id: str, *, reason: str | None = None, by: str | None = None) -> None:
        """Hold the run."""
        ...

    async def unpause(self, run_id: str) -> None:
        """Let the run go on."""
        ...

    async def retry(self, run_id: str) -> None:
        """Try the run again."""
        ...

    async def resume(self, run_id: str, payload: Any = None, *, key: str | None = None, by: str | None = None) -> None:
        """Answer a wait of the run."""
        ...

    async def rewind(self, run_id: str, to_step: StepReference[Any] | str, *, by: str | None = None) -> None:
        """Do the run again from a step on."""
        ...

    async def progress_of(self, run_id: str) -> Progress | None:
        """Return how far the run's step is."""
        ...

    async def result_of(self, run_id: str, timeout: Duration | None = None) -> Any:
        """Return the run's output once it is done."""
        ...

    async def wait_for_run(self, run_id: str, timeout: Duration | None = None) -> Run:
        """Return the run once it has ended."""
        ...

    def events_of(self, run_id: str, after: int = 0) -> AsyncIterator[Event]:
        """Iterate over the run's events."""
        ...


class RunHandle(Generic[OutputT]):
    """Stands for one run, whether or not this process drives it.

    Attributes:
        id: The run's id.
        created: Whether the call that returned this handle created the run; False where its key did already.
    """

    __slots__ = ("_app", "created", "id")

    def __init__(self, app: Verbs, run_id: str, *, created: bool = False) -> None:
        self._app = app
        self.id = run_id
        self.created = created

    async def result(self, timeout: Duration | None = None) -> OutputT:
        """Return the run's output once it is done.

        Raises:
            RunFailed: The run failed; carries its error.
            RunCancelled: The run was cancelled.
            ResultTimeout: It did not end within `timeout`; it goes on.
            RunNotFound: There is no such run.
        """
        return await self._app.result_of(self.id, timeout)  # type: ignore[no-any-return]

    async def wait(self, timeout: Duration | None = None) -> Run:
        """Return the run once it has ended, however it did; raise `ResultTimeout` or `RunNotFound`."""
        return await self._app.wait_for_run(self.id, timeout)

    async def get(self) -> Run:
        """Return the run as it is now; raise `RunNotFound`."""
        return await self._app.get(self.id)

    async def status(self) -> RunStatus:
        """Return the run's status; raise `RunNotFound`."""
        return (await self.get()).status

    def events(self, after: int = 0) -> AsyncIterator[Event]:
        """Iterate over the run's events with a number above `after` as they come, until it has ended.

        A run keeps its last 100 events; older ones are there where the event log is on.
        """
        return self._app.events_of(self.id, after)

    async def cancel(self, *, reason: str | None = None, by: str | None = None) -> None:
        """End the run; a finished one is left unchanged."""
        await self._app.cancel(self.id, reason=reason, by=by)

    async def delete(self, *, children: bool = False) -> int:
        """Remove the ended run with everything that belongs to it, and its `children` where that is wanted."""
        return await self._app.delete(self.id, children=children)

    async def pause(self, *, reason: str | None = None, by: str | None = None) -> None:
        """Hold the run after its present step."""
        await self._app.pause(self.id, reason=reason, by=by)

    async def unpause(self) -> None:
        """Let the run go on."""
        await self._app.unpause(self.id)

    async def retry(self) -> None:
        """Let a failed or cancelled run go on from the step where it stopped."""
        await self._app.retry(self.id)

    async def resume(self, payload: Any = None, *, key: str | None = None, by: str | None = None) -> None:
        """Answer a ``ctx.wait`` of the run; raise `NotWaiting` where there is none, or somebody else was first."""
        await self._app.resume(self.id, payload, key=key, by=by)

    async def rewind(self, to_step: StepReference[Any] | str, *, by: str | None = None) -> None:
        """Do the run again from a step on, in place."""
        await self._app.rewind(self.id, to_step, by=by)

    async def progress(self) -> Progress | None:
        """Return how far the run's step is that said so last, or None."""
        return await self._app.progress_of(self.id)

    def __repr__(self) -> str:
        """Name the run."""
        return f"<run {self.id}>"
