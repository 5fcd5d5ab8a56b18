"""What is told of a slow question: its fields and operators, the index it lacks, and never a value."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from streamline.store.explaining import examined_in, explain_command
from streamline.store.filters import RunQuery, behind, cursor_of
from streamline.store.operations import Aggregate, Find
from streamline.store.shapes import missing_index, shape_of
from tests.clocks import LONG_AGO

SECRET = "s3cret"
PLACE = cursor_of({"created_at": LONG_AGO, "_id": SECRET})
BEHIND = "created_at $lte, $or(created_at $lt; created_at $eq, _id $lt)"


@pytest.mark.parametrize(
    ("query", "shape", "index"),
    [
        ({}, "", None),
        (RunQuery("w").filter(), "workflow $eq", None),
        (RunQuery(status="done", created_after=LONG_AGO).filter(), "status $in, created_at $gte", None),
        (RunQuery(status="failed").filter(), "status $in, error.code $gt", None),
        (RunQuery(status="waiting").filter(), "status $in, live $eq", None),
        (RunQuery(tags=SECRET).filter(), "tags $all", "tags: 1, created_at: -1, _id: -1"),
        (
            {"tenant_id": {"$eq": SECRET}, **RunQuery("w", match={"input.a": SECRET}).filter()},
            "tenant_id $eq, workflow $eq, input.a $eq",
            "tenant_id: 1, workflow: 1, input.a: 1, created_at: -1, _id: -1",
        ),
        (
            RunQuery(match={"input.a": {"$gt": SECRET, "$ne": SECRET}, "metadata.b": {"$in": [SECRET]}}).filter(),
            "input.a $gt $ne, metadata.b $in",
            "metadata.b: 1, created_at: -1, _id: -1",
        ),
        (
            RunQuery(match={"input.n": {"$gt": 5}}).filter(),
            "input.n $gt",
            "input.n: 1, created_at: -1, _id: -1",
        ),
        ({"input": {SECRET: 1}}, "input $eq", "input: 1, created_at: -1, _id: -1"),
        ({"input.a": {"$not": {"$gt": SECRET}}}, "input.a $not($gt)", "input.a: 1, created_at: -1, _id: -1"),
        (
            {"input.a": {"$elemMatch": {"b": SECRET, "c": {"$lt": 3}}}},
            "input.a $elemMatch(b $eq, c $lt)",
            "input.a: 1, created_at: -1, _id: -1",
        ),
        ({"$or": [{"input.a": SECRET}, {"input.b": 1}]}, "$or(input.a $eq; input.b $eq)", None),
        ({"$and": [{}, behind(PLACE, "-created_at")]}, BEHIND, None),
    ],
)
def test_a_shape_names_fields_and_operators(query: dict[str, Any], shape: str, index: str | None) -> None:
    assert shape_of(query) == shape
    assert missing_index(query) == index


def test_a_shape_is_one_short_line() -> None:
    shape = shape_of({f"input.{i}\n\x1b[31m": 1 for i in range(1000)})
    assert len(shape) <= 400
    assert shape.isprintable()


def test_the_totals_count_and_not_the_plans_that_were_tried() -> None:
    totals = {"totalDocsExamined": 7, "allPlansExecution": [{"totalDocsExamined": 100}]}
    assert examined_in({"executionStats": totals}) == 7
    assert examined_in({"stages": [{"$cursor": {"executionStats": totals}}, {"$group": {}}]}) == 7
    assert examined_in({"shards": {"a": {"executionStats": totals}, "b": {"executionStats": totals}}}) == 14
    assert examined_in({"ok": 1}) == 0


def test_what_is_explained_is_what_was_asked() -> None:
    page = Find("find_page", {"a": 1}, {"b": 1}, sort=(("c", -1), ("_id", -1)), limit=3)
    wanted = {"find": "x.runs", "filter": {"a": 1}, "projection": {"b": 1}, "sort": {"c": -1, "_id": -1}, "limit": 3}
    assert explain_command("x.runs", page) == {"explain": wanted, "verbosity": "executionStats"}
    hinted = replace(page, hint="runs_page")
    assert explain_command("x.runs", hinted)["explain"] == {**wanted, "hint": "runs_page"}
    counted = {"aggregate": "x.runs", "pipeline": [{"$match": {"a": 1}}, {"$group": {}}], "cursor": {}}
    assert explain_command("x.runs", Aggregate("count_runs", {"a": 1}, [{"$group": {}}]))["explain"] == counted
