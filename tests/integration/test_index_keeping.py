"""Indexes: created once, looked at without creating, by apps and from the command line."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

import pymongo
import pytest

from streamline import IndexIssue, Settings, Streamline, Worker
from streamline.__main__ import main
from streamline.errors import IndexConflict, InvalidPolicy, UnsafeDeployment
from streamline.store import INDEXES
from tests.conformance.documents import draft
from tests.integration.kin import leaf

pytestmark = pytest.mark.own_database

ALL = sum(map(len, INDEXES.values()))
LOOKS_ONLY = Settings(create_indexes=False)


async def opened(make_app: Any, **options: Any) -> None:
    async with make_app(leaf(), worker=False, **options):
        pass


def shown(issues: list[IndexIssue]) -> set[tuple[str, str]]:
    return {(each.index, each.problem) for each in issues}


async def test_looking_creates_nothing_and_tells_what_is_wrong(make_app: Any, database: Any, runs: Any) -> None:
    async with make_app(leaf(), worker=False) as app:
        assert await app.ensure_indexes(check=True) == []
        assert await app.ensure_indexes() == []
        await runs.drop_index("runs_due")
        await runs.drop_index("runs_active_key")
        await runs.drop_index("runs_lease")
        await runs.create_index([("lease.until", 1)], name="runs_lease")
        await runs.drop_index("runs_waiting")
        await runs.create_index([("tenant_id", 1), ("waiting_since", 1)], name="runs_waiting")
        await runs.create_index([("input.customer", 1)], name="mine")
        await runs.create_index([("x", 1)], name="runs_of_a_later_release")
        await database["streamline.memo"].drop()
        found = await app.ensure_indexes(check=True)
        before = await runs.index_information()
        assert shown(found) == {
            ("runs_due", "missing"),
            ("runs_active_key", "missing"),
            ("runs_lease", "different"),
            ("runs_waiting", "different"),
            ("runs_of_a_later_release", "unknown"),
            ("memo_expire", "missing"),
            ("memo_place", "missing"),
            ("memo_run", "missing"),
        }
        by_name = {each.index: each for each in found}
        assert by_name["runs_active_key"].unique
        assert not by_name["runs_due"].unique
        assert "lease.until 1" in by_name["runs_lease"].detail
        assert "partialFilterExpression" in by_name["runs_waiting"].detail
        assert by_name["runs_of_a_later_release"].is_harmless
        assert by_name["runs_due"].collection == "streamline.runs"
        assert await runs.index_information() == before
        assert "streamline.memo" not in await database.list_collection_names()


async def test_what_another_release_has_made_stays(make_app: Any, runs: Any) -> None:
    """A process of an older and one of a newer release open beside one another, again and again."""
    await opened(make_app)
    await runs.create_index([("later", 1)], name="runs_later")
    await runs.drop_index("runs_paused")
    before = await runs.index_information()
    await asyncio.gather(*(opened(make_app) for _ in range(4)))
    after = await runs.index_information()
    assert after.keys() == before.keys() | {"runs_paused"}


async def test_an_index_that_has_changed_is_named_with_the_remedy(make_app: Any, runs: Any) -> None:
    await runs.create_index([("route", 1), ("due_at", 1)], name="runs_due")
    with pytest.raises(IndexConflict) as refused:
        await opened(make_app)
    assert isinstance(refused.value, UnsafeDeployment)
    assert "runs_due: its keys are route 1, due_at 1" in str(refused.value)
    assert "runs_lease" not in str(refused.value)
    assert "drop it by hand" in str(refused.value)
    assert set(await runs.index_information()) == {"_id_", "runs_due"}


async def test_the_same_index_under_another_name_is_named(make_app: Any, runs: Any) -> None:
    await runs.create_index([("tenant_id", 1), ("created_at", -1), ("_id", -1)], name="mine")
    with pytest.raises(IndexConflict, match="runs_page: mine is the same one under another name"):
        await opened(make_app)


@pytest.mark.parametrize(
    ("more", "index"),
    [
        ({"active_key": "k"}, "runs_active_key"), ({"kept_key": "k"}, "runs_kept_key"),
        ({"slot_key": "s", "slot": 1}, "runs_slots"), ({"debounce_key": "d"}, "runs_debounce"),
    ],
)  # fmt: skip
async def test_what_stands_in_the_way_of_a_unique_index_is_listed(
    make_app: Any, runs: Any, more: dict[str, Any], index: str
) -> None:
    await runs.insert_many([draft(f"r{i}") | {**more, "tenant_id": f"t{i // 2}"} for i in range(14)])
    expected = "r0 and r13" if index in ("runs_slots", "runs_debounce") else " and "
    with pytest.raises(IndexConflict) as refused:
        await opened(make_app)
    said = str(refused.value)
    assert index in said
    assert expected in said
    assert said.count(" and r") <= 5
    assert "'k'" not in said


async def test_an_app_that_may_not_create_looks_only(
    make_app: Any, database: Any, runs: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UnsafeDeployment, match=r"runs_active_key \(missing\)") as refused:
        await opened(make_app, settings=LOOKS_ONLY)
    assert refused.value.field == "indexes"
    assert "streamline.wakes" not in await database.list_collection_names()
    await opened(make_app)
    caplog.clear()
    await opened(make_app, settings=LOOKS_ONLY)
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
    await runs.drop_index("runs_due")
    before = await runs.index_information()
    async with make_app(leaf(), settings=LOOKS_ONLY) as app:
        assert await app.run("leaf", 1, timeout="20s") == 1
        assert "runs_due (missing)" in caplog.text
        assert await runs.index_information() == before
    await runs.drop_index("runs_slots")
    with pytest.raises(UnsafeDeployment, match="runs_slots"):
        await opened(make_app, settings=LOOKS_ONLY)


async def test_without_its_collection_the_wake_channel_is_off(
    make_app: Any, database: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await opened(make_app, settings=Settings(wake_channel=False))
    async with make_app(leaf(), settings=LOOKS_ONLY, worker=Worker(poll_interval="100ms")) as app:
        assert await app.run("leaf", 1, timeout="20s") == 1
        found = await app.ensure_indexes(check=True)
    assert shown(found) == {("streamline.wakes", "missing")}
    assert "do not wake one another" in caplog.text
    assert "streamline.wakes" not in await database.list_collection_names()


async def test_an_index_is_built_for_as_long_as_it_takes(make_app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on the command would end the build at the server, at each attempt."""
    from streamline.store.driver import Driver

    limits, build = list[Any](), Driver.build

    async def watched(self: Driver, command: Any) -> None:
        from pymongo import _csot

        limits.append(_csot.get_timeout())
        await build(self, command)

    monkeypatch.setattr(Driver, "build", watched)
    await opened(make_app, settings=Settings(call_timeout="1s", patience="1s"))
    assert limits == [None] * len(INDEXES)


