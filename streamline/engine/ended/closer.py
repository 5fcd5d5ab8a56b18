"""What follows from the end of a run, in order and at least once: its parent, its children, its spilled memo.

That something is owed is part of the write that ends the run. Whoever wrote it sees to it at once; where that process
dies, the sweep of any other does.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

from streamline.domain.statuses import RETRIABLE, TERMINAL
from streamline.domain.transitions import closing
from streamline.domain.transitions.closing import is_told
from streamline.domain.transitions.writing import Entry
from streamline.engine.control import Control
from streamline.engine.ended.clearing import Clearing, is_needed
from streamline.engine.letters import completion, post, within_chain
from streamline.engine.runtime import Runtime
from streamline.errors import RunNotFound, StreamlineError
from streamline.features.joining import is_news, standing
from streamline.store import EVERYTHING, statements
from streamline.telemetry import about

logger = logging.getLogger("streamline.engine")

_GRACE = timedelta(seconds=2)
# Of the clocks of two processes; what is put off for longer is left alone.
_TOLERANCE = timedelta(seconds=1)
# What the server removes in time it removes in no order: a run that is still there has its memo.
MEMO_MARGIN = timedelta(seconds=30)
_SWEPT = 100


class Closer:
    """Does what runs owe that have ended, or go another way than their children expect."""

    def __init__(self, runtime: Runtime, period: float) -> None:
        self._runtime = runtime
        self._control = Control(runtime)
        self._period = period
        self.clearing = Clearing(runtime, self._close_now)

    async def run_once(self) -> float:
        """Do what others have left undone; return the pause until the next look."""
        before = self._runtime.clock.now() - _GRACE
        owing = await self._runtime.store.run(statements.find_owing(before, _SWEPT))
        for run in owing:
            await self.close(run)
        return 0.0 if len(owing) == _SWEPT else self._period * random.uniform(0.8, 1.2)

    async def close(self, run: dict[str, Any]) -> None:
        """Do what one run owes, and note that it is done; what fails is left to the next sweep."""
        if "owes_at" not in run or run["owes_at"] > self._runtime.clock.now() + _TOLERANCE:
            return
        try:
            if "removed_at" in run:
                await self._finish_removal(run)
                return
            if is_told(run):
                await self._let_go(run)
                return
            if "children" in run:
                await self._close_children(run)
            if run["status"] in TERMINAL:
                await self._tell_parent(run)
            if "spilled" in run:
                await self._clear_memo(run)
            refused = await self._start_others(run) if "tells" in run and run["status"] in TERMINAL else []
            entries = (("trigger.refused", {"workflow": each}) for each in refused)
            await self._note(run, *entries, awaited=_has_reader(run))
        except StreamlineError:
            said = "run %s: what follows from its end is left for later"
            logger.warning(said, run["_id"], exc_info=True, extra=about(run))

    async def _finish_removal(self, run: Mapping[str, Any]) -> None:
        with suppress(RunNotFound):  # somebody else was first
            await self.clearing.remove(run["_id"], EVERYTHING)

    async def _close_now(self, run_id: str) -> None:
        with suppress(RunNotFound):
            await self.close(await self._runtime.read(run_id))

    async def _let_go(self, run: dict[str, Any]) -> None:
        """Let a run be removed in time, unless its parent has yet to read it."""
        awaited = await is_needed(self._runtime, run)
        if "spilled" in run and not awaited:
            await self._clear_memo(run)
        await self._note(run, awaited=awaited)

    async def _note(self, run: dict[str, Any], *entries: Entry, awaited: bool) -> None:
        change = closing.closed(run, self._runtime.clock.now(), *entries, awaited=awaited)
        if change is not None:
            # Where somebody has changed it meanwhile, the run has begun again, or another process was first.
            await self._runtime.commit(run, change)

    async def _tell_parent(self, run: Mapping[str, Any]) -> None:
        parent = run.get("parent") or {}
        if not parent.get("wait") or not await self._is_news(run, parent):
            return
        try:
            await self._control.nudge(parent["run_id"], EVERYTHING, {"child": run["_id"]})
        except RunNotFound:
            logger.info("run %s: its parent is gone", run["_id"], extra=about(run))

    async def _is_news(self, run: Mapping[str, Any], parent: Mapping[str, Any]) -> bool:
        """Return whether the parent may go on now: of many children, only few ends matter to it."""
        policy, place = parent["policy"], (parent["run_id"], parent.get("born"), parent["fan"])
        if is_news(policy, done=bool(run["status"] == "done")):
            return True
        if isinstance(policy, int):
            return standing(await self._runtime.store.run(statements.find_children(*place)), policy).met
        return not await self._runtime.store.run(statements.find_active_child(*place))

    async def _start_others(self, run: Mapping[str, Any]) -> list[str]:
        """Let this end start runs of other workflows; return which ones it may not start any more."""
        await self._runtime.triggers.refresh()
        wanted = self._runtime.triggers.started_by_end(run["workflow"], run["status"])
        workflows, refused = within_chain(self._runtime, run, wanted)
        if workflows:
            self._runtime.bus.posted(await post(self._runtime, completion(self._runtime, run, workflows)))
        return refused

    async def _clear_memo(self, run: Mapping[str, Any]) -> None:
        """A run that can be retried keeps its memo as long as itself, and a little longer."""
        if run["status"] in TERMINAL and run["status"] not in RETRIABLE:
            await self._runtime.store.run(statements.remove_memo(run["_id"], run.get("born"), run["ended_at"]))
            return
        expire_at = closing.removal(run).get("expire_at")
        if expire_at is None or not _has_reader(run) or is_told(run):
            until = expire_at and expire_at + MEMO_MARGIN
            await self._runtime.store.run(statements.expire_memo(run["_id"], run.get("born"), until))

    async def _close_children(self, run: Mapping[str, Any]) -> None:
        found = await self._runtime.store.run(statements.find_children(run["_id"], run.get("born"), active=True))
        for child in found:
            if closing.is_unwanted(run, child):
                reason = f"its parent is {run['status']}"
                await self._control.cancel(child["_id"], EVERYTHING, reason=reason, by=None)


def _has_reader(run: Mapping[str, Any]) -> bool:
    """Return whether somebody is to read how the run has ended."""
    return run["status"] in TERMINAL and bool((run.get("parent") or {}).get("wait"))
