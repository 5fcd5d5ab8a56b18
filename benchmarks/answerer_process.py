"""Answers waits from a process of its own: ``python -m benchmarks.answerer_process``, for a worker elsewhere.

It understands ``resume``, ``resume_hook`` and ``send_event``, each with a run's id or a hook's token, and ``close``,
one per line. It says with a line of JSON when the verb was called, when it had returned, and how long a raw update
took just before. It dies at once when its input ends, so it never outlives the benchmark.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

from pymongo import AsyncMongoClient

from benchmarks.raw import Raw
from benchmarks.worker_process import answer, next_order
from streamline import Streamline

EVENT = "answered"

_PAUSE = (0.02, 0.06)
_PAYLOAD = {"answer": 1}


async def serve(options: argparse.Namespace) -> None:
    """Answer what is asked for until told to close."""
    async with (
        AsyncMongoClient[dict[str, Any]](options.uri, tz_aware=True) as client,
        Streamline(client, database=options.database, worker=False) as app,
    ):
        raw = Raw(client, options.database)
        await raw.prepare()
        answer({"ready": True})
        while (order := await next_order()) != "close":
            verb, _, address = order.partition(" ")
            answer(await _timed(raw, verbs(app)[verb], address))
        answer({"closed": True})


def verbs(app: Streamline) -> dict[str, Callable[[str], Awaitable[Any]]]:
    """Return what answers a wait, by the name of the verb."""
    return {
        "resume": lambda run_id: app.resume(run_id, _PAYLOAD),
        "resume_hook": lambda token: app.resume_hook(token, _PAYLOAD),
        "send_event": lambda run_id: app.send_event(EVENT, _PAYLOAD, run_id=run_id),
    }


async def _timed(raw: Raw, verb: Callable[[str], Awaitable[Any]], address: str) -> dict[str, Any]:
    """The pauses leave the worker, and the processor, nothing to do."""
    await asyncio.sleep(random.uniform(*_PAUSE))
    began = time.perf_counter()
    await raw.update(0)
    seconds = time.perf_counter() - began
    await asyncio.sleep(random.uniform(*_PAUSE))
    called = time.monotonic_ns()
    await verb(address)
    return {"called": called, "returned": time.monotonic_ns(), "raw": seconds}


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="benchmarks.answerer_process")
    parser.add_argument("--uri", required=True)
    parser.add_argument("--database", required=True)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
