"""What operators and callers do to a run: read it, decide, write; again where somebody came in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from streamline.domain.change import Change
from streamline.domain.decisions import check_run
from streamline.domain.names import check_note
from streamline.domain.payloads import Encoded
from streamline.domain.transitions import answering, hearing, jumping, operating
from streamline.domain.transitions.answering import Reply, Target
from streamline.domain.transitions.hearing import Hearing
from streamline.engine.runtime import Runtime
from streamline.errors import PayloadTooLarge, RunNotFound, StoreUnavailable
from streamline.store import Scope
from streamline.telemetry import TELEMETRY

_RACES = 100


class Control:
    """Changes runs that others drive: each change is decided on what was read, and guarded by it."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def cancel(self, run_id: str, scope: Scope, *, reason: str | None, by: str | None) -> bool:
        """End the run and return True; one that has ended, or is being undone, is left unchanged.

        Its driver's writes are refused from then on.
        """
        reason, by, now = check_note(reason, "reason"), check_note(by, "by"), self._runtime.clock.now
        token: str | None = None

        def decide(run: dict[str, Any]) -> Change | None:
            nonlocal token
            token = (run.get("lease") or {}).get("token")
            return operating.cancel(run, now(), reason=reason, by=by)

        run, changed = await self._operate(run_id, scope, decide)
        if changed:
            self._fence(run_id, token)
            self._announce(run)
        return changed

    async def retry(self, run_id: str, scope: Scope) -> None:
        """Let a failed or cancelled run go on from the step where it stopped."""
        run, _ = await self._operate(run_id, scope, lambda run: operating.retry(run, self._runtime.clock.now()))
        self._announce(run)

    async def pause(self, run_id: str, scope: Scope, *, reason: str | None, by: str | None) -> None:
        """Hold the run: the present step finishes, the next does not begin."""
        reason, by, now = check_note(reason, "reason"), check_note(by, "by"), self._runtime.clock.now
        await self._operate(run_id, scope, lambda run: operating.pause(run, now(), reason=reason, by=by))

    async def unpause(self, run_id: str, scope: Scope) -> None:
        """Let a held run go on."""
        run, _ = await self._operate(run_id, scope, lambda run: operating.unpause(run, self._runtime.clock.now()))
        self._announce(run)
        if "queued_at" in run:
            self._runtime.freed(run["slot_key"])  # it may be its turn

    async def rewind(self, run_id: str, to_step: str, scope: Scope, *, by: str | None) -> None:
        """Do the run again from a step on, in place; its driver's writes are refused from then on."""
        by, now, token = check_note(by, "by"), self._runtime.clock.now, None

        def decide(run: dict[str, Any]) -> Change | None:
            nonlocal token
            token = (run.get("lease") or {}).get("token")
            return jumping.rewind(run, to_step, now(), by=by)

        run, _ = await self._operate(run_id, scope, decide)
        self._fence(run_id, token)
        self._announce(run)

    async def nudge(self, run_id: str, scope: Scope, why: Mapping[str, Any]) -> None:
        """Let the run look again at what it waits for."""
        run, _ = await self._operate(run_id, scope, lambda run: operating.nudge(run, self._runtime.clock.now(), why))
        self._announce(run)

    async def answer(self, run_id: str, target: Target, reply: Reply, scope: Scope) -> None:
        """Answer what the run waits for; raise `NotWaiting` where somebody else has, or nothing of the kind is open."""
        now = self._runtime.clock.now
        run, _ = await self._operate(run_id, scope, lambda run: answering.answer(run, target, reply, now()))
        self._announce(run)

    async def deliver(self, run_id: str, name: str, payload: Encoded, scope: Scope) -> None:
        """Let an event reach the run: what waits for it goes on, or it cancels the run, else it is kept."""
        event_id, now = self._runtime.store.new_mark(), self._runtime.clock.now
        token: str | None = None

        def decide(run: dict[str, Any]) -> Change:
            nonlocal token
            token = (run.get("lease") or {}).get("token")
            return hearing.receive(run, name, payload, event_id, now())

        run, _ = await self._operate(run_id, scope, decide)
        self._tell(run, token)

    async def hear(
        self, run_id: str, event: Mapping[str, Any], older: Sequence[Mapping[str, Any]], scope: Scope
    ) -> Hearing:
        """Offer an event of the inbox to the run, and older ones before it; return what came of it."""
        now, early = self._runtime.clock.now, self._runtime.settings.event_early_time
        token: str | None = None
        found = Hearing()

        def decide(run: dict[str, Any]) -> Change | None:
            nonlocal token, found
            token = (run.get("lease") or {}).get("token")
            found = hearing.hear(run, event, older, early, now())
            return found.change

        run, changed = await self._operate(run_id, scope, decide)
        if changed:
            self._tell(run, token)
        return found

    def _tell(self, run: dict[str, Any], token: str | None) -> None:
        """Tell whoever drives the run, or will, of a change that may have taken it from its driver."""
        if "lease" not in run:
            self._fence(run["_id"], token)
        self._announce(run)

    async def pin_output(self, run_id: str, step_id: str, version: int, scope: Scope) -> None:
        """Make an earlier output of a step the one that later steps see."""
        now = self._runtime.clock.now
        await self._operate(run_id, scope, lambda run: jumping.pin(run, step_id, version, now()))

    def _fence(self, run_id: str, token: str | None) -> None:
        """Let whoever drives the run under this lease hear of its end at once, here and elsewhere."""
        if token is None:
            return
        self._runtime.bus.fence(run_id, token)
        if self._runtime.wakes is not None:
            self._runtime.wakes.fenced(run_id, token)

    async def _operate(
        self, run_id: str, scope: Scope, decide: Callable[[dict[str, Any]], Change | None]
    ) -> tuple[dict[str, Any], bool]:
        TELEMETRY.look()
        tried: Change | None = None
        for _ in range(_RACES):
            run = await self._runtime.read(run_id, scope)
            if "removed_at" in run:
                raise RunNotFound(f"no run {run_id!r:.100}: it is being removed", field="run_id")
            check_run(run)
            # A write whose answer was lost may have taken effect before others went on: its event tells.
            if tried is not None and tried.events[-1] in run["events"]:
                return run, True
            change = decide(run)
            if change is None:
                return run, False
            if change.weight and run.get("size", 0) + change.weight > self._runtime.settings.document_max:
                raise PayloadTooLarge("the run would grow too large to be written; send a reference", field="payload")
            change = self._signed(change)
            if await self._runtime.commit(run, change, scope):
                self._runtime.bus.touch(run_id)
                return run, True
            tried = change
        raise StoreUnavailable(f"run {run_id}: somebody else changed it each time")

    def _signed(self, change: Change) -> Change:
        """Give the change's event a mark, so that it cannot be taken for that of another caller who did the same."""
        *others, last = change.events
        return replace(change, events=(*others, {**last, "mark": self._runtime.store.new_mark()}))

    def _announce(self, run: dict[str, Any]) -> None:
        if "lease" in run:
            self._runtime.bus.news(run["_id"])
            if self._runtime.wakes is not None:
                self._runtime.wakes.news(run["_id"])
        self._runtime.announce(run.get("route", ""), run.get("due_at"))
