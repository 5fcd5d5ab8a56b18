"""A user's filter is bounded in every direction, and what is dangerous is refused however deep it lies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from bson import Code, Regex

from streamline.errors import InvalidQuery
from streamline.store.matches import CONDITIONS_MAX, NESTED_MAX, VALUES_MAX, checked_match


def nested(depth: int) -> dict[str, Any]:
    """A filter whose conditions stand so deep in one another."""
    value: Any = {"$gt": 1}
    for _ in range(depth - 2):
        value = {"$not": value}
    return {"input.a": value}


def either(depth: int) -> dict[str, Any]:
    match: dict[str, Any] = {"input.a": 1}
    for _ in range(depth - 1):
        match = {"$or": [match]}
    return match


ALLOWED: list[dict[str, Any]] = [
    nested(NESTED_MAX),
    either(NESTED_MAX),
    {f"input.f{i}": 1 for i in range(CONDITIONS_MAX)},
    {"input.a": {"$in": list(range(VALUES_MAX))}},
    {"input.a": {"$elemMatch": {"sku": "x", "n": {"$gt": 1}}}},
    {"input.a": {"b": {"c": [1, 2]}}},
]
REFUSED: list[dict[str, Any]] = [
    nested(NESTED_MAX + 1),
    either(NESTED_MAX + 1),
    {f"input.f{i}": 1 for i in range(CONDITIONS_MAX + 1)},
    {"$or": [{"input.a": i} for i in range(CONDITIONS_MAX)]},
    {"$and": [{"$or": [{"input.a": {"$gt": i, "$lt": i}} for i in range(7)]} for _ in range(6)]},
    {"input.a": {"$in": list(range(VALUES_MAX + 1))}},
    {"input.a": {"$nin": ["x"] * 10_000}},
    {"input.a": {"$not": {"$all": list(range(VALUES_MAX + 1))}}},
    {"input.a": {"$elemMatch": {"$expr": {"$eq": [1, 1]}}}},
    {"input.a": {"$elemMatch": {"b": {"$where": "1"}}}},
    {"input.a": {"$elemMatch": {"$or": [{"b": {"$regex": "x"}}]}}},
    {"input.a": {"$in": [{"b": {"$function": {"body": "1"}}}]}},
    {"input.a": {"b": [{"c": {"$accumulator": {}}}]}},
    {"input.a": {"$not": {"$near": [1, 2]}}},
    {"input.a": {"$geoWithin": {"$center": [[0, 0], 1]}}},
    {"input.a": {"$bitsAllSet": 3}},
    {"input.a": {"$mod": [2, 0]}},
    {"input.a": {"$type": "string"}},
    {"input.a": {"$jsonSchema": {}}},
    {"$jsonSchema": {}},
    {"$comment": "x"},
    {"$text": {"$search": "x"}},
    {"$expr": {"$function": {"body": "1", "args": [], "lang": "js"}}},
    {"$alwaysTrue": 1},
    {"$or": [{"input.a": 1}, {}]},
    {"$and": [{}]},
    {"input.a": re.compile("(a+)+$")},
    {"input.a": {"$in": [re.compile("x")]}},
    {"input.a": Regex("x")},
    {"input.a": Code("1")},
    {"input.a": {"$eq": {"b\0": 1}}},
    {"input.a\0": 1},
    {"input.a": {"$ref": "c", "$id": 1}},
]


@pytest.mark.parametrize("match", ALLOWED, ids=lambda match: repr(match)[:60])
def test_what_is_within_the_bounds_passes_unchanged(match: dict[str, Any]) -> None:
    assert checked_match(match) == match


@pytest.mark.parametrize("match", REFUSED, ids=lambda match: repr(match)[:60])
def test_what_is_not_is_refused(match: dict[str, Any]) -> None:
    with pytest.raises(InvalidQuery) as caught:
        checked_match(match)
    assert caught.value.field == "match"


def test_what_is_sent_is_what_was_checked() -> None:
    class Sly(dict[str, Any]):
        """Shows another face to whoever copies it."""

        def items(self) -> Any:
            return {"input.a": 1}.items()

    for match in (MappingProxyType({"input.a": 1}), Sly({"$where": "1"})):
        try:
            sent: Mapping[str, Any] = checked_match(match)
        except InvalidQuery:
            continue
        assert type(sent) is dict
        assert sent == {"input.a": 1}
