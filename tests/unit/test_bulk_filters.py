"""Which runs an operation on many is about: never more than was said."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from streamline.domain.bulk_result import SAMPLE_MAX, BulkFailure, Tally
from streamline.errors import InvalidQuery
from streamline.store.bulk_filters import among, read_bulk_filter
from streamline.store.filters import RunQuery

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "query"),
    [
        ({"workflow": "order"}, RunQuery("order")),
        ({"status": "failed", "tags": ["a", "b"]}, RunQuery(status="failed", tags=["a", "b"])),
        ({"created_after": NOON, "created_before": NOON}, RunQuery(created_after=NOON, created_before=NOON)),
        ({"match": {"input.a": 1}}, RunQuery(match={"input.a": 1})),
        ({"input.a": 1, "metadata.b": {"$gt": 2}}, RunQuery(match={"input.a": 1, "metadata.b": {"$gt": 2}})),
        ({"input.a": 1, "match": {"output": 2}}, RunQuery(match={"$and": [{"output": 2}, {"input.a": 1}]})),
        ({"input": {"a": 1}, "match": {}}, RunQuery(match={"input": {"a": 1}})),
        ({"input.a": {"$eq": None}}, RunQuery(match={"input.a": {"$eq": None}})),
    ],
    ids=repr,
)
def test_a_filter_is_the_arguments_by_name(given: dict[str, Any], query: RunQuery) -> None:
    assert read_bulk_filter(given, limited=False).filter() == query.filter()


@pytest.mark.parametrize("given", [{}, {"match": {}}], ids=repr)
def test_a_filter_of_all_runs_needs_a_limit(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidQuery) as caught:
        read_bulk_filter(given, limited=False)
    assert caught.value.field == "filter"
    assert read_bulk_filter(given, limited=True).filter() == {}


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (None, "filter"),
        ("failed", "filter"),
        ([("status", "failed")], "filter"),
        ({"tenant_id": "acme"}, "tenant_id"),
        ({"_id": "x"}, "_id"),
        ({"state": {}}, "state"),
        ({"inputs.a": 1}, "inputs.a"),
        ({"$where": "1"}, "$where"),
        ({"$or": [{"input.a": 1}]}, "$or"),
        ({5: 1}, "5"),
        ({"limit": 5}, "limit"),
        ({"status": "weird"}, "status"),
        ({"status": []}, "status"),
        ({"status": "failed", "workflow": None}, "workflow"),
        ({"status": "failed", "input.customer": None}, "input.customer"),
        ({"status": "failed", "match": None}, "match"),
        ({"match": {"tenant_id": "x"}}, "match"),
        ({"match": {"$or": [{}]}}, "match"),
        ({"input.a": {"$where": "1"}}, "match"),
        ({"created_after": "yesterday"}, "created_after"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("limited", [True, False])
def test_anything_else_is_refused(given: Any, field: str, limited: bool) -> None:
    with pytest.raises(InvalidQuery) as caught:
        read_bulk_filter(given, limited=limited)
    assert caught.value.field == field


def test_only_statuses_to_which_the_operation_applies_are_looked_for() -> None:
    query = RunQuery("order", tags="a", match={"input.a": 1}, created_after=NOON)
    narrowed = among(query, {"failed", "cancelled"})
    assert narrowed == RunQuery("order", ["cancelled", "failed"], "a", {"input.a": 1}, NOON)
    assert among(RunQuery(status=["done", "failed"]), {"failed", "cancelled"}) == RunQuery(status=["failed"])
    assert among(RunQuery(status="done"), {"failed", "cancelled"}) is None


def test_a_tally_holds_a_bounded_number_of_runs() -> None:
    tally = Tally()
    for i in range(10 * SAMPLE_MAX):
        tally.change(f"run{i}")
        tally.fail(BulkFailure(f"run{i}", "code", "why"))
    result = tally.result(dry_run=False)
    assert result.changed == result.failed == 10 * SAMPLE_MAX
    assert result.run_ids == tuple(f"run{i}" for i in range(SAMPLE_MAX))
    assert len(result.failures) == SAMPLE_MAX
