"""What must hold of runs of `tests.stress.flows.five_steps`, whatever was done to workers and servers.

Each invariant is a function that yields a sentence per violation. `test_checker.py` shows that each can.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise

from tests.stress.evidence import Document, Evidence
from tests.stress.flows import FIVE, expected

Invariant = Callable[[Evidence], Iterator[str]]


def acknowledged_starts_exist(evidence: Evidence) -> Iterator[str]:
    """Whoever was told that a run is started finds it."""
    for entry in evidence.all("started"):
        if entry["run"] not in evidence.documents:
            yield f"run {entry['run']}: acknowledged, and not there"


def only_asked_for(evidence: Evidence) -> Iterator[str]:
    """No start leaves more than one run."""
    asked = Counter(entry["value"]["n"] for entry in evidence.all("asking"))
    stored = Counter(document["input"]["n"] for document in evidence.documents.values())
    for n, times in stored.items():
        if times > asked[n]:
            yield f"input {n}: asked for {asked[n]} times, stored {times} times"


def ended_tidily(evidence: Evidence) -> Iterator[str]:
    """Every run is done, says since when, and holds nothing back."""
    for run_id, document in evidence.documents.items():
        if document["status"] != "done":
            yield f"run {run_id}: {document['status']}, {document.get('error')}"
        if document.get("ended_at") is None or document["ended_at"] < document["created_at"]:
            yield f"run {run_id}: ended_at is {document.get('ended_at')}"
        if left := [name for name in ("live", "lease", "due_at", "active_key", "paused", "error") if name in document]:
            yield f"run {run_id}: ended with {left}"
        for step in document["steps"]:
            if step["status"] != "done" or "started_at" not in step or "ended_at" not in step:
                yield f"run {run_id}: step {step['id']} is {step['status']} without all of its times"


def outputs_are_right(evidence: Evidence) -> Iterator[str]:
    """The outputs are the function of the input that the workflow computes."""
    for run_id, document in evidence.documents.items():
        stored = {step["id"]: (step.get("output") or {}).get("value") for step in document["steps"]}
        if stored != expected(document["input"]["n"]):
            yield f"run {run_id}: outputs {stored}"
        if document.get("output") != document["steps"][-1].get("output"):
            yield f"run {run_id}: its output is not its last step's"


def outputs_come_from_their_attempt(evidence: Evidence) -> Iterator[str]:
    """A stored output was returned by the attempt that is stored beside it, and by no other."""
    for run_id, step, nonce in _stored_nonces(evidence):
        attempt = _step(evidence, run_id, step)["attempt"]
        if not evidence.of(run_id, "exit", step=step, attempt=attempt, nonce=nonce):
            yield f"run {run_id}: the output of {step} is of no execution of attempt {attempt}"


def committed_once(evidence: Evidence) -> Iterator[str]:
    """One worker at most is told that it completed a step, and what it completed is what is stored."""
    for run_id, step, _ in _stored_nonces(evidence):
        told = evidence.acknowledged(run_id, step)
        if len(told) > 1:
            yield f"run {run_id}: {step} was acknowledged {len(told)} times, to {[entry['by'] for entry in told]}"
        attempt = _step(evidence, run_id, step)["attempt"]
        if told and told[0]["attempt"] != attempt:
            yield f"run {run_id}: attempt {told[0]['attempt']} of {step} was acknowledged, {attempt} is stored"


def outputs_never_change(evidence: Evidence) -> Iterator[str]:
    """Every execution saw the outputs of earlier steps that are stored in the end."""
    final = {(run_id, step): nonce for run_id, step, nonce in _stored_nonces(evidence)}
    for entry in evidence.all("enter"):
        for step, nonce in entry["seen"].items():
            if final.get((entry["run"], step)) != nonce:
                yield f"run {entry['run']}: {entry['by']} saw an output of {step} that is gone"


def never_again(evidence: Evidence) -> Iterator[str]:
    """A step whose completion was acknowledged does not begin again, save in a process that was frozen meanwhile."""
    frozen = {entry["name"] for entry in evidence.all("freeze")}
    for run_id, step, _ in _stored_nonces(evidence):
        for told in evidence.acknowledged(run_id, step)[:1]:
            for entry in evidence.of(run_id, "enter", step=step):
                if entry["at"] > told["at"] and entry["by"] not in frozen:
                    yield f"run {run_id}: {step} began in {entry['by']} after {told['by']} had completed it"


def repeated_for_recovery_only(evidence: Evidence) -> Iterator[str]:
    """A step is attempted again only where the run lost its worker, and its durable call likewise."""
    for run_id, document in evidence.documents.items():
        recoveries = document["recovery_count"]
        tried = {(entry["step"], entry["attempt"]) for entry in evidence.of(run_id, "enter")}
        if len(tried) > len(FIVE) + recoveries:
            yield f"run {run_id}: {len(tried)} attempts of {len(FIVE)} steps after {recoveries} recoveries"
        if (calls := len(evidence.of(run_id, "call"))) > 1 + recoveries:
            yield f"run {run_id}: its durable call was carried out {calls} times after {recoveries} recoveries"


def events_are_whole(evidence: Evidence) -> Iterator[str]:
    """The events are numbered without gaps and tell each completion once, in order, the run's last."""
    for run_id, document in evidence.documents.items():
        events = document["events"]
        numbers = [event["seq"] for event in events]
        if numbers != list(range(document["event_seq"] - len(events) + 1, document["event_seq"] + 1)):
            yield f"run {run_id}: events numbered {numbers}, event_seq {document['event_seq']}"
        if document["event_seq"] > len(events):
            continue
        told = [event["step"] for event in events if event["type"] == "step.done"]
        if told != list(FIVE) or events[0]["type"] != "run.created" or events[-1]["type"] != "run.done":
            yield f"run {run_id}: events {[event['type'] for event in events]}"
        # A worker that dies between its claim and its first write takes the news of that recovery with it.
        recovered = sum(event["type"] == "run.recovered" for event in events)
        if recovered > document["recovery_count"] or bool(recovered) is not bool(document["recovery_count"]):
            yield f"run {run_id}: {document['recovery_count']} recoveries, {recovered} events of them"


