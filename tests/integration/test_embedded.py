"""The embedded server: real writes, kept data, and never an orphan."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient, WriteConcern

from streamline.embedded import EmbeddedServer, find_mongod, ports
from streamline.errors import StoreUnavailable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

ROOT = Path(__file__).parents[2]
PATIENCE = 10.0
DEATH = 2.0  # seconds within which everything is gone after its app was killed
APP = """
import asyncio, json, os, signal, sys, time
from pymongo import AsyncMongoClient
from streamline.embedded import EmbeddedServer

async def main(path, mode):
    interrupted = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupted.set)
    server = EmbeddedServer(path or None)
    async with AsyncMongoClient(await server.start()) as client:
        await client.app.kept.insert_one({"_id": "started"})
        child = os.fork() if mode == "fork" else None
        if child == 0:
            time.sleep(600)
            os._exit(0)
        print(json.dumps({"uri": server.uri, "mongod": server.pid, "child": child}), flush=True)
        await interrupted.wait()
        await client.app.kept.insert_one({"_id": "drained"})
        print(json.dumps({"drained": True}), flush=True)
    await server.stop()

asyncio.run(main(*sys.argv[1:]))
"""


# What is there


def command_of(pid: int | str) -> list[str]:
    """The command line of a living process; a zombie has none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def processes_of(directory: Path) -> list[int]:
    """Guardian and mongod of a data directory."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if any(str(directory) in part for part in command_of(pid))]


def data_of(pid: int) -> Path:
    command = command_of(pid)
    return Path(command[command.index("--dbpath") + 1])


def guardian_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def listening_addresses(pid: int) -> set[str]:
    """Local addresses, hexadecimal as the kernel shows them, on which a process accepts TCP connections."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            inodes.add(os.readlink(descriptor).removeprefix("socket:[").removesuffix("]"))
    tables = [Path(f"/proc/{pid}/net/{name}") for name in ("tcp", "tcp6")]
    rows = [row.split() for table in tables if table.exists() for row in table.read_text().splitlines()[1:]]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes}


async def eventually(condition: Callable[[], object], *, within: float) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


async def gone(directory: Path, *, within: float = DEATH) -> None:
    await eventually(lambda: not processes_of(directory), within=within)


@asynccontextmanager
async def connected(uri: str) -> AsyncIterator[AsyncMongoClient[dict[str, Any]]]:
    async with AsyncMongoClient(uri, serverSelectionTimeoutMS=10_000) as client:
        yield client


async def write(uri: str, key: object, **concern: Any) -> None:
    durable = WriteConcern(**(concern or {"w": "majority", "j": True}))
    async with connected(uri) as client:
        await client["test"].get_collection("kept", write_concern=durable).insert_one({"_id": key})


async def read(uri: str, database: str = "test") -> list[object]:
    async with connected(uri) as client:
        return [document["_id"] async for document in client[database]["kept"].find(sort={"_id": 1})]


# An app in a process of its own


@dataclass
class App:
    process: subprocess.Popen[bytes]
    uri: str
    mongod: int
    child: int | None
    data: Path

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)


Launch = Callable[..., subprocess.Popen[bytes]]
Ready = Callable[..., Awaitable[App]]


@pytest.fixture
def launch() -> Iterator[Launch]:
    started: list[subprocess.Popen[bytes]] = []

    def launch(path: Path | str = "", mode: str = "") -> subprocess.Popen[bytes]:
        command = [sys.executable, "-W", "ignore", "-c", APP, str(path), mode]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, start_new_session=True))
        return started[-1]

    yield launch
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # forked children, too
        process.communicate(timeout=PATIENCE)


@pytest.fixture
def app(launch: Launch) -> Ready:
    async def ready(path: Path | str = "", mode: str = "") -> App:
        process = launch(path, mode)
        assert process.stdout is not None
        told = json.loads(await asyncio.to_thread(process.stdout.readline))
        return App(process, **told, data=data_of(told["mongod"]))

    return ready


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer() as server:
        yield server


# Start


async def test_accepts_majority_writes_as_soon_as_it_is_started() -> None:
    async with EmbeddedServer() as server:
        await write(server.uri, 1, w="majority", j=True)
        assert await read(server.uri) == [1]


