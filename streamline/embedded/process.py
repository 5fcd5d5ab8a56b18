"""Run a mongod under a guardian and know how it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from streamline.embedded import logfile
from streamline.embedded.countdown import Countdown
from streamline.errors import StoreUnavailable

_SCRIPT = Path(__file__).with_name("guardian.py")
_CLOSING = 15.0


class ServerExited(Exception):
    """The mongod ended by itself.

    Args:
        code: Its exit code; negative is a signal.
    """

    PORT_TAKEN = 48

    def __init__(self, code: int) -> None:
        super().__init__(f"mongod ended with exit code {code}")
        self.code = code


class GuardedProcess:
    """A guardian, which holds one data directory, and its mongod, which may come and go.

    Blocking, for use in threads. What the guardian reports is taken in by a thread of its own.

    Args:
        directory: The data.
        temporary: Whether the directory is deleted in the end.
    """

    def __init__(self, directory: Path, *, temporary: bool) -> None:
        self._changed = threading.Condition()
        self._held = False
        self._refusal: str | None = None
        self._pid: int | None = None
        self._code = 0
        self._spawns = 0
        self._gone = False
        self._noise: deque[str] = deque(maxlen=20)
        self._process = _start_guardian(directory, temporary=temporary)
        self._listener = threading.Thread(target=self._listen, name="streamline-embedded", daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int | None:
        """Process id of the mongod while it runs."""
        return self._pid

    @property
    def gone(self) -> bool:
        """Whether the guardian has ended, and its mongod with it."""
        return self._gone or self._process.poll() is not None

    def await_hold(self, countdown: Countdown) -> None:
        """Wait until the directory is ours.

        Raises:
            StoreUnavailable: Another app has it, or it cannot be created.
        """
        self._wait(lambda: self._held, countdown, field="path")

    def spawn(self, command: list[str], countdown: Countdown) -> None:
        """Start the mongod.

        Raises:
            StoreUnavailable: The binary cannot be executed.
        """
        before = self._spawns
        self._order({"spawn": command})
        self._wait(lambda: self._spawns > before, countdown)  # not `pid`: it may be gone again in no time

    def kill(self, countdown: Countdown) -> None:
        """SIGKILL the mongod and wait until it is gone; the directory stays held."""
        if self._pid is not None:
            self._order({"kill": True})
            self._wait(lambda: self._pid is None, countdown)

    def check(self) -> None:
        """Make sure that the mongod runs.

        Raises:
            ServerExited: It does not.
        """
        if self._pid is None:
            raise ServerExited(self._code)

    def close(self) -> None:
        """End the guardian: it kills the mongod and deletes what is temporary."""
        assert self._process.stdin is not None
        self._order({"end": True})  # in words, too: a forked child of the app may hold the pipe open
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_CLOSING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_CLOSING)
        self._listener.join(_CLOSING)

    def _order(self, order: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._refusal = None
        with suppress(OSError):  # the listener learns of its end, too
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()

    def _wait(self, settled: Callable[[], bool], countdown: Countdown, *, field: str | None = None) -> None:
        with self._changed:
            while not settled():
                if self._refusal is not None:
                    raise StoreUnavailable(self._refusal, field=field)
                if self._gone:
                    raise StoreUnavailable("\n".join(["the guardian of mongod ended unexpectedly", *self._noise]))
                self._changed.wait(min(0.1, countdown.left()))

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as reports:
            for line in reports:
                with self._changed:
                    self._take(line)
                    self._changed.notify_all()
        with self._changed:
            self._gone, self._pid = True, None
            self._changed.notify_all()

    def _take(self, line: bytes) -> None:
        try:
            match json.loads(line):
                case {"event": "held"}:
                    self._held = True
                case {"event": "refused" | "failed", "reason": str(reason)}:
                    self._refusal = reason
                case {"event": "spawned", "pid": int(pid)}:
                    self._pid, self._spawns = pid, self._spawns + 1
                case {"event": "exited", "code": int(code)}:
                    self._pid, self._code = None, code
                case _:  # a newer guardian may say more
                    pass
        except ValueError:  # not a report: the interpreter complains
            self._noise.append(line.decode(errors="replace").rstrip())


def _start_guardian(directory: Path, *, temporary: bool) -> subprocess.Popen[bytes]:
    log = directory / logfile.NAME
    settings = {"directory": str(directory), "log": str(log), "app": os.getpid(), "temporary": temporary}
    try:
        return subprocess.Popen(
            [_interpreter(), "-I", "-S", str(_SCRIPT), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the app
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
    except OSError as error:
        raise StoreUnavailable(f"the guardian of the embedded server cannot be started: {error}") from error


def _interpreter() -> str:
    # In a frozen app or inside a server that embeds Python, the executable is not an interpreter.
    if Path(sys.executable or "").name.lower().startswith(("python", "pypy")):
        return sys.executable
    found = shutil.which("python3") or shutil.which("python")
    if found is None:
        raise StoreUnavailable("the embedded server needs a Python interpreter on PATH to watch over it")
    return found
