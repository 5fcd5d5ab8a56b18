"""Starts runs from a process of its own: ``python -m benchmarks.starter_process``, for an idle worker elsewhere.

Prints one line of JSON: per run its id and when the start had returned, and how long raw updates took in between. It
dies at once when its input ends, so it never outlives the benchmark.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import threading
import time
from typing import Any

from pymongo import AsyncMongoClient

from benchmarks.flows import single_step
from benchmarks.raw import Raw
from streamline import Streamline

_PAUSE = (0.02, 0.06)


async def start_runs(options: argparse.Namespace) -> dict[str, Any]:
    """Start runs one by one, with pauses in which the worker has nothing to do."""
    flow = single_step(lambda _: None, options.workflow)
    returned: dict[str, int] = {}
    raw_seconds: list[float] = []
    async with (
        AsyncMongoClient[dict[str, Any]](options.uri, tz_aware=True) as client,
        Streamline(client, database=options.database, workflows=[flow], worker=False) as app,
    ):
        raw = Raw(client, options.database)
        await raw.prepare()
        for _ in range(options.count):
            await asyncio.sleep(random.uniform(*_PAUSE))
            began = time.perf_counter()
            await raw.update(0)
            raw_seconds.append(time.perf_counter() - began)
            await asyncio.sleep(random.uniform(*_PAUSE))
            handle = await app.start(flow)
            returned[handle.id] = time.monotonic_ns()
        await asyncio.sleep(1.0)
    return {"returned": returned, "raw": raw_seconds}


def die_when_told() -> None:
    """End this process when its input says anything, or ends."""
    os.read(0, 1024)
    os._exit(1)


def main() -> None:
    """Read the command line, start the runs, and say when."""
    parser = argparse.ArgumentParser(prog="benchmarks.starter_process")
    parser.add_argument("--uri", required=True)
    parser.add_argument("--database", required=True)
    parser.add_argument("--workflow", required=True)
    parser.add_argument("--count", type=int, required=True)
    threading.Thread(target=die_when_told, daemon=True).start()
    print(json.dumps(asyncio.run(start_runs(parser.parse_args()))), flush=True)


if __name__ == "__main__":
    main()
