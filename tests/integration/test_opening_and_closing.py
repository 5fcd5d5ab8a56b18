"""An app's life: what it connects to, what it refuses, and that it always closes."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from pymongo import AsyncMongoClient, MongoClient
from pymongo.errors import InvalidOperation

from streamline import Context, Settings, Streamline, Worker, Workflow
from streamline.errors import (
    AlreadyRegistered,
    AppClosed,
    DefinitionError,
    InvalidPolicy,
    StoreUnavailable,
    UnsafeDeployment,
    WrongLoop,
)
from tests.integration.conftest import QUICK

pytestmark = pytest.mark.own_database


def echoing(version: str = "1.0.0") -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow("echo", version=version)

    @wf.step
    async def echo(ctx: Context[Any]) -> Any:
        return ctx.input

    return wf


async def test_leaving_right_after_a_start_does_not_hang(make_app: Any) -> None:
    async def visit() -> None:
        async with make_app(echoing()) as app:
            await asyncio.sleep(0.05)  # the scheduler waits for something to fall due
            await app.start("echo", delay="1h")

    await asyncio.wait_for(visit(), 15)


async def test_a_client_that_was_passed_in_stays_open(client: Any, database_name: str) -> None:
    wf = echoing()
    async with Streamline(client, database=database_name, workflows=[wf], worker=QUICK) as app:
        assert await app.run(wf, 1, timeout="20s") == 1
        assert app.database.name == database_name
    assert (await client.admin.command("ping"))["ok"] == 1


async def test_a_database_that_was_passed_in_is_used(database: Any) -> None:
    wf = echoing()
    async with Streamline(database, workflows=[wf], worker=QUICK) as app:
        await app.run(wf, 1, timeout="20s")
        assert app.database.name == database.name
    assert await database["streamline.runs"].count_documents({}) == 1


async def test_a_given_name_goes_before_that_of_the_database(client: Any, database: Any, database_name: str) -> None:
    wf = echoing()
    other = f"{database_name[:50]}_other"
    async with Streamline(database, database=other, workflows=[wf], worker=QUICK) as app:
        await app.run(wf, 1, timeout="20s")
    assert await database["streamline.runs"].count_documents({}) == 0
    assert await client[other]["streamline.runs"].count_documents({}) == 1
    await client.drop_database(other)


def uri_with(mongo_uri: str, database: str, **options: str) -> str:
    address, _, query = mongo_uri.partition("?")
    given = [part for part in query.split("&") if part and part.split("=")[0] not in options]
    return f"{address.rstrip('/')}/{database}?" + "&".join([*given, *(f"{k}={v}" for k, v in options.items())])


async def test_a_uri_names_the_database_and_its_client_is_closed(mongo_uri: str, database: Any) -> None:
    wf = echoing()
    uri = uri_with(mongo_uri, database.name)
    app = Streamline(uri, workflows=[wf], worker=QUICK)
    async with app:
        await app.run(wf, 1, timeout="20s")
        assert app.uri == uri
        inner = app.database
    with pytest.raises(InvalidOperation):
        await inner.command("ping")
    assert await database["streamline.runs"].count_documents({}) == 1


async def test_the_environment_names_the_database(mongo_uri: str, database: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("MONGODB_URI", uri_with(mongo_uri, database.name))
    wf = echoing()
    async with Streamline(workflows=[wf], worker=QUICK) as app:
        await app.run(wf, 1, timeout="20s")
    assert await database["streamline.runs"].count_documents({}) == 1


async def test_another_prefix_means_other_runs(make_app: Any, database: Any) -> None:
    wf = echoing()
    async with make_app(wf, prefix="other") as app:
        await app.run(wf, 1, timeout="20s")
        assert app.prefix == "other"
    assert await database["other.runs"].count_documents({}) == 1
    assert all(name.startswith("other.") for name in await database.list_collection_names())


async def test_an_app_can_be_opened_again(make_app: Any) -> None:
    wf = echoing()
    app = make_app(wf)
    for i in range(3):
        async with app:
            assert await app.run(wf, i, timeout="20s") == i


async def test_an_app_that_is_open_cannot_be_opened_again(make_app: Any) -> None:
    wf = echoing()
    app = make_app(wf)
    before = asyncio.all_tasks()
    async with app:
        with pytest.raises(Exception, match="open"):
            async with app:
                pass
        assert await app.run(wf, 1, timeout="20s") == 1
    assert not [task for task in asyncio.all_tasks() - before if "repeat" in repr(task)]


@pytest.mark.parametrize(
    "use",
    [
        lambda app: app.start("echo"),
        lambda app: app.start_many("echo", [1]),
        lambda app: app.run("echo"),
        lambda app: app.get("x"),
        lambda app: app.runs(),
        lambda app: app.count_runs(),
        lambda app: app.cancel("x"),
        lambda app: app.retry("x"),
        lambda app: app.pause("x"),
        lambda app: app.unpause("x"),
        lambda app: app.tick(),
        lambda app: app.ensure_indexes(),
        lambda app: app.handle("x").result(),
        lambda app: app.handle("x").wait(),
    ],
)
async def test_a_closed_app_refuses_every_verb(make_app: Any, use: Any) -> None:
    app = make_app(echoing())
    for _ in range(2):
        with pytest.raises(AppClosed):
            await use(app)
        async with app:
            pass


async def test_a_closed_app_has_no_database(make_app: Any) -> None:
    app = make_app(echoing())
    for ask in (lambda: app.database, lambda: app.uri):
        with pytest.raises(AppClosed):
            ask()


async def test_an_app_belongs_to_the_loop_it_was_opened_in(make_app: Any) -> None:
    app = make_app(echoing())

    async def elsewhere() -> None:
        await app.start("echo", 1)

    async with app:
        with pytest.raises(WrongLoop):
            await asyncio.to_thread(asyncio.run, elsewhere())


@pytest.mark.parametrize("target", [5, object(), {}, b"mongodb://x"], ids=lambda target: type(target).__name__)
async def test_what_is_no_target_is_refused(target: Any) -> None:
    with pytest.raises(UnsafeDeployment) as caught:
        async with Streamline(target):
            pass
    assert caught.value.field == "target"


@pytest.mark.parametrize(
    "uri",
    ["http://localhost", "localhost:27017", "mongodb://", "mongodb://h:port", "mongodb://[::1", "x"],
)
async def test_a_uri_that_makes_no_sense_is_refused(uri: str) -> None:
    with pytest.raises(UnsafeDeployment) as caught:
        async with Streamline(uri):
            pass
    assert caught.value.field == "target"


async def test_credentials_of_a_bad_uri_are_not_repeated() -> None:
    with pytest.raises(UnsafeDeployment) as caught:
        async with Streamline("mongodb://ann:hunter2@h:port/"):
            pass
    assert "hunter2" not in str(caught.value)


async def test_a_synchronous_client_is_refused(mongo_uri: str) -> None:
    with MongoClient(mongo_uri) as client, pytest.raises(UnsafeDeployment):
        async with Streamline(client):
            pass


async def test_a_client_without_retryable_writes_is_refused(mongo_uri: str) -> None:
    client = AsyncMongoClient(mongo_uri, retryWrites=False)
    try:
        with pytest.raises(UnsafeDeployment) as caught:
            async with Streamline(client):
                pass
    finally:
        await client.close()
    assert caught.value.field == "retryWrites"


async def test_a_uri_without_retryable_writes_is_refused(mongo_uri: str, database_name: str) -> None:
    with pytest.raises(UnsafeDeployment):
        async with Streamline(uri_with(mongo_uri, database_name, retryWrites="false")):
            pass


async def test_weak_concerns_of_the_client_do_not_weaken_the_engine(mongo_uri: str, database: Any) -> None:
    from pymongo.monitoring import CommandListener

    sent: list[Any] = []

    class Listener(CommandListener):
        def started(self, event: Any) -> None:
            sent.append((event.command_name, dict(event.command)))

        def succeeded(self, event: Any) -> None: ...

        def failed(self, event: Any) -> None: ...

    wf = echoing()
    client = AsyncMongoClient(
        mongo_uri,
        w=1,
        journal=False,
        readConcernLevel="local",
        readPreference="secondaryPreferred",
        event_listeners=[Listener()],
    )
    try:
        async with Streamline(client, database=database.name, workflows=[wf], worker=QUICK) as app:
            handle = await app.start(wf, 1, delay=0.05)
            assert await handle.result("20s") == 1
            assert (await app.runs()).items
            await app.count_runs()
    finally:
        await client.close()
    runs = [(name, command) for name, command in sent if command.get(name) == "streamline.runs"]
    writes = [command for name, command in runs if name in ("insert", "update", "findAndModify", "delete")]
    reads = [command for name, command in runs if name in ("find", "aggregate")]
    assert writes
    assert all(command["writeConcern"] == {"w": "majority", "j": True} for command in writes)
    assert {name for name, _ in runs} >= {"insert", "update", "find", "aggregate"}
    assert all(command["readConcern"]["level"] == "majority" for command in reads)
    assert all(command.get("$readPreference", {"mode": "primary"})["mode"] == "primary" for command in reads)


async def test_a_server_that_does_not_answer_is_reported_in_time(unused_tcp_port: int) -> None:
    settings = Settings(patience="300ms", call_timeout="200ms")
    uri = f"mongodb://127.0.0.1:{unused_tcp_port}/?serverSelectionTimeoutMS=100"
    with pytest.raises(StoreUnavailable) as caught:
        async with Streamline(uri, settings=settings):
            pass
    assert caught.value.http_status == 503


@pytest.mark.parametrize("bad", [5, "echo", object(), None], ids=["number", "text", "object", "none"])
def test_only_workflows_can_be_registered(bad: Any) -> None:
    with pytest.raises(DefinitionError):
        Streamline("mongodb://h", workflows=[bad])


def test_a_name_and_version_can_be_registered_once() -> None:
    wf = echoing()
    app = Streamline("mongodb://h", workflows=[wf, wf, echoing("2.0.0")])
    app.register(wf)
    with pytest.raises(AlreadyRegistered):
        app.register(echoing())


@pytest.mark.parametrize(
    "options",
    [
        {"worker": "yes"},
        {"worker": 5},
        {"settings": {}},
        {"prefix": ""},
        {"prefix": 5},
        {"prefix": "a$b"},
        {"prefix": "a\0"},
    ],
    ids=repr,
)
def test_options_that_make_no_sense_are_refused_at_once(options: Any) -> None:
    with pytest.raises((InvalidPolicy, DefinitionError)):
        Streamline("mongodb://h", **options)


async def test_a_body_that_raises_closes_the_app_too(make_app: Any) -> None:
    app = make_app(echoing())
    with pytest.raises(ValueError, match="of the body"):
        async with app:
            raise ValueError("of the body")
    with pytest.raises(AppClosed):
        await app.get("x")


async def test_leaving_leaves_no_tasks_behind(make_app: Any) -> None:
    before = asyncio.all_tasks()
    async with make_app(echoing()) as app:
        await app.run("echo", 1, timeout="20s")
    await asyncio.sleep(0)
    left = [task for task in asyncio.all_tasks() - before if "streamline" in repr(task)]
    assert not left


async def test_a_standalone_server_is_named_in_the_log(database: Any, caplog: Any, monkeypatch: Any) -> None:
    from streamline.store.driver import Driver

    real = Driver.command

    async def standalone(self: Driver, command: Any) -> Any:
        answer = await real(self, command)
        if "hello" in command:
            del answer["setName"]
            answer["arbiters"] = ["h:1"]
        return answer

    monkeypatch.setattr(Driver, "command", standalone)
    with caplog.at_level(logging.WARNING, "streamline.store"):
        async with Streamline(database, worker=False):
            pass
    assert "standalone" in caplog.text
    assert "arbiter" in caplog.text


async def test_a_server_that_is_too_old_is_refused(database: Any, monkeypatch: Any) -> None:
    from streamline.store.driver import Driver

    real = Driver.command

    async def old(self: Driver, command: Any) -> Any:
        answer = await real(self, command)
        return {**answer, "maxWireVersion": 9} if "hello" in command else answer

    monkeypatch.setattr(Driver, "command", old)
    with pytest.raises(UnsafeDeployment, match=r"5\.0"):
        async with Streamline(database):
            pass


async def test_the_clock_is_set_to_the_servers(database: Any, monkeypatch: Any) -> None:
    from datetime import timedelta

    from streamline.clock import SystemClock
    from streamline.store.driver import Driver

    real = Driver.command

    async def ahead(self: Driver, command: Any) -> Any:
        answer = await real(self, command)
        return {**answer, "localTime": answer["localTime"] + timedelta(hours=1)} if "hello" in command else answer

    monkeypatch.setattr(Driver, "command", ahead)
    clock, machine = SystemClock(), SystemClock()
    wf = echoing()
    async with Streamline(database, workflows=[wf], worker=Worker(), clock=clock) as app:
        run = await (await app.start(wf)).wait("20s")
    assert timedelta(minutes=59) < run.created_at - machine.now() < timedelta(minutes=61)
