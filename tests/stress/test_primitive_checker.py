"""The rules of `tests.stress.primitive_checker` pass sound evidence, and each notices what it is there for."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.stress.primitive_checker import RULES, violations
from tests.stress.primitive_evidence import Proof

NOW = datetime(2024, 1, 1, tzinfo=UTC)
STEPS = {"rest": ["before", "between", "after"], "last": ["end"]}


def nonce(unit: str, tail: str = "0" * 12, run: str = "s") -> str:
    return f"@{run}|{unit}|{tail}"


OTHER = "f" * 12
UNITS = [f"{step}/{unit}" for step, units in STEPS.items() for unit in units]


def run(run_id: str, workflow: str, output: Any, steps: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    events = [{"seq": i, "type": "step.done", "step": step["id"]} for i, step in enumerate(steps, 1)]
    document = {"_id": run_id, "workflow": workflow, "status": "done", "output": output, "ended_at": NOW}
    return {**document, "steps": steps, "events": events, "event_seq": len(events), "recovery_count": 1, **more}


def sound() -> Proof:
    """A run that slept, one that was undone, and one that two tried to answer."""
    units = [nonce(unit) for unit in UNITS]
    done = [{"id": step, "status": "done"} for step in STEPS]
    undone = [{"id": each, "status": "done", "compensation": {"status": "done"}} for each in ("reserve", "charge")]
    hooked = [
        nonce("pay/before", run="h"),
        nonce("answer/pay/one", run="h"),
        nonce("answer/pay/two", run="h"),
        nonce("pay/after", run="h"),
    ]
    documents = {
        "s": run("s", "sleeping", units, done),
        "u": run("u", "undoing", None, [*undone, {"id": "ship", "status": "failed"}], status="compensated"),
        "h": run("h", "hooking", hooked, [{"id": "pay", "status": "done"}]),
    }
    entries = [
        *({"what": "started", "run": run_id} for run_id in documents),
        {"what": "did", "run": "s", "nonce": nonce(UNITS[0], OTHER), "by": "worker1"},
        {"what": "kill", "name": "worker1", "by": "harness"},
        *(each for unit in UNITS for each in happened("s", unit)),
        {"what": "lies_down", "run": "s", "unit": "rest/first", "seconds": 0.0},
        {"what": "wakes", "run": "s", "unit": "rest/first", "seconds": 0.0},
        {"what": "token", "run": "h", "key": "one", "token": "abc"},
        {"what": "token", "run": "h", "key": "two", "token": "def"},
        *(each for value in (hooked[0], hooked[3]) for each in happened("h", value.split("|")[1])),
        *(each for value in hooked[1:3] for each in answered(value)),
        *(
            each
            for unit in ("ship/try", "undo-charge/undo", "undo-charge/tell", "undo-reserve/undo")
            for each in happened("u", unit)
        ),
    ]
    stored = {("s", unit): {nonce(unit): 1_000_000} for unit in UNITS}
    return Proof([{"at": i * 1000, "by": "worker2", **e} for i, e in enumerate(entries)], documents, [], stored, {})


def happened(run_id: str, unit: str) -> list[dict[str, Any]]:
    value = nonce(unit, run=run_id)
    return [
        {"what": "did", "run": run_id, "nonce": value},
        {"what": "saw", "run": run_id, "nonce": value, "place": None},
    ]


def answered(value: str) -> list[dict[str, Any]]:
    return [
        {"what": "answering", "run": "h", "nonce": value},
        {"what": "answered", "run": "h", "nonce": value},
        {"what": "saw", "run": "h", "nonce": value, "place": None},
    ]


def last(proof: Proof, **entry: Any) -> None:
    proof.entries.append({"at": 10**9, "by": "worker2", "place": None, **entry})


def change(proof: Proof, run_id: str, **fields: Any) -> None:
    proof.documents[run_id] |= fields


def fall_short(proof: Proof) -> None:
    for entry in proof.entries:
        if entry["what"] in ("lies_down", "wakes"):
            entry["seconds"] = 5.0


def let_live(proof: Proof) -> None:
    proof.entries[:] = [entry for entry in proof.entries if entry["what"] != "kill"]


def undo_too_early(proof: Proof) -> None:
    late = next(e for e in proof.entries if e["what"] == "did" and "undo-reserve" in e["nonce"])
    late["at"] = 0


DAMAGES: dict[str, list[Callable[[Proof], Any]]] = {
    "every_run_is_there": [
        lambda proof: proof.documents.pop("s"),
        lambda proof: change(proof, "s", parent={"run_id": "h"}),
    ],
    "ended_right": [
        lambda proof: change(proof, "s", output=[nonce(UNITS[0])]),
        lambda proof: change(proof, "s", status="failed"),
        lambda proof: change(proof, "u", status="compensation_failed"),
        lambda proof: proof.documents["s"]["steps"][0].update(status="pending"),
        lambda proof: proof.documents["u"]["steps"][0]["compensation"].update(status="pending"),
    ],
    "nothing_is_left": [
        *(
            lambda proof, name=name: change(proof, "s", **{name: NOW})
            for name in ("lease", "due_at", "owes_at", "hooks")
        ),
        lambda proof: proof.documents["s"]["steps"][0].update(memo={}),
        lambda proof: proof.memo.append({"run_id": "s"}),
        lambda proof: change(proof, "s", ended_at=None),
    ],
    "results_never_change": [
        lambda proof: last(proof, what="saw", run="s", nonce=nonce(UNITS[1], OTHER)),
        lambda proof: proof.spilled.update({("s", UNITS[1]): {nonce(UNITS[1], OTHER)}}),
        lambda proof: [last(proof, what="chose", run="s", place="detached", value=value) for value in "ab"],
    ],
    "results_are_somebodys": [lambda proof: proof.stored.update({("s", "rest/x"): {nonce("rest/x"): 5}})],
    "never_done_again": [lambda proof: last(proof, what="did", run="s", nonce=nonce(UNITS[2], OTHER))],
    "repeated_after_a_kill_only": [let_live],
    "one_answer_wins": [
        lambda proof: last(proof, what="answered", run="h", nonce=nonce("answer/pay/one", OTHER, "h")),
        lambda proof: last(proof, what="saw", run="h", nonce=nonce("answer/pay/three", run="h")),
    ],
    "tokens_stay": [
        lambda proof: last(proof, what="token", run="h", key="one", token="ghi"),
        lambda proof: last(proof, what="token", run="s", key="one", token="abc"),
    ],
    "nobody_wakes_early": [fall_short],
    "undone_in_reverse": [undo_too_early],
    "events_are_whole": [
        lambda proof: change(proof, "s", event_seq=9),
        lambda proof: proof.documents["s"]["events"][1].update(step="rest"),
    ],
}
CASES = [(rule, damage) for rule, damages in DAMAGES.items() for damage in damages]


def test_sound_evidence_passes() -> None:
    assert violations(sound()) == []


def test_every_rule_has_its_damage() -> None:
    assert {rule.__name__ for rule in RULES} == set(DAMAGES)


@pytest.mark.parametrize(("rule", "damage"), CASES)
def test_each_rule_notices(rule: str, damage: Callable[[Proof], Any]) -> None:
    evidence = sound()
    damage(evidence)
    parts = (evidence.entries, evidence.documents, evidence.memo, evidence.stored, evidence.spilled)
    found = violations(Proof(*deepcopy(parts)))  # grouped anew
    assert [said for said in found if said.startswith(f"{rule}:")], found
