"""The crawl of the examples in real processes, the first of which is killed: what was stored is not fetched again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.waiting import eventually

CRAWL = Path(__file__).parents[2] / "examples" / "crawl.py"
PAGES = 200
AT_ONCE = 8  # as the example says
BODY = b"a page of 24 characters."


class Site(ThreadingHTTPServer):
    """Counts what is fetched of it, by path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.fetched: Counter[str] = Counter()


class Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.fetched[self.path] += 1
        time.sleep(0.02)  # so that a kill finds some in flight
        try:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(BODY)
        except OSError:
            pass  # whoever asked was killed

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextmanager
def crawling(site: Site, uri: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(CRAWL), f"http://127.0.0.1:{site.server_port}"],
        env=os.environ | {"MONGODB_URI": uri},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def stored_pages(database: Any) -> set[str]:
    """The paths of the pages that are stored, in the run or beside it."""
    run = await database["streamline.runs"].find_one({})
    entries = dict((run or {"steps": [{}]})["steps"][0].get("memo", {}))
    async for document in database["streamline.memo"].find({}):
        entries[document["address"]] = document["entry"]
    found = (re.fullmatch(r"pages\[(\d+)\]", address) for address in entries)
    return {f"/{each[1]}" for each in found if each is not None}


@pytest.mark.slow
@pytest.mark.parametrize("kill_after", [30, 130])  # before the memo spills to its own collection, and after
async def test_no_stored_page_is_fetched_again_after_a_kill(
    mongo_uri: str, database_name: str, database: Any, site: Site, kill_after: int
) -> None:
    uri = urlunsplit(urlsplit(mongo_uri)._replace(path=f"/{database_name}"))
    with crawling(site, uri) as first:
        await eventually(lambda: len(site.fetched) >= kill_after)
        first.kill()
        first.wait()
    kept, begun = await stored_pages(database), dict(site.fetched)
    assert 0 < len(kept) <= len(begun) < PAGES

    with crawling(site, uri) as second:
        out, err = await eventually_ended(second)
    assert out == f"going on\n{PAGES * len(BODY)} bytes\n", err
    assert err == "1 runs had lost their worker and were taken over\n"
    assert site.fetched.keys() == {f"/{n}" for n in range(PAGES)}
    assert {path for path in kept if site.fetched[path] != 1} == set()
    again = {path: count for path, count in site.fetched.items() if count > 1}
    assert again.keys() <= begun.keys() - kept
    assert len(again) <= 2 * AT_ONCE  # in flight, or fetched and about to be stored
    assert set(again.values()) <= {2}
    assert await database["streamline.runs"].count_documents({}) == 1


async def eventually_ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    await eventually(lambda: process.poll() is not None, within=60)
    return process.communicate()