def test_whether_to_create_is_said_by_a_bool() -> None:
    with pytest.raises(InvalidPolicy):
        Settings(create_indexes="no")  # type: ignore[arg-type]


# From the command line


def said_by(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["indexes", *arguments])
    out, err = capsys.readouterr()
    return code, out + err


def test_the_command_creates_and_checks(
    mongo_uri: str, database_name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONGODB_URI", mongo_uri)
    where = ("--database", database_name, "--prefix", "mine")
    code, said = said_by(capsys, *where, "--check")
    assert code == 1
    assert f"{ALL} indexes are needed, {ALL + 1} are not as they should be" in said
    assert "missing  mine.runs" in said
    assert re.search(r"runs_active_key +unique", said)
    code, said = said_by(capsys, *where)
    assert (code, said.strip()) == (
        0,
        f"{database_name}, mine.*: {ALL} indexes are needed, 0 are not as they should be",
    )
    assert said_by(capsys, *where, "--check")[0] == 0
    with pymongo.MongoClient(mongo_uri) as client:
        runs = client[database_name]["mine.runs"]
        runs.create_index("x", name="runs_x")
        code, said = said_by(capsys, *where, "--check")
        assert (code, "unknown" in said, "left alone" in said) == (0, True, True)
        runs.drop_index("runs_due")
        runs.create_index("y", name="runs_due")
        code, said = said_by(capsys, *where, "--uri", mongo_uri)
        assert (code, "runs_due: its keys are y 1" in said) == (1, True)
        client.drop_database(database_name)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--uri", "http://nowhere"),
        ("--uri", "mongodb://localhost:1/?serverSelectionTimeoutMS=100", "--prefix", "9"),
        ("--uri", "mongodb://localhost:1", "--database", "x y$"),
        ("--uri", "mongodb://localhost:1/?tls=true&tlsCAFile=/nonexistent"),
    ],
)
def test_without_a_usable_database_the_command_says_so(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MONGODB_URI", raising=False)
    code, said = said_by(capsys, *arguments)
    assert (code, said.startswith("indexes: ")) == (2, True)


async def test_an_app_after_the_command_has_nothing_to_create(
    mongo_uri: str, database: Any, database_name: str
) -> None:
    await asyncio.to_thread(main, ["indexes", "--uri", mongo_uri, "--database", database_name])
    async with Streamline(mongo_uri, database=database_name, workflows=[leaf()], settings=LOOKS_ONLY) as app:
        assert await app.run("leaf", 2, timeout="20s") == 2
        assert await app.ensure_indexes(check=True) == []
