"""How an event comes to a run that did not send it: it cancels the run, answers an open wait, or is kept for later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from streamline.domain.change import Change
from streamline.domain.heard import SKEW, has_heard, is_for, noted, position_of
from streamline.domain.payloads import Encoded
from streamline.domain.place import Document
from streamline.domain.reactions import matches
from streamline.domain.statuses import TERMINAL
from streamline.domain.transitions import operating
from streamline.domain.transitions.answering import bring, deliver, listening

Event = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Hearing:
    """What comes of offering an event to a run.

    Args:
        reached: Whether the event concerns the run now: it is cancelled by it, or has a wait that the event fits.
        change: What to write, if anything.
        event: The event that `change` brings: an older one comes first.
    """

    reached: bool = False
    change: Change | None = None
    event: Event | None = None


def hear(run: Document, event: Event, older: Sequence[Event], early: timedelta, now: datetime) -> Hearing:
    """Return what comes of offering an event of the inbox to a run.

    Args:
        run: The run.
        event: The event; it fits the run as a whole.
        older: Events of the same name that came before it, in order, and that the run may not have taken yet.
        early: How long before a run's beginning an event that reached nobody may have come.
        now: The present instant.
    """
    if run["status"] in TERMINAL:
        return Hearing()
    if has_heard(run, event):
        return Hearing(reached=True)
    cancelling, was_there = None, event["at"] >= run["created_at"] - SKEW
    if was_there:
        cancelling = cancelled_by(run, event["name"], event["payload"], now)
    if cancelling is not None:
        put, append = noted(run, [event])
        change = replace(cancelling, put={**cancelling.put, **put}, append={**cancelling.append, **append})
        return Hearing(True, change, event)
    queue = [each for each in older if is_for(run, each, early) and not has_heard(run, each)]
    queue += [event] if was_there or is_for(run, event, early) else []
    for wait in listening(run, event["name"], now):
        fitting = [each for each in queue if matches(wait[2].get("match"), each["payload"])]
        if event in fitting:
            first = min(fitting, key=position_of)
            return Hearing(True, bring(run, wait, first, now), first)
    return Hearing()


def receive(run: Document, name: str, payload: Encoded, event_id: str, now: datetime) -> Change:
    """Return the change by which an event that is addressed to a run reaches it.

    Raises:
        AlreadyFinished: The run has ended.
        PayloadTooLarge: It keeps as many events as it can.
    """
    cancelling = None if run["status"] in TERMINAL else cancelled_by(run, name, payload.value, now)
    return deliver(run, name, payload, event_id, now) if cancelling is None else cancelling


def cancelled_by(run: Document, name: str, payload: Any, now: datetime) -> Change | None:
    """Return the change by which an event cancels a run, or None where it does not."""
    rules = (rule for rule in run.get("cancel_on", ()) if rule["name"] == name)
    if not any(matches(rule.get("match"), payload) for rule in rules):
        return None
    return operating.cancel(run, now, reason=f"event {name}", by=None)
