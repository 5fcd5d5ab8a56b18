"""Processes that work for the benchmark: started, asked, and certainly ended."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.rows import Malfunction

ROOT = Path(__file__).parents[1]

_ANSWER_SECONDS = 60.0
_LINE_BYTES = 4 * 1024 * 1024


class Assistant:
    """A process that answers lines with lines of JSON."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def ask(self, order: str) -> dict[str, Any]:
        """Send an order and return the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{order}\n".encode())
        await self._process.stdin.drain()
        return await self.hear()

    async def hear(self, within: float = _ANSWER_SECONDS) -> dict[str, Any]:
        """Return the next line that the process says."""
        assert self._process.stdout is not None
        async with asyncio.timeout(within):
            line = await self._process.stdout.readline()
        if not line:
            raise Malfunction(f"process {self._process.pid} ended unexpectedly")
        answer: dict[str, Any] = json.loads(line)
        return answer


@asynccontextmanager
async def assistant(module: str, **options: object) -> AsyncIterator[Assistant]:
    """Run a module of this package in a process of its own, which is gone afterwards."""
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"benchmarks.{module}", *arguments, stdin=PIPE, stdout=PIPE, cwd=ROOT, limit=_LINE_BYTES
    )
    try:
        yield Assistant(process)
    finally:
        await _end(process)


@asynccontextmanager
async def worker(uri: str, database: str, **options: object) -> AsyncIterator[Assistant]:
    """Run a worker process that is ready to be opened."""
    async with assistant("worker_process", uri=uri, database=database, **options) as process:
        await process.hear()
        yield process


async def _end(process: Process) -> None:
    assert process.stdin is not None
    with suppress(ConnectionError):
        process.stdin.write(b"close\n")
        await process.stdin.drain()
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            await process.wait()
    finally:
        process.stdin.close()
        if process.returncode is None:
            process.kill()
            await process.wait()