async def test_is_a_replica_set_of_one_on_loopback_only(server: EmbeddedServer) -> None:
    async with connected(server.uri) as client:
        hello = await client.admin.command("hello")
    assert hello["setName"] == "streamline"
    assert hello["hosts"] == [server.uri.removeprefix("mongodb://").partition("/")[0]]
    assert listening_addresses(server.pid) == {"0100007F"}
    assert not list(Path(tempfile.gettempdir()).glob(f"mongodb-{hello['hosts'][0].partition(':')[2]}.sock"))


async def test_takes_a_document_of_the_largest_size(server: EmbeddedServer) -> None:
    async with connected(server.uri) as client:
        await client["test"]["large"].insert_one({"_id": 1, "content": os.urandom(16_000_000)})
        await client["test"]["large"].update_one({"_id": 1}, {"$set": {"touched": True}})


async def test_start_is_idempotent_even_at_the_same_time() -> None:
    server = EmbeddedServer()
    try:
        uris = await asyncio.gather(*(server.start() for _ in range(3)))
        pid = server.pid
        assert {*uris, await server.start()} == {server.uri}
        assert server.pid == pid
        assert len(processes_of(data_of(pid))) == 2
    finally:
        await server.stop()


async def test_leaves_the_event_loop_free_while_it_starts() -> None:
    turns = 0
    async with EmbeddedServer() as server:
        await server.kill()
        opening = asyncio.create_task(server.start())
        while not opening.done():
            await asyncio.sleep(0.01)
            turns += 1
    assert turns > 10


async def test_stop_deletes_temporary_data_and_is_idempotent() -> None:
    server = EmbeddedServer()
    await server.stop()
    await server.start()
    data = data_of(server.pid)
    assert data.is_dir()
    await server.stop()
    await server.stop()
    assert not data.exists()
    assert not processes_of(data)


async def test_says_that_it_is_not_started() -> None:
    server = EmbeddedServer()
    with pytest.raises(StoreUnavailable, match="not started"):
        _ = server.uri
    with pytest.raises(StoreUnavailable, match="does not run"):
        _ = server.pid


async def test_a_cancelled_start_leaves_nothing(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    opening = asyncio.create_task(server.start())
    await eventually(lambda: len(processes_of(tmp_path)) == 2, within=10)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert not processes_of(tmp_path)


# Kept data


async def test_keeps_data_and_port_across_stop(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path / "new" / "data") as server:
        uri = server.uri
        await write(uri, 1)
        await write(uri, 2, w=1, j=False)  # stop flushes what nobody has waited for
    async with EmbeddedServer(tmp_path / "new" / "data") as server:
        assert await read(server.uri) == [1, 2]
        assert server.uri == uri


async def test_kill_keeps_data_and_start_returns_the_same_uri(server: EmbeddedServer) -> None:
    uri, pid = server.uri, server.pid
    for key in range(2):
        await write(uri, key)
        await server.kill()
        with pytest.raises(StoreUnavailable, match="does not run"):
            _ = server.pid
        await server.kill()
        assert await server.start() == uri
    assert server.pid != pid
    assert await read(uri) == [0, 1]


async def test_start_revives_a_server_that_was_killed_from_outside(server: EmbeddedServer) -> None:
    uri, pid = server.uri, server.pid
    await write(uri, 1)
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: not command_of(pid), within=DEATH)
    assert await server.start() == uri
    assert await read(uri) == [1]


async def test_a_killed_guardian_takes_the_server_along_and_start_brings_both_back(server: EmbeddedServer) -> None:
    uri, pid = server.uri, server.pid
    data = data_of(pid)
    await write(uri, 1)
    os.kill(guardian_of(pid), signal.SIGKILL)
    await gone(data)
    assert await server.start() == uri
    assert await read(uri) == [1]
    assert len(processes_of(data)) == 2


async def test_keeps_data_when_the_app_is_killed_and_opens_again_at_once(app: Ready, tmp_path: Path) -> None:
    killed = await app(tmp_path)
    killed.process.kill()  # not even waited for
    async with EmbeddedServer(tmp_path) as server:
        assert await read(server.uri, "app") == ["started"]
        assert server.uri == killed.uri


