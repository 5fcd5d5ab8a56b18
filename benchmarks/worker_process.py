"""A worker in a process of its own: ``python -m benchmarks.worker_process``, told what to do on its standard input.

It understands ``open``, ``mark`` (count anew), ``report`` and ``close``, one per line, and answers each with a line of
JSON. It dies at once when its input ends, so it never outlives the benchmark.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Any

from pymongo import AsyncMongoClient

from benchmarks.counting import CommandCounter
from benchmarks.flows import noop, single_step, sleeper
from benchmarks.ledger import Ledger
from streamline import Streamline, Worker, Workflow


class Marks:
    """What has happened since the last mark."""

    def __init__(self, counter: CommandCounter) -> None:
        self._counter = counter
        self.mark()

    def mark(self) -> None:
        """Count from now on."""
        self._counter.clear()
        self._at, self._cpu = time.monotonic(), time.process_time()

    def report(self) -> dict[str, Any]:
        """Return the counts."""
        counter = self._counter
        return {
            "seconds": time.monotonic() - self._at,
            "cpu": time.process_time() - self._cpu,
            "rss": resident_bytes(),
            "commands": counter.total,
            "by_name": dict(counter.commands),
            "find_ms": mean(counter.find_micros) / 1_000 if counter.find_micros else 0.0,
            "picked": counter.picked,
            "won": counter.won,
        }


def resident_bytes() -> int:
    """Return how much memory this process occupies."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * 4096


def workflows_of(options: argparse.Namespace) -> list[Workflow[Any, Any, Any]]:
    """Return what the worker serves: the measured workflows, and as many others as were asked for."""
    ledger = Ledger(options.ledger) if options.ledger else None
    single = single_step(ledger.enter if ledger else lambda _: None)
    others = [single_step(lambda _: None, f"other-{number}") for number in range(options.others)]
    return [single, noop, sleeper, *others]


async def serve(options: argparse.Namespace) -> None:
    """Carry out what is asked for until told to close."""
    counter = CommandCounter()
    async with AsyncMongoClient[dict[str, Any]](options.uri, tz_aware=True, event_listeners=[counter]) as client:
        await client.admin.command("ping")
        app = Streamline(
            client,
            database=options.database,
            workflows=workflows_of(options),
            worker=Worker(concurrency=options.concurrency),
        )
        answer({"ready": True})
        marks, is_open = Marks(counter), False
        try:
            while (order := await next_order()) != "close":
                if order == "open":
                    await app.__aenter__()
                    is_open = True
                elif order == "mark":
                    marks.mark()
                answer(marks.report())
        finally:
            if is_open:
                await app.__aexit__(None, None, None)
        answer({"closed": True})


async def next_order() -> str:
    """Return the next line of the input; its end means that the benchmark is gone."""
    line: str = await asyncio.to_thread(sys.stdin.readline)
    if not line:
        os._exit(1)
    return line.strip()


def answer(said: dict[str, Any]) -> None:
    """Print a line of JSON."""
    print(json.dumps(said), flush=True)


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="benchmarks.worker_process")
    parser.add_argument("--uri", required=True)
    parser.add_argument("--database", required=True)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--others", type=int, default=0)
    parser.add_argument("--ledger", type=Path)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
