"""One mongod of a replica set: begun, killed, frozen, continued and asked how it is."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from streamline.embedded import find_mongod

TIED = Path(__file__).with_name("tied.py")
SET_NAME = "stress"


class Member:
    """One member; it dies with the test process.

    Args:
        directory: Its data.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.directory.mkdir(parents=True)
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.frozen = False
        self._process: subprocess.Popen[bytes] | None = None
        self._client: MongoClient[dict[str, Any]] | None = None

    @property
    def alive(self) -> bool:
        """Whether the process is there, frozen or not."""
        return self._process is not None and self._process.poll() is None

    def spawn(self) -> None:
        """Begin the process, on the data that it has."""
        options = {
            "dbpath": self.directory,
            "logpath": self.directory / "mongod.log",
            "bind_ip": "127.0.0.1",
            "port": self.port,
            "replSet": SET_NAME,
            "oplogSize": 64,
            "wiredTigerCacheSizeGB": 0.25,
            "wiredTigerEngineConfigString": "log=(file_max=16MB)",
            "setParameter": "diagnosticDataCollectionEnabled=false",
        }
        command = [str(find_mongod()), "--quiet", "--logappend", "--nounixsocket"]
        command += [str(part) for name, value in options.items() for part in (f"--{name}", value)]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(TIED), str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.frozen = False

    def kill(self) -> None:
        """SIGKILL the process and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
        self.frozen = False

    def freeze(self) -> None:
        """SIGSTOP the process: it keeps its connections and answers nothing."""
        self._signal(signal.SIGSTOP)
        self.frozen = True

    def thaw(self) -> None:
        """SIGCONT the process."""
        self._signal(signal.SIGCONT)
        self.frozen = False

    def ask(self, command: str, *, seconds: float = 1.0, **options: Any) -> dict[str, Any] | None:
        """Return the answer of this member to an administrative command, or None where there is none in time."""
        if not self.alive or self.frozen:
            return None
        if self._client is None:
            self._client = MongoClient(
                "127.0.0.1",
                self.port,
                directConnection=True,
                serverSelectionTimeoutMS=1000,
                connectTimeoutMS=1000,
                socketTimeoutMS=int(seconds * 1000) + 4000,
                retryReads=False,
            )
        with suppress(PyMongoError):
            return dict(self._client.admin.command(command, **options))
        return None

    def close(self) -> None:
        """Kill the process and give everything back but the data."""
        self.kill()
        if self._client is not None:
            self._client.close()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        assert self.alive, f"member {self.port} has ended"
        self._process.send_signal(number)


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens at."""
    # Below the range from which the system numbers outgoing connections: a dialling client must not be given the port.
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
