"""Runs that are kept twice, in the database and by the model, and the values that they are filled with."""

from __future__ import annotations

import copy
import random
from datetime import UTC, datetime
from typing import Any

from streamline.domain.change import Change, apply
from streamline.store import statements
from streamline.store.driver import Driver

START = datetime(2024, 5, 1, 12, tzinfo=UTC)
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


def some_value(chance: random.Random, depth: int = 0) -> Any:
    if depth < 3 and chance.random() < 0.4:
        inner = [some_value(chance, depth + 1) for _ in range(chance.randrange(4))]
        return (
            inner
            if chance.random() < 0.5
            else {f"{chance.choice(['$', 'a.b', '', 'k'])}{i}": v for i, v in enumerate(inner)}
        )
    return copy.deepcopy(chance.choice(HOSTILE))
