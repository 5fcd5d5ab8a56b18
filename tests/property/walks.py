"""Random walks of runs through the transitions, by whoever may make one: drivers, operators, people, other runs."""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from streamline import Context, Workflow
from streamline.domain.change import Append, Change
from streamline.domain.decisions import is_overdue, time_out
from streamline.domain.payloads import ANY, Encoded
from streamline.domain.place import Place, next_undo, unfinished
from streamline.domain.transitions import (
    answering,
    closing,
    compensating,
    hearing,
    jumping,
    operating,
    parking,
    stepping,
)
from streamline.domain.transitions.answering import Reply, Target
from streamline.domain.transitions.birth import Order, claimed, queued
from streamline.domain.transitions.claiming import lease_of, take_due, take_expired, take_undoing
from streamline.domain.transitions.patching import Patch, carrying, patched
from streamline.domain.transitions.stating import StateChange
from streamline.domain.transitions.stepping import Ending
from streamline.errors import StreamlineError
from tests.property.twins import START, some_value

Wish = Callable[[], Change | None]
RETAINED = {"retention": {"done": 60.0, "cancelled": 600.0}}
GUARDED = {"cancel_on": [{"name": "c"}], "listens": ["c"]}
KINDS = ("event", "hook", "approval", "question", "wait")


def _flow() -> Any:
    wf: Workflow[Any, Any, Any] = Workflow("walk", compensate_on=("failed", "cancelled"))

    async def work(ctx: Context[Any]) -> None: ...

    async def undo(ctx: Context[Any], output: Any) -> None: ...

    wf.step("s0", output_history=2)(work).compensate(undo)
    wf.step("s1", group="g")(work).compensate(undo)
    wf.step("s2", group="g")(work)
    wf.step("s3")(work)
    return wf.definition


FLOW = _flow()


