"""Indexes are made once, by whoever comes first, and never silently wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from streamline.errors import UnsafeDeployment
from streamline.store import ensure_indexes
from streamline.store.driver import Driver
from streamline.store.indexes import MEMO_INDEXES, RUN_INDEXES
from tests.conformance.documents import draft


async def specifications(runs: Any) -> dict[str, dict[str, Any]]:
    found = await runs.index_information()
    return {name: {key: aware(given[key]) for key in given if key not in ("v", "ns")} for name, given in found.items()}


def aware(value: Any) -> Any:
    """The drivers read the instants of a partial index without their zone."""
    if isinstance(value, Mapping):
        return {key: aware(part) for key, part in value.items()}
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else value


async def test_every_index_is_made_as_it_is_described(wire: Driver, runs: Any) -> None:
    await ensure_indexes(wire)
    made = await specifications(runs)
    del made["_id_"]
    assert made == {index.name: {"key": list(index.keys), **index.options} for index in RUN_INDEXES}
    # The others are partial: a run that has nothing to do with them costs them nothing.
    assert len([index for index in RUN_INDEXES if not index.options]) <= 2
    made = await specifications(runs.database["streamline.memo"])
    del made["_id_"]
    assert made == {index.name: {"key": list(index.keys), **index.options} for index in MEMO_INDEXES}


async def test_making_them_again_changes_nothing(wire: Driver, runs: Any) -> None:
    await ensure_indexes(wire)
    before = await specifications(runs)
    await ensure_indexes(wire)
    assert await specifications(runs) == before


async def test_many_processes_may_make_them_at_once(wire: Driver, runs: Any) -> None:
    await asyncio.gather(*(ensure_indexes(wire) for _ in range(10)))
    assert len(await specifications(runs)) == len(RUN_INDEXES) + 1


async def test_a_missing_one_is_made_beside_the_others(wire: Driver, runs: Any) -> None:
    await ensure_indexes(wire)
    await runs.drop_index("runs_due")
    await ensure_indexes(wire)
    assert "runs_due" in await specifications(runs)


async def test_indexes_of_the_users_own_are_left_alone(wire: Driver, runs: Any) -> None:
    await runs.create_index([("input.customer", 1)], name="mine")
    await ensure_indexes(wire)
    assert "mine" in await specifications(runs)


@pytest.mark.parametrize("index", RUN_INDEXES, ids=lambda index: index.name)
async def test_an_index_of_the_same_name_with_another_definition_is_refused(
    wire: Driver, runs: Any, index: Any
) -> None:
    await runs.create_index([("something_else", 1)], name=index.name)
    with pytest.raises(UnsafeDeployment) as caught:
        await ensure_indexes(wire)
    assert caught.value.field == "indexes"
    assert index.name in str(caught.value)


@pytest.mark.parametrize("index", MEMO_INDEXES, ids=lambda index: index.name)
async def test_an_index_on_memos_with_another_definition_is_refused(wire: Driver, runs: Any, index: Any) -> None:
    await runs.database["streamline.memo"].create_index([("something_else", 1)], name=index.name)
    with pytest.raises(UnsafeDeployment) as caught:
        await ensure_indexes(wire)
    assert index.name in str(caught.value)


@pytest.mark.parametrize("index", [index for index in RUN_INDEXES if index.options], ids=lambda index: index.name)
async def test_an_index_with_the_same_keys_but_other_options_is_refused(wire: Driver, runs: Any, index: Any) -> None:
    await runs.create_index(list(index.keys), name=index.name)
    with pytest.raises(UnsafeDeployment):
        await ensure_indexes(wire)


async def test_stored_runs_that_share_a_key_are_named_as_the_obstacle(wire: Driver, runs: Any) -> None:
    await runs.insert_many([draft("a", idempotency_key="k"), draft("b", idempotency_key="k")])
    with pytest.raises(UnsafeDeployment) as caught:
        await ensure_indexes(wire)
    assert "idempotency key" in str(caught.value)


async def test_the_unique_key_is_by_tenant_and_workflow_and_for_active_runs_only(wire: Driver, runs: Any) -> None:
    from pymongo.errors import DuplicateKeyError

    await ensure_indexes(wire)
    await runs.insert_one(draft("a", idempotency_key="k"))
    await runs.insert_one(draft("b", idempotency_key="k", tenant_id="t"))
    await runs.insert_one(draft("c", idempotency_key="k") | {"workflow": "other"})
    without_key = draft("d", idempotency_key="k")
    del without_key["active_key"]
    await runs.insert_one(without_key)
    await runs.insert_many([draft("e"), draft("f")])
    with pytest.raises(DuplicateKeyError):
        await runs.insert_one(draft("g", idempotency_key="k") | {"version": "2.0.0"})
