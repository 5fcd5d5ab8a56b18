"""What must hold of runs of durable calls whose workers were killed. Each rule yields a sentence per violation."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from tests.stress.evidence import Document
from tests.stress.primitive_evidence import NONCE, Proof
from tests.stress.primitive_flows import ITEMS, SPILLED, TURNS
from tests.stress.primitive_sagas import kind_of

Rule = Callable[[Proof], Iterator[str]]

_KID = ["grow/small", "grow/big"]
_EARLY = 0.05  # seconds by which the clocks of two processes may differ
_PARKED = ("live", "lease", "due_at", "active_key", "paused", "hooks", "waiting_since", "nudged", "owes_at")
_WORKINGS = ("memo", "waits", "base")
_CHILDREN = {"one": 1, "detached": 1, "joined": 3, "any": 2}

OUTPUTS: dict[str, Any] = {
    "sleeping": ["rest/before", "rest/between", "rest/after", "last/end"],
    "calling": [*(f"many/c{i}" for i in range(TURNS)), "many/choice", "many/thread", "many/outer", "many/last"],
    "eaching": [
        [f"items/plain[{i}]" for i in range(ITEMS)],
        *([f"items/mixed[{i}]/fetch", f"items/mixed[{i}]/keep"] for i in range(ITEMS)),
    ],
    "gathering": {
        "calls": "fan/calls/call",
        "waits": "nobody",
        "asks": "answer",
        "works": "fan/works",
        "fails": "failed",
        "late": "fan/late",
    },
    "looping": [f"round_and_round/turn{i}/{what}" for i in range(TURNS) for what in ("work", "again", "end")],
    "hooking": ["pay/before", "answer", "answer", "pay/after"],
    "deciding": [
        "approved",
        "answer",
        "rejected",
        *(each for i in range(3) for each in ("answer", f"ask/turn{i}/check")),
    ],
    "waiting": ["answer", "stand/middle", "answer", "answer"],
    "fathering": {"one": _KID, "a": _KID, "b": _KID, "c": _KID, "after": "raise_them/after"},
    "undoing": None,
    "grouping": ["sleepy/before", "sleepy/after", "clumsy/before", "clumsy/after", "plain/plain", "after/end"],
    "polling": ["await_job/submit", "await_job/job", "await_job/after"],
    "stating": 2 * TURNS * 11,
    "tallying": TURNS * 101 + 2 * TURNS,
    "spilling": [SPILLED, "fill/large0", "fill/large1", "fill/end"],
    "nesting": [
        [each for t in range(2) for each in ("answer", f"deep/{i}.{t}/nap/call", f"deep/{i}.{t}/works")]
        for i in range(3)
    ],
    "childhood": _KID,
}
STATES: dict[str, Any] = {
    "stating": {
        "n": 2 * TURNS * 11,
        "turns": 2,
        "key0": 0,
        "key1": 1,
        "plain": 1,
        "late": 2 * TURNS * 11,
    },
    "tallying": {"each": TURNS * 101, "loop": TURNS, "turns": list(range(TURNS))},
}


def every_run_is_there(proof: Proof) -> Iterator[str]:
    """What was started is stored, with its children, each once."""
    for entry in proof.all("started"):
        if entry["run"] not in proof.documents:
            yield f"{entry['run']}: started, and not there"
    kids = Counter((each.get("parent") or {}).get("run_id") for each in proof.documents.values())
    for run_id, document in proof.documents.items():
        wanted = sum(_CHILDREN.values()) if kind_of(document["workflow"]) == "fathering" else 0
        if kids[run_id] != wanted:
            yield f"{run_id}: {kids[run_id]} children, {wanted} wanted"


def ended_right(proof: Proof) -> Iterator[str]:
    """Every run has the status, output and state that its workflow is to come to."""
    for run_id, document in proof.documents.items():
        name = kind_of(document["workflow"])
        if document["status"] != ("compensated" if name == "undoing" else "done"):
            if not _is_unwanted_child(document):
                yield f"{run_id}: {document['status']}, {document.get('error')}"
            continue
        if (found := _plain(document.get("output"))) != OUTPUTS[name]:
            yield f"{run_id}: output {found}"
        if name in STATES and document.get("state") != STATES[name]:
            yield f"{run_id}: state {document.get('state')}"
        if name != "undoing" and any(step["status"] != "done" for step in document["steps"]):
            yield f"{run_id}: steps {[step['status'] for step in document['steps']]}"
        if name == "undoing" and [(s.get("compensation") or {}).get("status") for s in document["steps"]] != [
            "done",
            "done",
            None,
        ]:
            yield f"{run_id}: compensations {[step.get('compensation') for step in document['steps']]}"


def nothing_is_left(proof: Proof) -> Iterator[str]:
    """Nothing is parked, claimed, answerable or owed any more, and no memo is kept of what is done."""
    for run_id, document in proof.documents.items():
        if left := [name for name in _PARKED if name in document]:
            yield f"{run_id}: ended with {left}"
        if document.get("ended_at") is None:
            yield f"{run_id}: no ended_at"
        for step in document["steps"]:
            for activity in (step, step.get("compensation") or {}):
                if activity.get("status") == "done" and (left := [name for name in _WORKINGS if name in activity]):
                    yield f"{run_id}: step {step['id']} is done, and keeps {left}"
    for run_id, n in Counter(document["run_id"] for document in proof.memo).items():
        yield f"{run_id}: {n} documents of its memo are left"


def results_never_change(proof: Proof) -> Iterator[str]:
    """What a handler was given once, it is given again; what is stored once is what it is given."""
    seen: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for unit, entries in proof.told("saw").items():
        seen[unit] |= {entry["nonce"] for entry in entries}
        for entry in entries:
            if entry["place"] is not None:
                seen[entry["run"], f"at {entry['place']}"].add(entry["nonce"])
    for entry in proof.all("chose"):
        seen[entry["run"], f"at {entry['place']}"].add(entry["value"])
    for found in (proof.stored, proof.spilled):
        for unit, nonces in found.items():
            seen[unit] |= set(nonces)
    for (run_id, what), nonces in seen.items():
        if len(nonces) > 1:
            yield f"{run_id}: {what} had the results {sorted(nonces)}"


def results_are_somebodys(proof: Proof) -> Iterator[str]:
    """What is stored or seen was done, or answered, by somebody."""
    done = {
        entry["nonce"]
        for what in ("did", "offered", "answering")
        for each in proof.told(what).values()
        for entry in each
    }
    for unit, nonces in proof.stored.items():
        if strangers := set(nonces) - done:
            yield f"{unit}: nobody did {strangers}"


def never_done_again(proof: Proof) -> Iterator[str]:
    """What is stored is not carried out again."""
    for unit, entries in proof.told("did").items():
        settled = proof.settled_at(unit)
        for entry in entries:
            if settled is not None and entry["at"] > settled and not entry.get("event"):
                yield f"{unit}: carried out by {entry['by']} {(entry['at'] - settled) / 1e6:.1f} ms after it was stored"


def repeated_after_a_kill_only(proof: Proof) -> Iterator[str]:
    """Whoever carried out what is carried out again was killed before: a death costs one execution more at most."""
    kills = {entry["name"]: entry["at"] for entry in proof.all("kill")}  # noted just before the signal is sent
    for unit, entries in proof.told("did").items():
        for one, other in pairwise(each for each in entries if not each.get("event")):
            if kills.get(one["by"], other["at"]) >= other["at"]:
                yield f"{unit}: carried out by {one['by']}, which was alive, and again by {other['by']}"


def one_answer_wins(proof: Proof) -> Iterator[str]:
    """Of those who answer a wait one is told that it did, and the handler is given what that one said."""
    for unit, entries in proof.told("answered").items():
        if len(entries) > 1:
            yield f"{unit}: {len(entries)} answers were accepted"
        for entry in proof.told("saw").get(unit, ()):
            if entry["nonce"] != entries[0]["nonce"]:
                yield f"{unit}: the handler was given an answer that was refused"
    for unit in proof.told("saw"):
        if unit[1].startswith("answer/") and not (proof.told("answered").get(unit) or proof.told("sent").get(unit)):
            yield f"{unit}: an answer was seen, and none accepted"


def tokens_stay(proof: Proof) -> Iterator[str]:
    """A hook has the same token each time it is made, and no two have the same."""
    tokens: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for entry in proof.all("token"):
        tokens[entry["run"], entry["key"]].add(entry["token"])
    for hook, found in tokens.items():
        if len(found) > 1:
            yield f"{hook}: {len(found)} tokens"
    if len({token for found in tokens.values() for token in found}) < len(tokens):
        yield "two hooks have the same token"


def nobody_wakes_early(proof: Proof) -> Iterator[str]:
    """A sleep lasts as long as was asked for, whoever wakes the run."""
    lay_down: dict[tuple[str, str], int] = {}
    for entry in proof.entries:
        if entry["what"] == "lies_down":
            lay_down.setdefault((entry["run"], entry["unit"]), entry["at"])
        elif entry["what"] == "wakes":
            slept = (entry["at"] - lay_down[entry["run"], entry["unit"]]) / 1e9
            if slept < entry["seconds"] - _EARLY:
                yield f"{entry['run']}: {entry['unit']} slept {slept:.3f} s of {entry['seconds']:g}"


def undone_in_reverse(proof: Proof) -> Iterator[str]:
    """A step is undone once those after it are, and not before the run has failed."""
    for run_id, document in proof.documents.items():
        if kind_of(document["workflow"]) != "undoing":
            continue
        order = (("undo-charge/undo", "ship/try"), ("undo-reserve/undo", "undo-charge/tell"))
        for later, first in order:
            began, earlier = proof.told("did").get((run_id, later)), proof.told("saw").get((run_id, first))
            if not began or not earlier or began[0]["at"] < earlier[0]["at"]:
                yield f"{run_id}: {later} did not come after what had to come first"


def events_are_whole(proof: Proof) -> Iterator[str]:
    """The events are numbered without gaps, and tell of each step's end once."""
    for run_id, document in proof.documents.items():
        numbers = [event["seq"] for event in document["events"]]
        if numbers != list(range(document["event_seq"] - len(numbers) + 1, document["event_seq"] + 1)):
            yield f"{run_id}: events numbered {numbers}, event_seq {document['event_seq']}"
        told = Counter(event["step"] for event in document["events"] if event["type"] == "step.done")
        if kind_of(document["workflow"]) != "stating" and max(told.values(), default=1) > 1:
            yield f"{run_id}: steps done {dict(told)}"


RULES: tuple[Rule, ...] = (
    every_run_is_there,
    ended_right,
    nothing_is_left,
    results_never_change,
    results_are_somebodys,
    never_done_again,
    repeated_after_a_kill_only,
    one_answer_wins,
    tokens_stay,
    nobody_wakes_early,
    undone_in_reverse,
    events_are_whole,
)


def violations(proof: Proof, *, leave_out: tuple[str, ...] = ()) -> list[str]:
    """Return every violation of every rule but those that are left out."""
    rules = [rule for rule in RULES if rule.__name__ not in leave_out]
    return [f"{rule.__name__}: {said}" for rule in rules for said in rule(proof)]


def _plain(value: Any) -> Any:
    """Return a value with what it is of in the place of each nonce."""
    if isinstance(value, str) and (found := NONCE.fullmatch(value)):
        return "answer" if found[2].startswith("answer/") else found[2]
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _is_unwanted_child(document: Document) -> bool:
    """Of two children of which one was enough, the other is cancelled; so are those of a step that was begun anew."""
    return document["status"] == "cancelled" and "parent" in document