class Walk:
    """One run on its way, as its model has it, and as somebody saw it some time ago."""

    def __init__(self, chance: random.Random, run_id: str) -> None:
        self.chance = chance
        self.now = START
        self.claims = 0
        self.run_id = run_id
        order = Order(
            run_id,
            FLOW,
            some_value(chance),
            idempotency_key=f"key-{run_id}" if chance.random() < 0.5 else None,
            tags=("a",),
            metadata={"k": some_value(chance)},
            deadline_at=START + timedelta(minutes=3) if chance.random() < 0.2 else None,
            parent={"run_id": "p", "wait": True} if chance.random() < 0.3 else None,
        )
        due_at = START + timedelta(seconds=chance.choice([0, 0, 30]))
        self.run = claimed(order, START, self.lease()) if chance.random() < 0.5 else queued(order, START, due_at)
        self.run |= RETAINED | (GUARDED if chance.random() < 0.3 else {})
        if chance.random() < 0.5:
            del self.run["compensate_on"]
        self.past = [copy.deepcopy(self.run)]

    def lease(self, news: str | None = None) -> dict[str, Any]:
        self.claims += 1
        until = self.now + timedelta(seconds=30)
        return lease_of("w", f"{self.run_id}t{self.claims}", self.now, until, news)

    def next_change(self, run: dict[str, Any]) -> Change:
        """Some change that somebody could make of the run as it is, or as it was seen before."""
        self.run = run
        self.now += timedelta(seconds=self.chance.choice([0, 1, 10, 40]), milliseconds=self.chance.randrange(1000))
        seen = run if self.chance.random() < 0.8 else self.chance.choice(self.past[-5:])
        self.past.append(copy.deepcopy(run))
        while True:
            change = self._some_transition(seen)
            if change is not None:
                return change
            seen = run

    def _some_transition(self, run: dict[str, Any]) -> Change | None:
        wishes = [*self._operators(run), *self._people(run), *self._claims()]
        if "lease" in run:
            wishes += [lambda: self._driven(run)] * 24
        try:
            return self.chance.choice(wishes)()
        except StreamlineError:
            return None

    def _operators(self, run: dict[str, Any]) -> list[Wish]:
        step, now = f"s{self.chance.randrange(4)}", self.now
        return [
            lambda: operating.cancel(run, now, reason=self.chance.choice([None, "$why"]), by=None),
            lambda: operating.pause(run, now, reason=None, by="ann"),
            *[lambda: operating.unpause(run, now)] * 3,
            *[lambda: operating.retry(run, now)] * 3,
            lambda: operating.nudge(run, now, {"child": "c"}),
            lambda: jumping.rewind(run, step, now, by="ann"),
            lambda: jumping.pin(run, step, self.chance.randrange(1, 4), now),
            lambda: closing.closed(run, now, awaited=self.chance.random() < 0.5),
        ]

    def _people(self, run: dict[str, Any]) -> list[Wish]:
        value, reply = self._encoded(), Reply(self.chance.choice(["answered", "rejected"]), self._encoded(), by="$ann")
        kinds = self.chance.sample(KINDS, 3)
        return [
            *[lambda: answering.answer(run, Target(kinds), reply, self.now)] * 4,
            *[lambda: answering.deliver(run, self.chance.choice("ab"), value, f"e{self.claims}", self.now)] * 2,
            lambda: self._heard(run, value),
        ]

    def _heard(self, run: dict[str, Any], value: Encoded) -> Change | None:
        """What comes of an event of the inbox, offered perhaps again, and perhaps with an older one."""
        name = self.chance.choice("abc")
        events = [
            {"id": f"i{self.chance.randrange(99)}", "name": name, "payload": value.value, "size": value.size, "at": at}
            for at in (self.now - timedelta(seconds=20), self.now)
        ]
        return hearing.hear(run, events[1], events[:1], timedelta(seconds=10), self.now).change

    def _claims(self) -> list[Wish]:
        routes, now = [FLOW.route, "x@1"], self.now
        return [
            *[lambda: take_due(routes, now, self.lease("claimed"), by=now)] * 4,
            *[lambda: take_undoing(routes, now, self.lease("claimed"), by=now)] * 2,
            lambda: take_expired(routes, now, self.lease("recovered")),
        ]

    def _driven(self, run: dict[str, Any]) -> Change | None:
        change = self.chance.choice(self._undoing(run) if run["status"] == "compensating" else self._going(run))()
        if change is None or self.chance.random() < 0.7:
            return change
        place = next_undo(run) or Place(run["cursor"])
        return carrying(change, [Patch(place, add={"metrics.cost": 0.5}, append={"logs": Append((self.claims,), 2)})])

    def _going(self, run: dict[str, Any]) -> list[Wish]:
        place, now, error = self.chance.choice(unfinished(run)), self.now, self._error(run)
        ending = Ending(now, go_on=self.chance.random() < 0.8)
        if self.chance.random() < 0.3:
            state = {"$": some_value(self.chance)}
            ending.state = StateChange({"state": state, "state_size": 9}, (), 9, 9 - run.get("state_size", 0), state)
        later, value = now + timedelta(seconds=self.chance.choice([0, 5])), self._encoded()
        alone = "group" not in run["steps"][place.k]
        limit = is_overdue(run, now)
        member: list[Wish] = [lambda: stepping.record_failure(run, place, error, later, now)]
        single: list[Wish] = [
            *[lambda: stepping.try_again(run, place, error, later, now)] * 2,
            *[lambda: jumping.jump(run, place, f"s{self.chance.randrange(4)}", ending)] * 2,
        ]
        return [
            *[lambda: stepping.complete(run, place, value, ending)] * 4,
            lambda: stepping.skip(run, place, ending, self.chance.choice([None, error])),
            lambda: stepping.fail(run, place, error, ending),
            lambda: time_out(run, limit, ending) if limit is not None else None,
            lambda: stepping.release(run, now),
            lambda: (
                stepping.quarantine(run, error | {"code": "run.corrupt"}, now) if self.chance.random() < 0.2 else None
            ),
            *[lambda: self._park(run, unfinished(run))] * 4,
            *[lambda: self._settled(run, place, value)] * 3,
            *(single if alone else member),
        ]

    def _undoing(self, run: dict[str, Any]) -> list[Wish]:
        place, now, error = next_undo(run), self.now, self._error(run)
        assert place is not None
        go_on, later = self.chance.random() < 0.8, now + timedelta(seconds=self.chance.choice([0, 5]))
        return [
            lambda: compensating.compensated(run, place, now, go_on=go_on),
            lambda: compensating.not_compensated(run, place, error, now, go_on=go_on),
            lambda: stepping.try_again(run, place, error, later, now),
            lambda: stepping.release(run, now),
            lambda: (
                stepping.quarantine(run, error | {"code": "run.corrupt"}, now) if self.chance.random() < 0.2 else None
            ),
            lambda: self._park(run, [place]),
            lambda: self._settled(run, place, self._encoded()),
        ]

    def _park(self, run: dict[str, Any], places: list[Place]) -> Change:
        return parking.park(run, {place: self._waits(place.memo(run)) for place in places}, self.now)

    def _waits(self, memo: Any) -> dict[str, Any]:
        """What a handler waits for: what it has not been told yet, and something new."""
        waits = {address: entry for address, entry in memo.items() if entry.get("open") and self.chance.random() < 0.9}
        address = next(f"w#{n}" for n in itertools.count(len(memo)) if f"w#{n}" not in memo)
        kind = self.chance.choice((*KINDS, "sleep"))
        entry: dict[str, Any] = {"kind": kind, "key": address}
        if kind == "sleep" or self.chance.random() < 0.5:
            entry["due_at"] = self.now + timedelta(seconds=self.chance.choice([0, 60]))
        if kind == "event":
            entry["name"] = self.chance.choice("ab")
        if kind == "hook":
            entry["hash"] = f"{self.run_id}h{self.chance.random()}"
        if kind != "sleep":
            entry |= {"open": True, "opened_at": self.now}
        return waits | {address: entry}

    def _settled(self, run: dict[str, Any], place: Place, value: Encoded) -> Change:
        path = f"{place.at}.memo.{self.chance.choice(['k', '1', 'é'])}"
        growth = value.size - place.memo(run).get(path.rpartition(".")[2], {}).get("size", 0)
        entry = {"kind": "call", "output": value.value, "size": value.size}
        counted = Patch(place, add={"metrics.cost": 0.25, "metrics.n": 1}, append={"logs": Append((value.value,), 3)})
        return patched(run, [Patch(place, {path: entry}, weight=value.size, growth=growth), counted], self.now)

    def _error(self, run: dict[str, Any]) -> dict[str, Any]:
        return {"code": "step.error", "type": "E", "message": "$m", "step": "s", "attempt": run["attempt"]}

    def _encoded(self) -> Encoded:
        return ANY.encode(some_value(self.chance), "value")
