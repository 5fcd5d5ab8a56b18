"""What the server says about how it carries a statement out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from streamline.store.operations import Aggregate, Find, Remove, Write, WriteMany
from streamline.store.scope import EVERYTHING, Scope

Statement = Find | Aggregate | Remove | Write | WriteMany


@dataclass(frozen=True)
class Plan:
    """Of the winning plan: its stages, the indexes it uses, and what it looked at."""

    stages: frozenset[str]
    indexes: frozenset[str]
    keys: int
    documents: int
    found: int


async def explain(database: Any, statement: Statement, scope: Scope = EVERYTHING) -> Plan:
    command = _command(statement, dict(scope.confine(statement.filter)))
    answer = await database.command({"explain": command, "verbosity": "executionStats"})
    body = answer["stages"][0]["$cursor"] if "stages" in answer else answer
    stages = list(_stages(body["queryPlanner"]["winningPlan"]))
    statistics = body["executionStats"]
    return Plan(
        frozenset(stage["stage"] for stage in stages),
        frozenset("_id" if stage["stage"] == "IDHACK" else _named(stage) for stage in stages if _by_index(stage)),
        statistics["totalKeysExamined"],
        statistics["totalDocsExamined"],
        statistics["nReturned"],
    )


def _command(statement: Statement, query: dict[str, Any]) -> dict[str, Any]:
    if isinstance(statement, Find):
        command: dict[str, Any] = {
            "find": f"streamline.{statement.collection}",
            "filter": query,
            "limit": statement.limit,
        }
        if statement.projection:
            command["projection"] = statement.projection
        if statement.sort:
            command["sort"] = dict(statement.sort)
        if statement.hint:
            command["hint"] = statement.hint
        return command
    if isinstance(statement, Aggregate):
        pipeline = [{"$match": query}, *statement.pipeline]
        hinted = {"hint": statement.hint} if statement.hint else {}
        return {"aggregate": "streamline.runs", "pipeline": pipeline, "cursor": {}, **hinted}
    if isinstance(statement, Remove):
        return {"delete": f"streamline.{statement.collection}", "deletes": [{"q": query, "limit": 0}]}
    many = isinstance(statement, WriteMany)
    collection = statement.collection if isinstance(statement, WriteMany) else "runs"
    return {"update": f"streamline.{collection}", "updates": [{"q": query, "u": statement.update, "multi": many}]}


def _by_index(stage: Mapping[str, Any]) -> bool:
    return stage["stage"] == "IDHACK" or "indexName" in stage


def _named(stage: Mapping[str, Any]) -> str:
    return "_id" if stage["indexName"] == "_id_" else str(stage["indexName"])


def _stages(node: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(node, Mapping):
        if isinstance(node.get("stage"), str):
            yield node
        for part in node.values():
            yield from _stages(part)
    elif isinstance(node, list):
        for part in node:
            yield from _stages(part)
