"""Runs in the states that transitions meet, made by the engine's own transitions."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from streamline.domain.change import Change, apply
from streamline.domain.place import Place, here
from streamline.domain.transitions import parking
from streamline.domain.transitions.claiming import lease_of, take_due, take_undoing
from streamline.domain.transitions.stating import StateChange
from tests.conformance.documents import FLOW, NOW, held

LATER = NOW + timedelta(minutes=5)
ERROR = {"code": "step.error", "type": "ValueError", "message": "no", "step": "s0", "attempt": 1}


def after(run: Mapping[str, Any], change: Change | None) -> dict[str, Any]:
    """The run once the change has taken effect; the change cannot take effect again."""
    assert change is not None
    document = copy.deepcopy(dict(run))
    assert apply(document, change)
    assert not apply(copy.deepcopy(document), change)
    return document


def types(run: Mapping[str, Any]) -> list[str]:
    return [event["type"] for event in run["events"]]


def opened(kind: str, key: str = "k", since: Any = NOW, **more: Any) -> dict[str, Any]:
    """A wait that somebody can answer, as a handler hands it in."""
    return {"kind": kind, "key": key, "open": True, "opened_at": since, **more}


def parked(run: Mapping[str, Any], *places: Place, now: Any = NOW, **waits: Mapping[str, Any]) -> dict[str, Any]:
    """The run, parked on these waits at these places, by default where it stands."""
    asked = {name.replace("__", "#"): entry for name, entry in waits.items()}
    return after(run, parking.park(run, dict.fromkeys(places or (here(run),), asked), now))


def taken(run: Mapping[str, Any], now: Any = LATER, token: str = "token2") -> dict[str, Any]:
    """The run, claimed by another worker once it is due."""
    take = take_undoing if run["status"] == "compensating" else take_due
    lease = lease_of("w2", token, now, now + timedelta(seconds=30), "claimed")
    return after(run, take([FLOW.route], now, lease, by=now))


def stated(state: Any, size: int = 9) -> StateChange:
    """What a handler has changed of the state: all of it."""
    return StateChange({"state": state, "state_size": size}, (), size, size, state)


def group(run_id: str = "r", size: int = 2) -> dict[str, Any]:
    """A held run that stands at a group of so many steps."""
    run = held(run_id)
    for step in run["steps"][:size]:
        step |= {"group": "g", "status": "running", "started_at": NOW}
    return run


def undone(run_id: str = "r", *, done: int = 2) -> dict[str, Any]:
    """A held run that is being undone: so many of its steps were done, and the next has failed."""
    run = held(run_id) | {"status": "compensating", "cursor": done, "compensate_on": ["failed"], "error": ERROR}
    for k in range(done):
        run["steps"][k] |= {"status": "done", "compensable": True, "compensation": {"status": "pending"}}
    run["steps"][done] |= {"status": "failed", "error": ERROR}
    return run
