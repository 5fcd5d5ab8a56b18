"""What a read costs the server, in its own words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from streamline.store.operations import Aggregate, Find


def explain_command(collection: str, statement: Find | Aggregate) -> dict[str, Any]:
    """Return the command that lets the server carry a read out and say what it looked at, instead of the answer."""
    if isinstance(statement, Aggregate):
        pipeline = [{"$match": statement.filter}, *statement.pipeline]
        read: dict[str, Any] = {"aggregate": collection, "pipeline": pipeline, "cursor": {}}
    else:
        read = {"find": collection, "filter": statement.filter, "limit": statement.limit}
        read |= {"sort": dict(statement.sort)} if statement.sort else {}
        read |= {"projection": statement.projection} if statement.projection else {}
    read |= {"hint": statement.hint} if statement.hint else {}
    return {"explain": read, "verbosity": "executionStats"}


def examined_in(answer: Mapping[str, Any]) -> int:
    """Return how many documents were looked at, as the answer to an `explain_command` says, over all shards."""
    return sum(each["totalDocsExamined"] for each in _statistics(answer))


def _statistics(node: Any) -> Iterator[Mapping[str, Any]]:
    """Find the totals, and not those of the plans that were tried within them."""
    if isinstance(node, Mapping):
        if "totalDocsExamined" in node:
            yield node
            return
        for part in node.values():
            yield from _statistics(part)
    elif isinstance(node, (list, tuple)):
        for part in node:
            yield from _statistics(part)