def recovered_from_the_dead_only(evidence: Evidence) -> Iterator[str]:
    """Between two attempts of a step lies the end of the process that made the first, unless it parked the run."""
    ends = [(entry["name"], entry["at"]) for entry in evidence.entries if entry["what"] in ("kill", "freeze")]
    for run_id in evidence.documents:
        parked = {entry["nonce"] for entry in evidence.of(run_id, "leave", why="Suspension")}
        for step in FIVE:
            for one, other in pairwise(evidence.of(run_id, "enter", step=step)):
                if one["attempt"] == other["attempt"] or one["nonce"] in parked:
                    continue
                if not any(name == one["by"] and at < other["at"] for name, at in ends):
                    yield f"run {run_id}: {step} was taken from {one['by']}, which was alive, by {other['by']}"


ALWAYS: tuple[Invariant, ...] = (
    acknowledged_starts_exist,
    only_asked_for,
    ended_tidily,
    outputs_are_right,
    outputs_come_from_their_attempt,
    committed_once,
    outputs_never_change,
    never_again,
    repeated_for_recovery_only,
    events_are_whole,
)


def violations(evidence: Evidence, *more: Invariant) -> list[str]:
    """Return every violation of the invariants that always hold, and of those given."""
    return [f"{rule.__name__}: {said}" for rule in (*ALWAYS, *more) for said in rule(evidence)]


def _stored_nonces(evidence: Evidence) -> Iterator[tuple[str, str, str]]:
    for run_id, document in evidence.documents.items():
        for step in document["steps"]:
            if step.get("output"):
                yield run_id, step["id"], step["output"]["nonce"]


def _step(evidence: Evidence, run_id: str, step_id: str) -> Document:
    found: Document = next(step for step in evidence.documents[run_id]["steps"] if step["id"] == step_id)
    return found
