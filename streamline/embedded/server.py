"""Start, stop and kill the private mongod of an app."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from streamline.embedded import logfile, ports, replica
from streamline.embedded.commandline import command_line
from streamline.embedded.countdown import Countdown
from streamline.embedded.locate import find_mongod
from streamline.embedded.process import GuardedProcess, ServerExited
from streamline.errors import StoreUnavailable

_KILLING = 10.0


class EmbeddedServer:
    """A real mongod for one app: a replica set of one node on the loopback interface, gone when the app is.

    It has no password: whoever may run processes on this machine can reach it. It is killed, never asked to shut down,
    so only what was acknowledged by majority, the default, or journalled is sure to be there when the path is opened
    again after a crash; `stop` flushes the rest, too.

    Args:
        path: Directory that keeps the data, one server at a time; None is a temporary one, deleted in the end.
        port: The port to use, 1 to 65535; None takes the one used last with this path, else any free one.
        start_timeout: Seconds within which the server must accept writes.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        port: int | None = None,
        start_timeout: float = 60.0,
    ) -> None:
        if port is not None and not 0 < port < 65_536:
            raise ValueError("port has to be between 1 and 65535")
        self._path = None if path is None else Path(path).expanduser().resolve()
        self._wanted_port = port
        self._start_timeout = start_timeout
        self._mutex = threading.Lock()
        self._cut = threading.Event()
        self._owner = os.getpid()
        self._guarded: GuardedProcess | None = None
        self._directory: Path | None = None
        self._port: int | None = None

    @property
    def uri(self) -> str:
        """Connection string of the server; it stays the same across `kill` and `start`.

        Raises:
            StoreUnavailable: The server was not started or is stopped.
        """
        if self._port is None:
            raise StoreUnavailable("the embedded server is not started: await start() first")
        return f"mongodb://127.0.0.1:{self._port}/?replicaSet={replica.SET_NAME}"

    @property
    def pid(self) -> int:
        """Process id of the mongod.

        Raises:
            StoreUnavailable: It does not run.
        """
        pid = self._guarded.pid if self._guarded else None
        if pid is None:
            raise StoreUnavailable("the embedded server does not run: await start() first")
        return pid

    async def start(self) -> str:
        """Start the server, or again after `kill` or a crash, and return its URI once it accepts majority writes.

        Raises:
            StoreUnavailable: There is no mongod, it does not start in time, or the path is in use.
        """
        cut = threading.Event()
        opening = asyncio.ensure_future(asyncio.to_thread(self._open, cut))
        try:
            await asyncio.wait([opening])
        except asyncio.CancelledError:
            cut.set()
            opening.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody asks how it went
            await asyncio.wait([opening])
            raise
        return opening.result()

    async def stop(self) -> None:
        """Kill the server and delete temporary data; without effect when it is stopped."""
        await asyncio.to_thread(self._close)

    async def kill(self) -> None:
        """SIGKILL the mongod, as a crash would, and keep everything else; `start` brings it back at the same URI."""
        await asyncio.to_thread(self._crash)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except asyncio.CancelledError:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _open(self, cut: threading.Event) -> str:
        self._forget_if_forked()
        with self._mutex:
            if self._runs():
                return self.uri
            self._cut = cut
            fresh = self._port is None
            try:
                self._boot(Countdown(self._start_timeout, cut))
            except BaseException:
                self._abandon(fresh=fresh)
                raise
            return self.uri

    def _close(self) -> None:
        self._forget_if_forked()
        self._cut.set()
        with self._mutex:
            if self._path is not None and self._port is not None and self._runs():
                replica.flush(self._port)
            self._release()

    def _crash(self) -> None:
        self._forget_if_forked()
        with self._mutex:
            self._kill()

    def _kill(self) -> None:
        if self._guarded is None:
            return
        try:
            self._guarded.kill(Countdown(_KILLING))
        except TimeoutError:
            raise StoreUnavailable(f"mongod was not gone {_KILLING:g} s after it was killed") from None

    def _runs(self) -> bool:
        # A mongod that somebody else has killed is known for dead only a moment later, and its port outlives it by
        # another: what counts is an answer.
        if self._guarded is None or self._guarded.gone or self._guarded.pid is None:
            return False
        return self._directory is not None and self._port is not None and replica.answers(self._port, self._directory)

    def _forget_if_forked(self) -> None:
        # A forked child has a copy of this object, but the server belongs to the parent.
        if self._owner != os.getpid():
            self._owner = os.getpid()
            self._mutex = threading.Lock()
            self._guarded = self._directory = self._port = None

    def _boot(self, countdown: Countdown) -> None:
        binary = find_mongod()
        self._directory = self._directory or self._path or _temporary()
        try:
            guarded = self._hold(self._directory, countdown)
            self._port = self._run(guarded, binary, self._directory, countdown)
        except TimeoutError:
            raise _failure(self._directory, f"mongod was not ready within {self._start_timeout:g} s") from None
        except ServerExited as error:
            raise _failure(self._directory, str(error)) from None

    def _hold(self, directory: Path, countdown: Countdown) -> GuardedProcess:
        if self._guarded is not None and self._guarded.gone:
            self._guarded.close()
            self._guarded = None
        if self._guarded is None:
            self._guarded = GuardedProcess(directory, temporary=self._path is None)
        self._guarded.await_hold(countdown)
        return self._guarded

    def _run(self, guarded: GuardedProcess, binary: Path, directory: Path, countdown: Countdown) -> int:
        for port in ports.candidates(directory, self._port or self._wanted_port, countdown.pause):
            try:
                _run_on(guarded, binary, directory, port, countdown)
            except ServerExited as error:
                if error.code != ServerExited.PORT_TAKEN:
                    raise
            else:
                ports.remember(directory, port)
                return port
        raise ServerExited(ServerExited.PORT_TAKEN)

    def _abandon(self, *, fresh: bool) -> None:
        if fresh:
            self._release()
            return
        with suppress(StoreUnavailable):  # the reason why the start failed is the one to tell
            self._kill()

    def _release(self) -> None:
        guarded, directory = self._guarded, self._directory
        self._guarded = self._directory = self._port = None
        if guarded is not None:
            guarded.close()
        if directory is not None and self._path is None:  # in case that the guardian was killed
            shutil.rmtree(directory, ignore_errors=True)


def _run_on(guarded: GuardedProcess, binary: Path, directory: Path, port: int, countdown: Countdown) -> None:
    def pause() -> None:
        guarded.check()
        countdown.pause(0.02)

    writable = False
    while not writable:
        guarded.kill(countdown)
        guarded.spawn(command_line(binary, directory, port), countdown)
        while not ports.is_listening(port):
            pause()
        writable = replica.make_writable(port, directory, pause)


def _failure(directory: Path, reason: str) -> StoreUnavailable:
    tail = logfile.tail(directory)
    return StoreUnavailable(f"{reason}; the end of its log:\n{tail}" if tail else reason)


def _temporary() -> Path:
    # Only a name: the guardian makes the directory, so that there is no moment in which nobody would delete it.
    return Path(tempfile.gettempdir()).resolve() / f"streamline-{secrets.token_hex(8)}"
