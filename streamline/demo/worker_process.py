"""A worker of the demonstration, in a process of its own: it works on runs until it is told to stop, or killed.

``python -m streamline.demo.worker_process <uri> <database>``. Every event that it writes leaves as a line on stdout.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading

from streamline import Event, Streamline, Worker
from streamline.demo.fulfilment import fulfilment

READY = "ready"
STOP = b"stop\n"
# A short lease, so that the runs of a killed worker are taken over while one watches.
WORKER = Worker(concurrency=6, lease="2s", drain="5s")


async def work(uri: str, database: str) -> None:
    """Work until told to stop."""
    told = asyncio.Event()
    threading.Thread(target=_obey, args=(asyncio.get_running_loop(), told), daemon=True).start()
    async with Streamline(uri, database=database, workflows=[fulfilment], worker=WORKER) as app:
        app.on("*", _report)
        print(READY, flush=True)
        await told.wait()


def _obey(loop: asyncio.AbstractEventLoop, told: asyncio.Event) -> None:
    """Hear what the demonstration says; its end, however it came about, is the end of this process, too.

    In a thread, which nothing that the worker does can hold up.
    """
    while order := os.read(0, 64):
        if order == STOP:
            loop.call_soon_threadsafe(told.set)
    os._exit(1)


def _report(event: Event) -> None:
    print(event.type, event.run_id, event.step or "", flush=True)


def main() -> None:
    """Run the worker that the command line describes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the demonstration sees to it
    logging.getLogger("streamline").setLevel(logging.ERROR)
    uri, database = sys.argv[1:]
    asyncio.run(work(uri, database))


if __name__ == "__main__":
    main()
