"""The executable model of a change agrees with the database: same verdict, same document, whatever the values.

Random changes are played on mongod through the statements that the engine sends, and on the model of
`streamline.domain.change.apply`. A failure names the seed that repeats it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from streamline.domain.change import Absent, Append, AtMost, Change, Counted, OneOf
from streamline.store.driver import Driver
from tests.property.twins import START, Twins, some_value

TOGETHER, ROUNDS = 100, 12


FIELDS = (
    "steps.1",
    "status",
    "rev",
    "due_at",
    "state",
    "output",
    "lease",
    "paused",
    "steps.0.status",
    "steps.1.output",
    "steps.2.memo.k",
)
DEEPER = (
    "lease.token",
    "lease.until",
    "lease.news",
    "paused.due_at",
    "steps.0.memo.$k",
    "steps.0.memo.0",
    "steps.1.waits",
)
NUMBERS = ("rev", "attempt", "recovery_count", "steps.0.failures", "metrics.cost")
LISTS = ("logs", "hooks", "steps.0.tags", "metrics.lines", "steps.2.memo.list")
AMOUNTS = (-2, 0, 1, 3, 0.5, -0.1, 1e300, 2**40)
INSTANTS = ("due_at", "started_at", "lease.until", "steps.2.started_at")


def some_instant(chance: random.Random) -> datetime:
    return START + timedelta(milliseconds=chance.randrange(5))


def some_document(chance: random.Random, run_id: str) -> dict[str, Any]:
    document: dict[str, Any] = {
        "_id": run_id,
        "status": chance.choice(["draft", "running"]),
        "rev": chance.randrange(3),
        "steps": [{"id": f"s{k}", "status": "pending"} for k in range(3)],
        "events": [],
    }
    if chance.random() < 0.5:
        document["lease"] = {"token": chance.choice("ab"), "until": some_instant(chance)}
    if chance.random() < 0.5:
        document["due_at"] = some_instant(chance)
    return document


def some_guard(chance: random.Random) -> dict[str, Any]:
    conditions: list[tuple[str, Callable[[], Any]]] = [
        ("status", lambda: chance.choice(["draft", "running", OneOf(("draft", "done")), OneOf(())])),
        ("rev", lambda: chance.choice([0, 1, 2, Counted()])),
        ("attempt", Counted),
        ("due_at", lambda: chance.choice([AtMost(some_instant(chance)), Absent()])),
        ("lease", Absent),
        ("lease.token", lambda: chance.choice(["a", "b", Absent(), OneOf(("a", "c"))])),
        ("lease.until", lambda: AtMost(some_instant(chance))),
        ("steps.0.id", lambda: chance.choice(["s0", "s0", "s1"])),
        ("steps.7.id", Absent),
        ("state", lambda: chance.choice([Absent(), {"$set": {"status": "done"}, "$inc": 1}, "$secret"])),
        ("paused", Absent),
    ]
    return {path: make() for path, make in chance.sample(conditions, chance.randrange(1, 4))}


def apart(paths: list[str], taken: set[str]) -> list[str]:
    """The paths that neither contain nor lie in one that is taken already: a write to both is refused by the server."""
    kept = []
    for path in paths:
        if not any((path + ".").startswith(other + ".") or (other + ".").startswith(path + ".") for other in taken):
            kept.append(path)
            taken.add(path)
    return kept


def some_change(chance: random.Random, document: dict[str, Any]) -> Change:
    taken: set[str] = set()
    plain = [path for path in DEEPER if isinstance(document.get(path.split(".")[0], {}), (dict, list))]
    put = {path: some_value(chance) for path in apart(chance.sample((*FIELDS, *plain), 3), taken)}
    put = {path: fitting_value(chance, path, value) for path, value in put.items()}
    drop = tuple(
        apart(
            chance.sample(
                ("due_at", "state", "lease", "lease.news", "steps.0.memo", "steps.2.memo.k", "paused.due_at"), 2
            ),
            taken,
        )
    )
    add = {path: some_amount(chance, path) for path in apart(chance.sample(NUMBERS, 2), taken)}
    append = {path: some_values(chance) for path in apart(chance.sample(LISTS, 2), taken)}
    earliest = {
        path: some_instant(chance)
        for path in apart(chance.sample(("started_at", "due_at", "steps.2.started_at"), 1), taken)
    }
    events = tuple({"seq": i, "type": "e", "data": some_value(chance)} for i in range(chance.choice([0, 1, 2, 60])))
    return Change(
        some_guard(chance),
        put or {"updated_at": START},
        drop,
        add,
        append,
        earliest,
        events,
        chance.choice([100, 100, 130]),
    )


def fitting_value(chance: random.Random, path: str, value: Any) -> Any:
    """A value that the field may have: those that guards and other changes look at are of one kind."""
    if path in INSTANTS:
        return some_instant(chance)
    if path in NUMBERS:
        return chance.randrange(4)
    if path.endswith("status"):
        return chance.choice(["draft", "running", "done"])
    if path == "state" and isinstance(value, list):
        return {"k": value}  # An equality looks into lists; the engine guards no field that may hold one.
    wholes: dict[str, Any] = {
        "lease": {"token": "c", "until": some_instant(chance)},
        "lease.token": chance.choice("ab"),
        "paused": {"at": START},
        "steps.1": {"id": "s1", "status": "pending", "memo": value},
    }
    return wholes.get(path, value)


def some_amount(chance: random.Random, path: str) -> float:
    """What counts is counted in whole numbers; only what is measured is not."""
    return chance.choice(AMOUNTS) if path == "metrics.cost" else chance.randrange(-2, 4)


def some_values(chance: random.Random) -> Append:
    values = tuple(some_value(chance) for _ in range(chance.randrange(4)))
    return Append(values, chance.choice([None, 1, 2, 100]))


@pytest.mark.parametrize("seed", range(5))
async def test_random_changes_do_the_same_to_the_database_and_to_the_model(wire: Driver, seed: int) -> None:
    twins = Twins(wire, seed)
    await twins.begin([some_document(twins.random, f"r{i}") for i in range(TOGETHER)])
    matched = 0
    for _ in range(ROUNDS):
        changes = {run_id: some_change(twins.random, document) for run_id, document in twins.model.items()}
        matched += sum((await twins.play(changes)).values())
    assert 0.1 < matched / (TOGETHER * ROUNDS) < 0.9
