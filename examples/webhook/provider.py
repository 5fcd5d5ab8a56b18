"""Stands in for a payment provider: an HTTP server that calls back when the money has come, and does so twice."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen


class Server(ThreadingHTTPServer):
    daemon_threads = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def close(self) -> None:
        """Stop, once every request is answered."""
        self.shutdown()
        self.server_close()


@asynccontextmanager
async def serving(handler: type[BaseHTTPRequestHandler]) -> AsyncIterator[Server]:
    """Serve HTTP on a free port, in threads."""
    server = Server(("127.0.0.1", 0), handler)
    at_work = asyncio.create_task(asyncio.to_thread(server.serve_forever, 0.05))
    try:
        yield server
    finally:
        await asyncio.to_thread(server.close)
        await at_work


class JsonHandler(BaseHTTPRequestHandler):
    def body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None: ...


def post(url: str, body: Any) -> tuple[int, Any]:
    """Post JSON and return the status and the JSON of the answer."""
    request = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urlopen(request, timeout=10) as response:
            return response.status, json.load(response)
    except HTTPError as error:
        return error.code, json.load(error)


class Provider(JsonHandler):
    """``POST /payments`` takes ``{"amount", "callback"}``, answers at once, and calls back once the money has come."""

    def do_POST(self) -> None:
        payment = self.body()
        print(f"payment of {payment['amount']} begun")
        self.answer(202, {"payment_id": f"pay-{payment['amount']}"})
        time.sleep(0.1)
        for _ in range(2):  # webhooks come at least once
            status, answer = post(payment["callback"], {"status": "paid", "amount": payment["amount"]})
            print(f"webhook answered {status} {answer['code']}")