@pytest.mark.parametrize("answers", [True, False], ids=["closing", "silent"])
async def test_moves_to_another_port_when_the_old_one_is_taken(tmp_path: Path, *, answers: bool) -> None:
    async with EmbeddedServer(tmp_path) as server:
        uri = server.uri
        await write(uri, 1)
        await server.kill()  # so that the data has to be recovered after the move
    port = int(uri.partition("/?")[0].rpartition(":")[2])
    stranger = await asyncio.start_server(lambda _, w: w.close() if answers else None, "127.0.0.1", port)
    begin = time.monotonic()
    try:
        async with EmbeddedServer(tmp_path) as server:
            assert server.uri != uri
            assert await read(server.uri) == [1]
            await write(server.uri, 2)
            moved = server.uri
    finally:
        stranger.close()
    assert time.monotonic() - begin < 20  # not the 30 s for which a mongod waits for silence
    async with EmbeddedServer(tmp_path) as server:
        assert server.uri == moved
        assert await read(server.uri) == [1, 2]


# One at a time


async def test_a_second_app_is_refused_quickly_and_does_no_harm(app: Ready, tmp_path: Path) -> None:
    first = await app(tmp_path)
    begin = time.monotonic()
    with pytest.raises(StoreUnavailable, match=rf"in use by process {first.process.pid}") as refused:
        await EmbeddedServer(tmp_path).start()
    assert time.monotonic() - begin < 8
    assert refused.value.field == "path"
    await write(first.uri, 1)
    assert sorted(processes_of(tmp_path)) == sorted([first.process.pid, first.mongod, guardian_of(first.mongod)])


async def test_a_path_that_cannot_hold_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match="cannot be used for data"):
        await EmbeddedServer(tmp_path / "file" / "data").start()


async def test_uses_the_port_it_is_given_or_says_that_it_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StoreUnavailable, match=f"port {port} of 127.0.0.1 is taken") as refused:
            await EmbeddedServer(tmp_path, port=port).start()
    assert refused.value.field == "port"
    async with EmbeddedServer(tmp_path, port=port) as server:
        assert f":{port}/" in server.uri
    with pytest.raises(ValueError, match="port"):
        EmbeddedServer(port=70_000)


