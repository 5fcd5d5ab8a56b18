"""The checker finds what it is there to find: each damage to sound evidence breaks its invariant, and that alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.stress import checker
from tests.stress.evidence import Evidence
from tests.stress.flows import FIVE, expected

NOW = datetime(2024, 2, 29, tzinfo=UTC)


def sound_document() -> dict[str, Any]:
    values = expected(3)
    steps = [
        {
            "id": step,
            "status": "done",
            "attempt": 1,
            "started_at": NOW,
            "ended_at": NOW,
            "output": {"value": values[step], "nonce": f"nonce-{step}", "drawn": None},
        }
        for step in FIVE
    ]
    types = ["run.created"] + [kind for _ in FIVE for kind in ("step.started", "step.done")] + ["run.done"]
    told = [None] + [step for step in FIVE for _ in range(2)] + [None]
    events = [{"seq": i, "type": kind, "step": step} for i, (kind, step) in enumerate(zip(types, told, strict=True), 1)]
    return {
        "_id": "r",
        "status": "done",
        "input": {"n": 3},
        "output": steps[-1]["output"],
        "steps": steps,
        "events": events,
        "event_seq": len(events),
        "recovery_count": 0,
        "created_at": NOW,
        "ended_at": NOW,
    }


def sound_entries() -> Iterator[dict[str, Any]]:
    yield {"what": "asking", "value": {"n": 3}}
    yield {"what": "started", "run": "r"}
    seen: dict[str, str] = {}
    for step in FIVE:
        place = {"run": "r", "step": step, "attempt": 1, "nonce": f"nonce-{step}"}
        yield {"what": "enter", **place, "seen": dict(seen)}
        if step == "third":
            yield {"what": "call", "run": "r", "drawn": "d"}
        yield {"what": "exit", **place}
        yield {"what": "acknowledged", "run": "r", "type": "step.done", "step": step, "attempt": 1}
        seen[step] = f"nonce-{step}"


def sound() -> Evidence:
    entries = [{"at": i, "by": "worker1", **entry} for i, entry in enumerate(sound_entries())]
    return Evidence({"r": sound_document()}, entries)


def rebuilt(evidence: Evidence, *more: dict[str, Any]) -> Evidence:
    entries = [*evidence.entries, *({"at": 1000 + i, "by": "worker2", **entry} for i, entry in enumerate(more))]
    return Evidence(evidence.documents, entries)


def stored(evidence: Evidence) -> dict[str, Any]:
    return evidence.documents["r"]


def lost(evidence: Evidence) -> Evidence:
    evidence.documents.clear()
    return evidence


def doubled(evidence: Evidence) -> Evidence:
    evidence.documents["s"] = {**stored(evidence), "_id": "s"}
    return evidence


def leased(evidence: Evidence) -> Evidence:
    stored(evidence)["lease"] = {}
    return evidence


def wrong(evidence: Evidence) -> Evidence:
    stored(evidence)["steps"][1]["output"]["value"] += 1
    return evidence


def overwritten(evidence: Evidence) -> Evidence:
    stored(evidence)["steps"][0]["output"]["nonce"] = "nonce-of-a-zombie"
    return evidence


def told_twice(evidence: Evidence) -> Evidence:
    return rebuilt(evidence, {"what": "acknowledged", "run": "r", "type": "step.done", "step": "first", "attempt": 1})


def begun_again(evidence: Evidence) -> Evidence:
    return rebuilt(evidence, {"what": "enter", "run": "r", "step": "fifth", "attempt": 1, "nonce": "x", "seen": {}})


def tried_again(evidence: Evidence) -> Evidence:
    return rebuilt(evidence, {"what": "enter", "run": "r", "step": "fifth", "attempt": 2, "nonce": "x", "seen": {}})


def called_again(evidence: Evidence) -> Evidence:
    return rebuilt(evidence, {"what": "call", "run": "r", "drawn": "e"})


def with_a_gap(evidence: Evidence) -> Evidence:
    del stored(evidence)["events"][3]
    return evidence


DAMAGE: list[tuple[Callable[[Evidence], Evidence], set[str]]] = [
    (lost, {"acknowledged_starts_exist"}),
    (doubled, {"only_asked_for"}),
    (leased, {"ended_tidily"}),
    (wrong, {"outputs_are_right"}),
    (overwritten, {"outputs_come_from_their_attempt", "outputs_never_change"}),
    (told_twice, {"committed_once"}),
    (begun_again, {"never_again"}),
    (tried_again, {"never_again", "repeated_for_recovery_only", "recovered_from_the_dead_only"}),
    (called_again, {"repeated_for_recovery_only"}),
    (with_a_gap, {"events_are_whole"}),
]


def broken(evidence: Evidence) -> set[str]:
    return {said.partition(":")[0] for said in checker.violations(evidence, checker.recovered_from_the_dead_only)}


def test_sound_evidence_breaks_nothing() -> None:
    assert not broken(sound())


@pytest.mark.parametrize(("damage", "rules"), DAMAGE, ids=[damage.__name__ for damage, _ in DAMAGE])
def test_damage_is_found(damage: Callable[[Evidence], Evidence], rules: set[str]) -> None:
    found = broken(damage(sound()))
    assert rules <= found
    if damage not in (lost, doubled):  # a run more or less leaves more than one trace
        assert found == rules


def test_every_invariant_can_be_broken() -> None:
    rules = {rule.__name__ for rule in (*checker.ALWAYS, checker.recovered_from_the_dead_only)}
    assert rules == set().union(*(rules for _, rules in DAMAGE))
