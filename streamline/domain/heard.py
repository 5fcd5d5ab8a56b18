"""Which events of the inbox a run has taken: each at most once, however often it is offered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from streamline.domain.change import Append
from streamline.domain.place import Document

HEARD_MAX = 200
# Clocks of two processes may differ by so much, although both are kept to the server's: a run that is there when an
# event is sent may seem to be younger than it.
SKEW = timedelta(milliseconds=50)

Position = tuple[datetime, str]


def position_of(event: Mapping[str, Any]) -> Position:
    """Return where an event stands in the order of arrival."""
    return event["at"], event["id"]


def has_heard(run: Document, event: Mapping[str, Any]) -> bool:
    """Return whether a run has taken an event, or has passed it over long ago."""
    if any(each["id"] == event["id"] for each in run.get("heard", ())):
        return True
    passed = passed_until(run, event["name"])
    return passed is not None and position_of(event) <= passed


def passed_until(run: Document, name: str) -> Position | None:
    """Return up to where a run is done with the events of a name, or None where it remembers each."""
    found = next((each for each in run.get("passed", ()) if each["name"] == name), None)
    return None if found is None else position_of(found)


def is_for(run: Document, event: Mapping[str, Any], early: timedelta) -> bool:
    """Return whether an event is for a run: the run existed when it was sent, or it has reached nobody so far.

    Args:
        run: The run.
        event: The event.
        early: How long before a run's beginning an event that reached nobody may have come.
    """
    if event["at"] >= run["created_at"]:
        return True
    return event.get("reached", 0) == 0 and bool(event["at"] >= run["created_at"] - early)


def noted(run: Document, events: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, Append]]:
    """Return what to put and append so that a run remembers to have taken events.

    It remembers the last ones; of each name that falls out of its memory, up to where it was.
    """
    fresh = tuple({"id": event["id"], "name": event["name"], "at": event["at"]} for event in events)
    if not fresh:
        return {}, {}
    known = [*run.get("heard", ()), *fresh]
    passed = {each["name"]: each for each in run.get("passed", ())}
    for each in known[:-HEARD_MAX]:
        before = passed.get(each["name"])
        if before is None or position_of(before) < position_of(each):
            passed[each["name"]] = each
    put = {"passed": list(passed.values())} if len(known) > HEARD_MAX else {}
    return put, {"heard": Append(fresh, HEARD_MAX)}