async def test_leaves_a_stranger_alone_who_was_faster_on_the_port(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(server.uri.partition("/?")[0].rpartition(":")[2])
    free = list(ports.candidates(Path("nowhere"), None, lambda _: None))
    monkeypatch.setattr(ports, "candidates", lambda *_: [port, *free])
    async with EmbeddedServer() as other:
        await write(other.uri, 1)
        assert other.uri != server.uri
    assert await read(server.uri) == []


# Never an orphan


async def test_nothing_is_left_when_the_app_is_killed(app: Ready) -> None:
    killed = await app()
    assert killed.data.is_dir()
    killed.kill()
    await gone(killed.data)
    await eventually(lambda: not killed.data.exists(), within=DEATH)


async def test_nothing_is_left_when_the_app_is_killed_while_it_starts(launch: Launch, tmp_path: Path) -> None:
    for expected in (2, 3):  # the app and its guardian; and mongod
        process = launch(tmp_path)
        await eventually(lambda count=expected: len(processes_of(tmp_path)) >= count, within=20)
        process.kill()
        process.wait(PATIENCE)
        await gone(tmp_path)


async def test_a_forked_child_does_not_keep_the_server_alive(app: Ready) -> None:
    killed = await app(mode="fork")
    killed.kill()
    assert killed.child is not None
    assert command_of(killed.child)
    await eventually(lambda: not command_of(killed.mongod), within=DEATH)
    await eventually(lambda: not killed.data.exists(), within=DEATH)


async def test_a_forked_child_does_not_hold_up_stop(app: Ready) -> None:
    stopped = await app(mode="fork")
    stopped.process.send_signal(signal.SIGINT)
    await asyncio.to_thread(stopped.process.wait, PATIENCE)
    assert not command_of(stopped.mongod)
    assert not stopped.data.exists()
    assert stopped.child is not None
    assert command_of(stopped.child)


async def test_a_forked_child_cannot_stop_the_server_of_its_parent(server: EmbeddedServer) -> None:
    child = os.fork()
    if child == 0:
        server._close()
        server._crash()
        os._exit(0)
    await eventually(lambda: os.waitpid(child, os.WNOHANG)[0] == child, within=10)
    await write(server.uri, 1)


async def test_an_interrupted_app_can_still_write_while_it_drains(app: Ready, tmp_path: Path) -> None:
    interrupted = await app(tmp_path)
    assert os.getsid(interrupted.mongod) != os.getsid(interrupted.process.pid)
    os.killpg(interrupted.process.pid, signal.SIGINT)
    assert await asyncio.to_thread(interrupted.process.wait, PATIENCE) == 0
    assert not command_of(interrupted.mongod)
    async with EmbeddedServer(tmp_path) as server:
        assert await read(server.uri, "app") == ["drained", "started"]


# The binary


def script(folder: Path, content: str) -> Path:
    folder.mkdir(parents=True)
    binary = folder / "mongod"
    binary.write_text(content)
    binary.chmod(0o700)
    return binary


def test_prefers_the_named_binary_then_the_path_then_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named, installed = script(tmp_path / "named", "#!/bin/sh\n"), script(tmp_path / "installed", "#!/bin/sh\n")
    bundled = script(tmp_path / "site" / "fiftyone" / "db" / "bin", "#!/bin/sh\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    monkeypatch.setenv("PATH", str(installed.parent))
    monkeypatch.setenv("STREAMLINE_MONGOD", str(named))
    assert find_mongod() == named
    monkeypatch.delenv("STREAMLINE_MONGOD")
    assert find_mongod() == installed
    monkeypatch.setenv("PATH", "")
    assert find_mongod() == bundled
    assert "fiftyone" not in sys.modules


async def test_says_what_to_do_when_there_is_no_binary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STREAMLINE_MONGOD", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(StoreUnavailable) as missing:
        await EmbeddedServer().start()
    for part in ('pip install "streamline-mongo[embedded]"', "PATH", "mongodb://", "MONGODB_URI", os.uname().machine):
        assert part in str(missing.value)


def test_a_named_binary_that_is_missing_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLINE_MONGOD", "/nowhere/mongod")
    with pytest.raises(StoreUnavailable, match="STREAMLINE_MONGOD"):
        find_mongod()


async def test_a_broken_binary_shows_what_it_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = script(tmp_path / "bin", "#!/bin/sh\necho cannot find libcrypto >&2\nexit 3\n")
    monkeypatch.setenv("STREAMLINE_MONGOD", str(broken))
    with pytest.raises(StoreUnavailable, match=r"exit code 3.*\n.*cannot find libcrypto"):
        await EmbeddedServer(tmp_path / "data").start()
    assert not processes_of(tmp_path)


async def test_a_file_that_is_no_binary_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLINE_MONGOD", str(script(tmp_path / "bin", "\x7fELF nonsense")))
    with pytest.raises(StoreUnavailable, match="cannot be run"):
        await EmbeddedServer(tmp_path / "data").start()
    assert not processes_of(tmp_path)


async def test_a_server_that_never_answers_is_given_up_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mute = script(tmp_path / "bin", "#!/bin/sh\necho still loading\nsleep 600\n")
    monkeypatch.setenv("STREAMLINE_MONGOD", str(mute))
    begin = time.monotonic()
    with pytest.raises(StoreUnavailable, match=r"not ready within 0.7 s.*\n.*still loading"):
        await EmbeddedServer(tmp_path / "data", start_timeout=0.7).start()
    assert time.monotonic() - begin < 5
    assert not processes_of(tmp_path)


async def test_data_that_mongod_refuses_shows_the_reason(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path) as server:
        await server.kill()
    (tmp_path / "WiredTiger.turtle").write_text("nonsense")
    shutil.rmtree(tmp_path / "journal")
    with pytest.raises(StoreUnavailable, match=r"(?s)exit code.*WiredTiger"):
        await EmbeddedServer(tmp_path).start()
    assert not processes_of(tmp_path)
