"""The worker processes of the demonstration, seen from the process that starts, kills and stops them."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from streamline.demo import worker_process

_STARTING = 30.0  # seconds until a worker must be ready
_STOPPING = 10.0  # seconds for a worker to finish what it does

OnEvent = Callable[[str, str], None]


class WorkersLost(Exception):
    """There are fewer workers than the demonstration needs."""


class Staff:
    """Some worker processes, from entering to leaving; none survives this object or its process.

    Args:
        size: How many.
        arguments: What each is started with.
        environment: Added to this process's environment.
        on_event: Called with the type of every event that a worker writes, and the run's id.
    """

    def __init__(self, size: int, arguments: tuple[str, ...], environment: dict[str, str], on_event: OnEvent) -> None:
        self._size = size
        self._command = (sys.executable, "-m", worker_process.__name__, *arguments)
        self._environment = {**os.environ, **environment}
        self._on_event = on_event
        self._workers: list[Process] = []
        self._listening: list[asyncio.Task[None]] = []

    @property
    def alive(self) -> list[int]:
        """The ids of the processes at work."""
        return [worker.pid for worker in self._workers if worker.returncode is None]

    async def __aenter__(self) -> Self:
        try:
            for _ in range(self._size):
                self._workers.append(await self._hire())
            await asyncio.wait_for(asyncio.gather(*map(_readiness, self._workers)), _STARTING)
        except TimeoutError:
            await self._end()
            raise WorkersLost(f"the worker processes were not ready within {_STARTING:g} s") from None
        except BaseException:
            await self._end()
            raise
        self._listening = [asyncio.ensure_future(self._listen(worker)) for worker in self._workers]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await asyncio.gather(*(_dismiss(worker) for worker in self._workers if worker.returncode is None))
        await self._end()

    async def kill_one(self) -> int:
        """SIGKILL the first worker that is alive, in the middle of whatever it does; return its process id."""
        victim = next(worker for worker in self._workers if worker.returncode is None)
        victim.kill()
        await victim.wait()
        return victim.pid

    async def _hire(self) -> Process:
        return await asyncio.create_subprocess_exec(*self._command, stdin=PIPE, stdout=PIPE, env=self._environment)

    async def _listen(self, worker: Process) -> None:
        assert worker.stdout is not None
        async for line in worker.stdout:
            kind, run_id, *_ = *line.decode().split(), "", ""  # a killed worker may leave half a line
            self._on_event(kind, run_id)

    async def _end(self) -> None:
        for worker in self._workers:
            if worker.returncode is None:
                with suppress(ProcessLookupError):
                    worker.kill()
        await asyncio.gather(*(worker.wait() for worker in self._workers))
        for task in self._listening:
            task.cancel()
        await asyncio.gather(*self._listening, return_exceptions=True)


async def _readiness(worker: Process) -> None:
    assert worker.stdout is not None
    if (await worker.stdout.readline()).decode().strip() != worker_process.READY:
        raise WorkersLost(f"worker process {worker.pid} ended before it was ready")


async def _dismiss(worker: Process) -> None:
    """Ask a worker to stop; its stdin stays open until it has, because the end of that would be the worker's, too."""
    assert worker.stdin is not None
    with suppress(ConnectionError, TimeoutError):
        worker.stdin.write(worker_process.STOP)
        await worker.stdin.drain()
        await asyncio.wait_for(worker.wait(), _STOPPING)
