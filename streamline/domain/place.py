"""Where in a run a handler is at work, and what the run says of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Document = Mapping[str, Any]

ENDED = ("done", "failed", "skipped")


@dataclass(frozen=True, slots=True)
class Place:
    """A step of a run, by its index, or the compensation of one."""

    k: int
    undo: bool = False

    @property
    def at(self) -> str:
        """The field path under which a run keeps what is known of it."""
        return f"steps.{self.k}.compensation" if self.undo else f"steps.{self.k}"

    def activity(self, run: Document) -> Mapping[str, Any]:
        """Return what the run says of it: status, failures, memo."""
        step: Mapping[str, Any] = run["steps"][self.k]
        return step.get("compensation") or {} if self.undo else step

    def memo(self, run: Document) -> Mapping[str, Any]:
        """Return its settled and open calls that the run document holds, by address."""
        memo: Mapping[str, Any] = self.activity(run).get("memo") or {}
        return memo


def here(run: Document) -> Place:
    """Return the place that a run which is not in a group, and not undone, stands at."""
    return Place(run["cursor"])


def members(run: Document, k: int) -> range:
    """Return the indexes of the steps that run concurrently with step `k`, itself included."""
    steps = run["steps"]
    group = steps[k].get("group")
    if group is None:
        return range(k, k + 1)
    first = last = k
    while first > 0 and steps[first - 1].get("group") == group:
        first -= 1
    while last + 1 < len(steps) and steps[last + 1].get("group") == group:
        last += 1
    return range(first, last + 1)


def unfinished(run: Document) -> list[Place]:
    """Return the places of the steps that the run stands at and that have not ended."""
    return [Place(k) for k in members(run, run["cursor"]) if run["steps"][k]["status"] not in ENDED]


def next_undo(run: Document) -> Place | None:
    """Return the compensation that comes next: of the step that was done last; None where all have ended."""
    for k in reversed(range(len(run["steps"]))):
        if (run["steps"][k].get("compensation") or {}).get("status") in ("pending", "waiting"):
            return Place(k, undo=True)
    return None


def attempt_of(run: Document, place: Place) -> int:
    """Return the number of the attempt that is made at a place, from 1."""
    if not place.undo and "group" not in run["steps"][place.k]:
        return int(run["attempt"])
    # Claims are counted for the run as a whole; of several at work, each counts its own failures.
    return int(place.activity(run).get("failures", 0)) + recoveries_of_step(run) + 1


def recoveries_of_step(run: Document) -> int:
    """Return how often the run has lost its worker since it last finished a step."""
    return int(run["recovery_count"]) - int(run.get("recovered_before", 0))


def beginnings(step: Mapping[str, Any]) -> int:
    """Return how often a step was begun anew: reset, or retried by an operator after its run had ended."""
    return int(step.get("generation", 0)) + int(step.get("retries", 0))


def at_work(run: Document) -> list[Place]:
    """Return the places that a run which has not ended may have a handler at: unfinished steps, or compensations."""
    undo = run["status"] == "compensating"
    places = [Place(k, undo) for k, step in enumerate(run["steps"]) if not undo or step.get("compensation")]
    return [place for place in places if place.activity(run)["status"] not in ENDED]


def open_waits(run: Document) -> Iterator[tuple[Place, str, Mapping[str, Any]]]:
    """Yield the waits of a run that somebody can answer, each with its place and address."""
    for place in at_work(run):
        for address, entry in place.memo(run).items():
            if entry.get("open"):
                yield place, address, entry


def is_waiting(run: Document) -> bool:
    """Return whether any of the run's handlers waits, rather than being about to be tried again."""
    return any(place.activity(run)["status"] == "waiting" for place in at_work(run))
