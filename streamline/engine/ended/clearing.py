"""Removing what belongs to a run, and then the run: in this order, so that what is left over can be found.

A run is a document, and nearly everything of it goes with that. Where there is more, spilled entries of its memo or
children that are to go with it, the run is marked first: nobody begins it anew then, and whichever process sweeps owed
duties next carries on where another one died.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from streamline.domain.change import carry_out
from streamline.domain.transitions.closing import is_awaited
from streamline.domain.transitions.discarding import check_ended, discarded, has_ended
from streamline.engine.runtime import Runtime
from streamline.errors import Conflict, IllegalTransition, RunNotFound
from streamline.store import Scope, statements
from streamline.store.statements.about_runs import REMOVABLE

Settle = Callable[[str], Awaitable[None]]

_EVER = timedelta(days=1)
_TRIES = 20
_AT_ONCE = 500
_OF_PARENT = {"status": 1, "born": 1, "steps.id": 1, "steps.memo": 1, "steps.compensation.memo": 1}


class Clearing:
    """Removes runs.

    Args:
        runtime: The app's parts.
        settle: Does what a run of this id owes to others.
    """

    def __init__(self, runtime: Runtime, settle: Settle) -> None:
        self._runtime = runtime
        self._settle = settle

    async def remove(self, run_id: str, scope: Scope, *, children: bool = False) -> int:
        """Remove a run that has ended, and what belongs to it; return how many runs are gone with it.

        Args:
            run_id: The run.
            scope: Where it is looked for.
            children: Whether its children go with it, and theirs.

        Raises:
            RunNotFound: There is no such run in scope.
            IllegalTransition: It has not ended, or its parent has yet to learn how; or one of its children has not.
            Conflict: What it owes to others cannot be settled at present, or others change it each time.
            StoreUnavailable: The database did not answer; a removal that has begun is finished by the next sweep.
        """
        tried = False
        for _ in range(_TRIES):
            try:
                run = await self._runtime.read(run_id, scope, REMOVABLE)
            except RunNotFound:
                if tried:
                    return 1
                raise
            if "removed_at" not in run:
                check_ended(run)
                await self._check_parent(run)
            if await self._settled(run):
                continue
            tried = True
            if (count := await self._remove(run, children=children)) is not None:
                self._runtime.bus.touch(run_id)
                return count
        raise Conflict(f"delete: run {run_id} owes others something that cannot be settled at present", field="run_id")

    async def _finish(self, run: dict[str, Any]) -> int | None:
        """Remove what belongs to a run, and then the run; return how many runs are gone, or None."""
        count = 0
        if run.get("takes_children"):
            for child in await self._family(run):
                count += await self._remove_child(child)
        if "spilled" in run:
            # A marked run is not begun anew, so there is nothing to spare, whatever the clock of its last driver says.
            ever = self._runtime.clock.now() + _EVER
            await self._runtime.store.run(statements.remove_memo(run["_id"], run.get("born"), ever))
        gone = await self._runtime.store.run(statements.remove_run(run), Scope(run.get("tenant_id")))
        return count + 1 if gone else None

    async def _remove(self, run: dict[str, Any], *, children: bool) -> int | None:
        """Remove a run that owes nothing; return how many are gone, or None where somebody has changed it meanwhile."""
        takes_children = children and "children" in run
        if "removed_at" not in run and ("spilled" in run or takes_children):
            if takes_children:
                await self._family(run, all_ended=True)
            change = discarded(run, self._runtime.clock.now(), children=takes_children)
            statement, change = await self._runtime.advance(run, change)
            if not await self._runtime.store.run(statement, Scope(run.get("tenant_id"))):
                return None
            carry_out(run, change)
        return await self._finish(run)

    async def _remove_child(self, child: dict[str, Any]) -> int:
        """Remove a run whose parent is being removed, unless it has begun anew."""
        try:
            return await self.remove(child["_id"], Scope(child.get("tenant_id")))
        except (RunNotFound, IllegalTransition):
            return 0

    async def _family(self, run: dict[str, Any], *, all_ended: bool = False) -> list[dict[str, Any]]:
        """Return the descendants that have ended, children before their parents.

        Raises:
            IllegalTransition: `all_ended` is asked for, and one of them has not ended.
        """
        found, level, scope = list[dict[str, Any]](), [run], Scope(run.get("tenant_id"))
        while level:
            births = {each["_id"]: each.get("born") for each in level[:_AT_ONCE]}
            below = await self._runtime.store.run(statements.find_offspring(births), scope)
            for each in below:
                if all_ended and not has_ended(each):
                    raise IllegalTransition(
                        f"delete: its child {each['_id']} is {each['status']}; cancel it first", field="children"
                    )
            ended = [each for each in below if has_ended(each)]
            found += ended
            level = level[_AT_ONCE:] + [each for each in ended if "children" in each]
        return found[::-1]

    async def _check_parent(self, run: dict[str, Any]) -> None:
        if await is_needed(self._runtime, run):
            raise IllegalTransition("delete: the run's parent has yet to learn how it ended", field="parent")

    async def _settled(self, run: dict[str, Any]) -> bool:
        """Do what a run owes to others, if anything; return whether it has to be looked at again."""
        if "outbox_at" in run:
            found = await self._runtime.store.run(statements.find_unlogged(run["_id"]))
            if found:
                await self._runtime.outbox.relay(found)
            return True
        is_told = "removed_at" in run or run.get("told_at") == run.get("ended_at")
        if "owes_at" in run and not is_told:
            await self._settle(run["_id"])
            return True
        return False


async def is_needed(runtime: Runtime, run: dict[str, Any]) -> bool:
    """Return whether a run's parent has yet to read how the run ended."""
    parent = run.get("parent") or {}
    if not parent.get("wait"):
        return False
    try:
        found = await runtime.read(parent["run_id"], Scope(run.get("tenant_id")), _OF_PARENT)
    except RunNotFound:
        return False
    # Another run may have had the parent's id.
    return found.get("born") == parent.get("born") and is_awaited(found, run)
