"""A crawl of 200 pages that goes on where it was, whatever became of the process that began it.

Run ``python examples/crawl.py``. It uses the database that MONGODB_URI names, or else a private one. With MONGODB_URI
set, kill it at any moment and run it again: no page that was stored is fetched a second time.

With a URL it crawls the pages 0 to 199 below that; without one it serves them itself.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import urlopen

from pydantic import BaseModel

from streamline import Context, Streamline, Worker, Workflow

PORT = 8765


class Site(BaseModel):
    url: str
    pages: int = 200


class Page(BaseModel):
    url: str
    size: int


crawls = Workflow("crawl", input=Site, idempotency_key=lambda site: site.url)


def fetch(url: str, index: int) -> Page:  # a plain function runs in a thread, so it may block
    with urlopen(url, timeout=10) as response:
        return Page(url=url, size=len(response.read()))


@crawls.step
async def crawl(ctx: Context[Site]) -> int:
    urls = [f"{ctx.input.url}/{n}" for n in range(ctx.input.pages)]
    pages = await ctx.each("pages", urls, fetch, concurrency=8)  # each page is stored as soon as it is there
    return sum(page.size for page in pages)


class Pages(BaseHTTPRequestHandler):
    """Stands in for the site."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"a page\n")

    def log_message(self, format: str, *args: object) -> None: ...


async def main(url: str) -> None:
    # A process that was killed keeps its runs until their lease is over.
    async with Streamline(workflows=[crawls], worker=Worker(lease="3s")) as app:
        run = await app.start(crawls, Site(url=url))
        print("begun" if run.created else "going on", flush=True)
        print(await run.result(timeout="1m"), "bytes")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(main(sys.argv[1]))
    else:
        with ThreadingHTTPServer(("127.0.0.1", PORT), Pages) as site:
            threading.Thread(target=site.serve_forever, daemon=True).start()
            asyncio.run(main(f"http://127.0.0.1:{PORT}"))
            site.shutdown()
