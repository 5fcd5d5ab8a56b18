"""The executable model of a change agrees with the database: same verdict, same document, whatever the values.

Random changes, and random walks through the transitions, are played on mongod through the statements that the engine
sends, and on `streamline.domain.change.apply`. A failure names the seed that repeats it.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streamline.domain.change import Absent, AtMost, Change, Counted, OneOf, apply
from streamline.domain.payloads import ANY, Encoded
from streamline.domain.statuses import NEXT, TERMINAL
from streamline.domain.transitions import operating, stepping
from streamline.domain.transitions.birth import Order, claimed, queued
from streamline.domain.transitions.claiming import lease_of, take_due, take_expired
from streamline.domain.transitions.stepping import Ending
from streamline.errors import StreamlineError
from streamline.settings import Settings
from streamline.store import connect, statements
from streamline.store.driver import Driver
from tests.conformance.documents import definition_of

START = datetime(2024, 5, 1, 12, tzinfo=UTC)
TOGETHER, ROUNDS = 100, 12
HOSTILE: tuple[Any, ...] = (
    None,
    "",
    "$secret",
    "$$ROOT",
    "$",
    "a.b",
    "\0",
    "é\U0001f600",
    0,
    -(2**63),
    2**63 - 1,
    0.5,
    True,
    b"\0\xff",
    START,
    [],
    [[], [{}]],
    {},
    {"$function": {"body": "return 1", "args": [], "lang": "js"}},
    {"$set": {"status": "done"}, "$inc": 1},
    {"a.b": {"$c": {"": 1}}, "$[]": ["$"], "0": 0},
    {"$literal": "$rev", "$eq": [1, 1]},
)


@pytest.fixture
def wire(database: Any) -> Driver:
    """The engine's face of the driver under test; without indexes, so that nothing is removed whose time is over."""
    return connect(database, database=None, prefix="model", settings=Settings())


class Twins:
    """The same runs twice: in the database, and as the model has them."""

    def __init__(self, wire: Driver, seed: int) -> None:
        self.wire, self.seed = wire, seed
        self.random = random.Random(seed)
        self.model: dict[str, dict[str, Any]] = {}
        self._marks = 0

    async def begin(self, documents: list[dict[str, Any]]) -> None:
        self.model = {document["_id"]: copy.deepcopy(document) for document in documents}
        await self.wire.command({"insert": self.wire.runs, "documents": documents})

    async def play(self, changes: dict[str, Change]) -> dict[str, bool]:
        """Carry one change of each run out on both, hold them to each other, and return which took effect."""
        self._marks += 1
        mark = f"m{self._marks}"
        before = copy.deepcopy(self.model)
        writes = [statements.advance_run(run_id, change, mark) for run_id, change in changes.items()]
        rows = [{"q": write.filter, "u": write.update} for write in writes]
        answer = await self.wire.command({"update": self.wire.runs, "updates": rows, "ordered": False})
        assert "writeErrors" not in answer, self.told(answer["writeErrors"][:3], changes, before)
        verdicts = {run_id: apply(self.model[run_id], change) for run_id, change in changes.items()}
        for document in await self._read(list(changes)):
            run_id = document["_id"]
            took_effect = document.pop("mark", None) == mark
            assert took_effect == verdicts[run_id], self.told("the verdicts differ", {run_id: changes[run_id]}, before)
            assert document == self.model[run_id], self.told("the documents differ", {run_id: changes[run_id]}, before)
        return verdicts

    async def _read(self, run_ids: list[str]) -> list[dict[str, Any]]:
        found = await self.wire.command(
            {"find": self.wire.runs, "filter": {"_id": {"$in": run_ids}}, "batchSize": 1000}
        )
        documents: list[dict[str, Any]] = found["cursor"]["firstBatch"]
        assert len(documents) == len(run_ids)
        return documents

    def told(self, what: Any, changes: dict[str, Change], before: dict[str, Any]) -> str:
        if len(changes) > 1:
            return f"seed {self.seed}: {what}"
        (run_id,) = changes
        parts = {"before": before[run_id], "model": self.model[run_id], "change": changes[run_id]}
        return "\n".join([f"seed {self.seed}: {what}", *(f"{name}: {part}"[:3000] for name, part in parts.items())])


# Random changes


