"""A workflow's hooks and guards: hooks observe and can do no harm, guards may refuse a step or a branch."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from streamline.domain.definition import Definition
from streamline.engine.held.branches import Jump, Suspension
from streamline.errors import NonRetriableError

logger = logging.getLogger("streamline.engine")

T = TypeVar("T")


class Hooks:
    """What a workflow's ``hooks`` may define; each method may be plain or async, and what it raises is logged.

    `branch` is the key of a branch of `each`, `gather` or `loop`, such as ``"items[3]"``, and None for the step itself.
    """

    def before(self, ctx: Any, branch: str | None) -> Awaitable[None] | None:
        """A handler or branch is about to be entered, for the first time or again."""

    def after(self, ctx: Any, branch: str | None, output: Any) -> Awaitable[None] | None:
        """A handler or branch has returned."""

    def failed(self, ctx: Any, branch: str | None, error: BaseException) -> Awaitable[None] | None:
        """A handler or branch has raised, or was ended by its timeout or a cancellation."""

    def waiting(self, ctx: Any, branch: str | None) -> Awaitable[None] | None:
        """A handler or branch waits."""


class Watch:
    """The hooks and guards of one attempt."""

    def __init__(self, definition: Definition, ctx: Any) -> None:
        self._hooks = definition.hooks
        self._guards = definition.guards
        self._ctx = ctx

    async def over(self, branch: str | None, work: Callable[[], Awaitable[T]]) -> T:
        """Carry out `work`, where the guards let it, and tell the hooks how it went.

        Raises:
            NonRetriableError: A guard refuses it.
        """
        await self._ask(branch)
        await self._tell("before", branch)
        try:
            output = await work()
        except Suspension:
            await self._tell("waiting", branch)
            raise
        except Jump:
            await self._tell("after", branch, None)
            raise
        except BaseException as error:
            await self._tell("failed", branch, error)
            raise
        await self._tell("after", branch, output)
        return output

    async def _ask(self, branch: str | None) -> None:
        for guard in self._guards:
            try:
                said = guard(self._ctx, branch)
                said = await said if inspect.isawaitable(said) else said
            except BaseException as error:
                if is_being_cancelled():
                    raise
                raise NonRetriableError(f"a guard refused: {type(error).__name__}: {error}") from error
            if said is False or isinstance(said, str):
                raise NonRetriableError("a guard refused" + (f": {said}" if said else ""))

    async def _tell(self, what: str, branch: str | None, *args: Any) -> None:
        for hook in self._hooks:
            method = getattr(hook, what, None)
            if method is None:
                continue
            try:
                told = method(self._ctx, branch, *args)
                if inspect.isawaitable(told):
                    await told
            except BaseException:
                if is_being_cancelled() and what != "failed":
                    raise
                logger.exception("a hook's %s failed", what)


def is_being_cancelled() -> bool:
    """Return whether somebody has told the present task to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
