"""Fanning out and going elsewhere: items, branches, loops, children, other steps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, Literal, NoReturn, TypeVar, overload

from streamline.domain.definition import StepReference, WorkflowReference
from streamline.engine.held.branches import Jump
from streamline.engine.primitives.families import ChildRun, OnParentClose, join, start_child
from streamline.engine.primitives.fanning import Collected, Mode, OnBranchError, each, gather
from streamline.engine.primitives.looping import Continue, Done, loop
from streamline.engine.verbs.ready import Ready
from streamline.features.joining import JoinPolicy

T = TypeVar("T")
S = TypeVar("S")
I = TypeVar("I")  # noqa: E741 - an item


class Fans(Ready):
    """``each``, ``gather``, ``loop``, ``start_child``, ``join``, ``goto``."""

    @overload
    async def each(
        self,
        key: str,
        items: Iterable[I],
        fn: Callable[[I, int], Coroutine[Any, Any, T]],
        *,
        concurrency: int | None = None,
        on_error: OnBranchError = "fail",
    ) -> Collected[T]: ...
    @overload
    async def each(
        self,
        key: str,
        items: Iterable[I],
        fn: Callable[[I, int], T],
        *,
        concurrency: int | None = None,
        on_error: OnBranchError = "fail",
    ) -> Collected[T]: ...

    async def each(
        self,
        key: str,
        items: Iterable[Any],
        fn: Callable[[Any, int], Any],
        *,
        concurrency: int | None = None,
        on_error: OnBranchError = "fail",
    ) -> Any:
        """Return what ``fn(item, index)`` returns for each item, in the order of the items; each is kept as it is done.

        Args:
            key: Unique within the step; calls inside an item stand under ``key[3]/...``.
            items: The same, in the same order, each time the handler is entered.
            fn: A coroutine function, or a plain function, which runs in a thread.
            concurrency: How many items are begun and not done at once; default all.
            on_error: ``"fail"`` raises the first error and ends the other items; ``"collect"`` goes on, and the
                result's ``errors`` says what failed, by index.

        Raises:
            NonDeterministicStep: The number of items is another than when it was begun.
        """
        return await each(self._ready(), key, list(items), fn, concurrency=concurrency, on_error=on_error)

    async def gather(
        self,
        key: str,
        branches: Mapping[str, Callable[[], Any]],
        *,
        mode: Mode = "all",
        concurrency: int | None = None,
    ) -> dict[str, Any]:
        """Return what the branches return, by name; each is kept as it is done.

        Args:
            key: Unique within the step; calls inside a branch stand under ``key/name/...``.
            branches: Functions without arguments, by name; the same names each time the handler is entered.
            mode: ``"all"`` raises the first error; ``"any"`` returns the first branch that succeeds, ``"race"`` the
                first that ends, and both end the others; ``"settled"`` returns how each ended, as `Settled`.
            concurrency: How many branches are begun and not done at once; default all.
        """
        return await gather(self._ready(), key, branches, mode=mode, concurrency=concurrency)

    async def loop(
        self,
        key: str,
        initial: S,
        body: Callable[[S, int], Awaitable[Continue[S] | Done[T]] | Continue[S] | Done[T]],
        *,
        max_iterations: int = 1000,
    ) -> T:
        """Return the value with which ``body(state, i)`` ends the loop; the state between two turns is kept.

        Args:
            key: Unique within the step; calls inside a turn stand under ``key[3]/...``.
            initial: The state of the first turn; its type is that of the states that follow.
            body: Returns ``Continue(state)`` or ``Done(value)``.
            max_iterations: How many turns it may take.

        Raises:
            NonRetriableError: It took more.
        """
        return await loop(self._ready(), key, initial, body, max_iterations=max_iterations)  # type: ignore[no-any-return]

    @overload
    async def start_child(
        self,
        workflow: WorkflowReference[I, T],
        input: I | Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        wait: Literal[True] = True,
        on_parent_close: OnParentClose = "cancel",
    ) -> T: ...
    @overload
    async def start_child(
        self,
        workflow: WorkflowReference[I, Any] | str,
        input: I | Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        wait: Literal[False],
        on_parent_close: OnParentClose = "cancel",
    ) -> ChildRun: ...
    @overload
    async def start_child(
        self,
        workflow: str,
        input: Any = None,
        *,
        key: str | None = None,
        wait: bool = True,
        on_parent_close: OnParentClose = "cancel",
    ) -> Any: ...

    async def start_child(
        self,
        workflow: Any,
        input: Any = None,
        *,
        key: str | None = None,
        wait: bool = True,
        on_parent_close: OnParentClose = "cancel",
    ) -> Any:
        """Start a run of another workflow, once, and return its output; the run is parked meanwhile.

        Args:
            workflow: The workflow, or the name of a registered one.
            input: Of its input type.
            key: Unique within the step; default numbered.
            wait: With False the child's run id is returned at once.
            on_parent_close: Whether the child is cancelled where this run ends before it, other than well.

        Raises:
            ChildFailed: It failed, was cancelled or compensated.
        """
        return await start_child(self._ready(), workflow, input, key=key, wait=wait, on_parent_close=on_parent_close)

    async def join(
        self,
        children: Mapping[str, tuple[Any, Any]],
        *,
        policy: JoinPolicy = "all",
        key: str | None = None,
        on_parent_close: OnParentClose = "cancel",
    ) -> dict[str, Any]:
        """Start runs of other workflows, and return their outputs by name once enough of them have ended.

        Args:
            children: ``{name: (workflow, input)}``.
            policy: ``"all"``; ``"any"``, the first that is done; ``"race"``, the first that ends; ``"settled"``, how
                each ended, as `Settled`; or a number: the first so many that are done. Those that are not needed any
                more are cancelled.
            key: Unique within the step; default numbered.
            on_parent_close: As for `start_child`.

        Raises:
            ChildFailed: The policy cannot be met any more.
        """
        return await join(self._ready(), children, policy=policy, key=key, on_parent_close=on_parent_close)

    def goto(self, step: StepReference[Any] | str) -> NoReturn:
        """End this step and go on at another one, before or after it.

        Going back does the steps in between again, this one included; going forward skips them, and this step has no
        output. Not from a step of a group.
        """
        self._ready(anywhere=True)
        raise Jump(step if isinstance(step, str) else step.id)