FIELDS = (
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
NUMBERS = ("rev", "attempt", "recovery_count", "steps.0.failures")
INSTANTS = ("due_at", "started_at", "lease.until", "steps.2.started_at")


def some_value(chance: random.Random, depth: int = 0) -> Any:
    if depth < 3 and chance.random() < 0.4:
        inner = [some_value(chance, depth + 1) for _ in range(chance.randrange(4))]
        return (
            inner
            if chance.random() < 0.5
            else {f"{chance.choice(['$', 'a.b', '', 'k'])}{i}": v for i, v in enumerate(inner)}
        )
    return copy.deepcopy(chance.choice(HOSTILE))


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
    for path in put:
        if path in ("lease", "paused") or path in INSTANTS or path in NUMBERS or path == "lease.token":
            put[path] = {"lease": {"token": "c", "until": some_instant(chance)}, "paused": {"at": START}}.get(
                path,
                some_instant(chance)
                if path in INSTANTS
                else chance.randrange(4)
                if path in NUMBERS
                else chance.choice("ab"),
            )
        if path.endswith("status"):
            put[path] = chance.choice(["draft", "running", "done"])
    drop = tuple(
        apart(
            chance.sample(
                ("due_at", "state", "lease", "lease.news", "steps.0.memo", "steps.2.memo.k", "paused.due_at"), 2
            ),
            taken,
        )
    )
    add = {path: chance.randrange(-2, 4) for path in apart(chance.sample(NUMBERS, 2), taken)}
    earliest = {
        path: some_instant(chance)
        for path in apart(chance.sample(("started_at", "due_at", "steps.2.started_at"), 1), taken)
    }
    events = tuple({"seq": i, "type": "e", "data": some_value(chance)} for i in range(chance.choice([0, 1, 2, 60])))
    return Change(some_guard(chance), put or {"updated_at": START}, drop, add, earliest, events)


@pytest.mark.parametrize("seed", range(5))
async def test_random_changes_do_the_same_to_the_database_and_to_the_model(wire: Driver, seed: int) -> None:
    twins = Twins(wire, seed)
    await twins.begin([some_document(twins.random, f"r{i}") for i in range(TOGETHER)])
    matched = 0
    for _ in range(ROUNDS):
        changes = {run_id: some_change(twins.random, document) for run_id, document in twins.model.items()}
        matched += sum((await twins.play(changes)).values())
    assert 0.1 < matched / (TOGETHER * ROUNDS) < 0.9


# Random walks through the transitions


FLOW = definition_of("walk", steps=3)
RETAINED = {"retention": {"done": 60.0, "cancelled": 0.0}}


class Walk:
    """One run on its way, as its model has it, and as somebody saw it some time ago."""

    def __init__(self, chance: random.Random, run_id: str) -> None:
        self.chance = chance
        self.now = START
        self.claims = 0
        order = Order(
            run_id,
            FLOW,
            some_value(chance),
            idempotency_key=f"key-{run_id}" if chance.random() < 0.5 else None,
            tags=("a",),
            metadata={"k": some_value(chance)},
        )
        claimed_at_birth = chance.random() < 0.5
        due_at = START + timedelta(seconds=chance.choice([0, 0, 30]))
        self.run = claimed(order, START, self.lease()) if claimed_at_birth else queued(order, START, due_at)
        self.run |= RETAINED
        self.past = [copy.deepcopy(self.run)]

    def lease(self, news: str | None = None) -> dict[str, Any]:
        self.claims += 1
        return lease_of(
            "w",
            f"{self.run['_id'] if hasattr(self, 'run') else ''}t{self.claims}",
            self.now,
            self.now + timedelta(seconds=30),
            news,
        )

    def next_change(self, run: dict[str, Any]) -> Change:
        """Some change that somebody could make of the run as it is, or as it was seen before."""
        self.run = run
        self.now += timedelta(seconds=self.chance.choice([0, 1, 10, 40]), milliseconds=self.chance.randrange(1000))
        seen = run if self.chance.random() < 0.75 else self.chance.choice(self.past[-5:])
        self.past.append(copy.deepcopy(run))
        while True:
            change = self.some_transition(seen)
            if change is not None:
                return change
            seen = run

    def some_transition(self, run: dict[str, Any]) -> Change | None:
        wishes: list[Callable[[], Change | None]] = [
            lambda: operating.cancel(run, self.now, reason=self.chance.choice([None, "$why"]), by=None),
            lambda: operating.pause(run, self.now, reason=None, by="ann"),
            lambda: operating.unpause(run, self.now),
            lambda: operating.unpause(run, self.now),
            lambda: operating.retry(run, self.now),
            lambda: operating.retry(run, self.now),
            lambda: take_due([FLOW.route, "x@1"], self.now, self.lease("claimed"), by=self.now),
            lambda: take_due([FLOW.route], self.now, self.lease("claimed"), by=self.now),
            lambda: take_expired([FLOW.route], self.now, self.lease("recovered")),
        ]
        if "lease" in run:
            wishes += [lambda: self.driven(run)] * 12
        try:
            return self.chance.choice(wishes)()
        except StreamlineError:
            return None

    def driven(self, run: dict[str, Any]) -> Change:
        value = self.encoded()
        ending = Ending(
            self.now, state=self.encoded() if self.chance.random() < 0.3 else None, go_on=self.chance.random() < 0.8
        )
        error = {"code": "step.error", "type": "E", "message": "$m", "step": "s", "attempt": run["attempt"]}
        later = self.now + timedelta(seconds=self.chance.choice([0, 5]))
        made: list[Callable[[], Change]] = [
            lambda: stepping.complete(run, value, ending),
            lambda: stepping.complete(run, value, ending),
            lambda: stepping.skip(run, ending, self.chance.choice([None, error])),
            lambda: stepping.fail(run, error, ending),
            lambda: stepping.try_again(run, error, later, self.now),
            lambda: stepping.try_again(run, error, later, self.now),
            lambda: stepping.sleep(run, self.chance.choice(["sleep#1", "k"]), later, self.now),
            lambda: stepping.sleep(run, "0", later, self.now),
            lambda: stepping.settle(
                run,
                self.chance.choice(["k", "1", "é"]),
                {"kind": "call", "output": value.value},
                self.now,
                weight=value.size,
            ),
            lambda: stepping.save(run, value, self.now),
            lambda: stepping.release(run, self.now),
            lambda: stepping.quarantine(run, error, self.now),
        ]
        return self.chance.choice(made)()

    def encoded(self) -> Encoded:
        return ANY.encode(some_value(self.chance), "value")


def check_invariants(before: dict[str, Any], after: dict[str, Any], change: Change) -> None:
    status = after["status"]
    assert status == before["status"] or status in NEXT[before["status"]]
    assert ("lease" in after) == (status == "running")
    if status in TERMINAL:
        assert not after.keys() & {"lease", "due_at", "active_key", "paused"}
        assert after["ended_at"] is not None
        assert ("error" in after) == (status != "done")
        assert ("expire_at" in after) == (status in ("done", "cancelled"))
    else:
        assert not after.keys() & {"ended_at", "expire_at", "error", "cancel"}
        assert after.get("active_key") == after.get("idempotency_key")
    if status in ("draft", "waiting"):
        assert ("due_at" in after) != bool(after.get("paused", {}))
        assert not after.get("paused") or "due_at" in after["paused"]
    assert after["attempt"] >= 0
    assert 0 <= after["cursor"] < len(after["steps"])
    assert after["size"] >= 0
    numbers = [event["seq"] for event in after["events"]]
    assert numbers == list(range(after["event_seq"] - len(numbers) + 1, after["event_seq"] + 1))
    assert after["events"][-1]["type"] != "run.done" or status == "done"
    assert not apply(copy.deepcopy(after), change), f"the change can be repeated: {change}"


@pytest.mark.parametrize("seed", range(5))
async def test_random_walks_do_the_same_to_the_database_and_to_the_model(wire: Driver, seed: int) -> None:
    twins = Twins(wire, seed)
    walks = {f"r{i}": Walk(random.Random(f"{seed}/{i}"), f"r{i}") for i in range(TOGETHER)}
    await twins.begin([walk.run for walk in walks.values()])
    matched, reached = 0, set()
    for _ in range(2 * ROUNDS):
        changes = {run_id: walk.next_change(copy.deepcopy(twins.model[run_id])) for run_id, walk in walks.items()}
        before = copy.deepcopy(twins.model)
        for run_id, took_effect in (await twins.play(changes)).items():
            after = twins.model[run_id]
            matched += took_effect
            reached.add(after["status"])
            if took_effect:
                try:
                    check_invariants(before[run_id], after, changes[run_id])
                except AssertionError as error:
                    raise AssertionError(f"{error}\n{twins.told('', {run_id: changes[run_id]}, before)}") from error
    assert reached == {"draft", "running", "waiting", "done", "failed", "cancelled"}
    assert matched > TOGETHER * ROUNDS / 2
