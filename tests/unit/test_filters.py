"""Scopes and queries as plain data; what a query does is tested in tests/integration/test_queries.py."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.errors import InvalidQuery
from streamline.store.filters import RunQuery, behind, checked_limit, checked_match, cursor_of, sort_of
from streamline.store.scope import EVERYTHING, Scope

NOON = datetime(2024, 5, 1, 12, 0, 0, 123000, tzinfo=UTC)


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"a": 1},
        {"tenant_id": "theirs"},
        {"tenant_id": {"$ne": None}, "a": 1},
        {"$or": [{"tenant_id": "theirs"}, {}]},
        {"$and": [{"tenant_id": "theirs"}]},
    ],
    ids=repr,
)
@pytest.mark.parametrize("tenant", ["ours", None])
def test_a_scope_is_joined_to_a_filter_and_cannot_be_undone_by_it(query: dict[str, Any], tenant: str | None) -> None:
    confined = Scope(tenant).confine(query)
    condition = {"tenant_id": {"$eq": tenant}}
    parts = confined["$and"] if "tenant_id" in query else [{k: v} for k, v in confined.items()]
    assert condition in parts
    assert all({name: value} in parts or query in parts for name, value in query.items())
    assert EVERYTHING.confine(query) is query


def test_a_scope_admits_its_own_documents() -> None:
    assert Scope("ours").admits({"tenant_id": "ours"})
    assert not Scope("ours").admits({"tenant_id": "theirs"})
    assert not Scope("ours").admits({})
    assert Scope().admits({})
    assert not Scope().admits({"tenant_id": "theirs"})
    assert EVERYTHING.admits({"tenant_id": "theirs"})


def test_a_query_without_conditions_is_empty() -> None:
    assert RunQuery().filter() == {}


def test_a_query_with_every_condition() -> None:
    query = RunQuery("order", ("done", "failed"), ["a"], {"input.x": 1}, NOON, NOON + timedelta(days=1))
    assert query.filter() == {
        "$and": [
            {
                "workflow": "order",
                "status": {"$in": ["done", "failed"]},
                "tags": {"$all": ["a"]},
                "created_at": {"$gte": NOON, "$lt": NOON + timedelta(days=1)},
            },
            {"input.x": 1},
        ]
    }


@given(st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC)), st.text(min_size=1))
def test_a_cursor_stands_for_its_place(at: datetime, run_id: str) -> None:
    at = at.replace(microsecond=at.microsecond // 1000 * 1000)
    try:
        cursor = cursor_of({"created_at": at, "_id": run_id})
    except UnicodeEncodeError:
        return
    for order, further in (("-created_at", "$lt"), ("created_at", "$gt")):
        assert behind(cursor, order) == {
            "created_at": {further + "e": at},
            "$or": [{"created_at": {further: at}}, {"created_at": at, "_id": {further: run_id}}],
        }
    assert cursor.isascii()


def forged(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


@given(st.text() | st.binary() | st.none() | st.integers())
def test_what_is_no_cursor_is_refused(cursor: Any) -> None:
    with pytest.raises(InvalidQuery) as caught:
        behind(cursor, "created_at")
    assert caught.value.field == "after"


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_a_forged_cursor_is_refused_or_harmless(value: Any) -> None:
    try:
        query = behind(forged(value), "created_at")
    except InvalidQuery:
        return
    assert isinstance(query["created_at"]["$gte"], datetime)
    assert isinstance(query["$or"][1]["_id"]["$gt"], str)


@pytest.mark.parametrize(
    "value",
    [
        [1, {"$gt": ""}],
        [1, ["a"]],
        [1],
        [1, "a", "b"],
        [None, "a"],
        {"a": 1},
        "ab",
        [10**30, "a"],
    ],
    ids=repr,
)
def test_a_cursor_of_other_parts_is_refused(value: Any) -> None:
    with pytest.raises(InvalidQuery):
        behind(forged(value), "-created_at")


@pytest.mark.parametrize("order", ["", "x", "$natural", "-_id", None, 1, ["created_at"], {"created_at": 1}], ids=repr)
def test_an_unknown_order_is_refused(order: Any) -> None:
    with pytest.raises(InvalidQuery) as caught:
        sort_of(order)
    assert caught.value.field == "order"


def test_an_order_settles_ties_by_id() -> None:
    assert sort_of("created_at") == (("created_at", 1), ("_id", 1))
    assert sort_of("-created_at") == (("created_at", -1), ("_id", -1))


@pytest.mark.parametrize("limit", [1, 50, 500])
def test_a_limit_within_its_range_is_kept(limit: int) -> None:
    assert checked_limit(limit) == limit


@pytest.mark.parametrize("limit", [0, -1, 501, 10**9, "10", None, True, 1.0, [1]], ids=repr)
def test_a_limit_out_of_its_range_is_refused(limit: Any) -> None:
    with pytest.raises(InvalidQuery):
        checked_limit(limit)


ALLOWED = {"$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$all", "$size", "$not", "$elemMatch"}


@given(
    st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=12).map(lambda name: "$" + name)
)
def test_only_harmless_operators_pass(operator: str) -> None:
    for match in (
        {"input.a": {operator: 1}},
        {"input.a": {"$not": {operator: 1}}},
        {"$or": [{"input": [{"k": {operator: 1}}]}]},
    ):
        if operator in ALLOWED:
            checked_match(match)
        else:
            with pytest.raises(InvalidQuery):
                checked_match(match)
    with pytest.raises(InvalidQuery):
        checked_match({operator: [{"tenant_id": 1}]})


@given(st.text())
def test_only_payloads_can_be_asked_for(field: str) -> None:
    match = {field: 1}
    if field.split(".", maxsplit=1)[0] in ("input", "metadata", "output") and "\0" not in field:
        checked_match(match)
    elif field.split(".", maxsplit=1)[0] not in ("input", "metadata", "output"):
        with pytest.raises(InvalidQuery) as caught:
            checked_match(match)
        assert caught.value.field == "match"
