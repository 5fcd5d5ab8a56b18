"""Keep one mongod for an app and let nothing of it outlive the app.

A script, run by the app as ``python -I -S guardian.py <settings>``, with nothing but the standard library. Orders come
as JSON lines on stdin: ``{"spawn": [argument, ...]}``, ``{"kill": true}``, ``{"end": true}``. Reports leave on stdout:
held, refused, spawned, failed, exited. The app is gone when stdin ends, or when this process has another parent: a
forked child of the app may hold the pipe open for longer than the app lives. There is one thread only, because a server
tied to the life of its parent is in truth tied to the thread that started it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

_TICK = 0.25
_DEATH = 10.0  # seconds for a killed server to be gone
_PATIENCE_WITH_LIVING = 2.0  # seconds for an app that is just leaving
_PATIENCE_WITH_DEAD = 15.0  # seconds for the server of an app that was killed
_FILES = 64_000
_PR_SET_PDEATHSIG = 1


class Guardian:
    """The life of one data directory under one app.

    Args:
        directory: The data, created if missing.
        log: The server's log; the one of its predecessor is kept beside it.
        app: Process id of the app, the parent of this process.
        temporary: Whether the directory is deleted in the end.
    """

    def __init__(self, directory: str, log: str, app: int, *, temporary: bool) -> None:
        self._directory = directory
        self._log = log
        self._app = app
        self._temporary = temporary
        self._lock = -1
        self._server: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Hold the directory and obey until the app is gone."""
        try:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            refusal = self._claim()
        except OSError as error:
            refusal = f"{self._directory} cannot be used for data: {error.strerror}"
        if refusal is not None:
            _report("refused", reason=refusal)
            return
        try:
            _report("held")
            for order in self._orders():
                self._obey(order)
        finally:
            self._kill()
            if self._temporary:
                _remove(self._directory)

    def _claim(self) -> str | None:
        """Lock the directory; the server shares the lock, so it is free again only when both are dead."""
        self._lock = os.open(os.path.join(self._directory, "streamline.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        begin = time.monotonic()
        while not _try_lock(self._lock):
            owner = _read_owner(self._lock)
            patience = _PATIENCE_WITH_LIVING if _is_alive(owner) else _PATIENCE_WITH_DEAD
            if time.monotonic() - begin > patience or _has_input(0.05):  # no orders yet: input is the end of it
                return f"{self._directory} is in use by process {owner}; it can be opened once at a time"
        os.lseek(self._lock, 0, os.SEEK_SET)
        os.write(self._lock, b"%-20d" % self._app)
        return None

    def _orders(self) -> Iterator[dict[str, Any]]:
        pending = b""
        while sys.platform == "win32" or os.getppid() == self._app:
            self._notice_exit()
            if not _has_input(_TICK):
                continue
            chunk = os.read(0, 65_536)
            if not chunk:
                return
            *lines, pending = (pending + chunk).split(b"\n")
            for order in map(json.loads, lines):
                if "end" in order:
                    return
                yield order

    def _obey(self, order: dict[str, Any]) -> None:
        self._kill()
        if "spawn" in order:
            self._spawn(order["spawn"])

    def _spawn(self, command: list[str]) -> None:
        try:
            if os.path.exists(self._log):
                os.replace(self._log, self._log + ".1")
            with open(self._log, "ab") as log:
                self._server = self._start(command, log.fileno())
        except (OSError, subprocess.SubprocessError) as error:
            _report("failed", reason=f"{command[0]} cannot be run: {error}")
        else:
            _report("spawned", pid=self._server.pid)

    def _start(self, command: list[str], log: int) -> subprocess.Popen[bytes]:
        if sys.platform == "win32":
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,  # a wrapper script dies with what it runs
            pass_fds=(self._lock,),
            preexec_fn=_tie(),  # noqa: PLW1509 - there are no other threads
        )

    def _kill(self) -> None:
        if self._server is None:
            return
        if sys.platform == "win32":
            self._server.kill()
        elif self._server.returncode is None:  # not waited for, so the number is still its own
            os.killpg(self._server.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self._server.wait(_DEATH)
        self._notice_exit()

    def _notice_exit(self) -> None:
        if self._server is not None and self._server.poll() is not None:
            _report("exited", code=self._server.returncode)
            self._server = None


def _tie() -> Callable[[], None] | None:
    """Return what makes the kernel kill a child along with this process, where there is such a thing."""
    if sys.platform != "linux":
        return None
    try:
        import ctypes

        prctl = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return None
    me = os.getpid()

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != me:  # killed before it was tied
            os._exit(1)

    return tie


if sys.platform == "win32":
    import _winapi
    import msvcrt

    def _has_input(seconds: float) -> bool:
        time.sleep(min(seconds, 0.05))
        try:
            return bool(_winapi.PeekNamedPipe(msvcrt.get_osfhandle(0), 0)[0])
        except OSError:  # the other end is closed, and reading will say so
            return True

    def _try_lock(_lock: int) -> bool:
        return True  # mongod's own lock has to do

    def _lift_file_limit() -> None: ...

else:
    import fcntl
    import resource
    import select

    def _has_input(seconds: float) -> bool:
        return bool(select.select([0], [], [], seconds)[0])

    def _try_lock(lock: int) -> bool:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _lift_file_limit() -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            with suppress(OSError, ValueError):  # a hint of mongod's, not a condition
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _read_owner(lock: int) -> int:
    os.lseek(lock, 0, os.SEEK_SET)
    try:
        return int(os.read(lock, 20))
    except ValueError:  # it is about to be written
        return os.getpid()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:  # a killed app that nobody has waited for is as good as gone
            return stat.read().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return True


def _remove(directory: str) -> None:
    for folder, _, names in os.walk(directory, topdown=False):
        for path in [*(os.path.join(folder, name) for name in names), folder]:
            with suppress(OSError):
                os.rmdir(path) if path == folder else os.unlink(path)


def _report(event: str, **details: object) -> None:
    with suppress(OSError):  # if nobody listens any more, the end of stdin is about to say so
        os.write(1, json.dumps({"event": event, **details}).encode() + b"\n")


def _settle() -> None:
    """Leave the app's signals to the app: it has to drain before its server may go."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    os.chdir(os.sep)
    _lift_file_limit()


if __name__ == "__main__":
    _settle()
    Guardian(**json.loads(sys.argv[1])).run()
