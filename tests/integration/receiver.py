"""A real HTTP server that takes webhooks, and answers as a test tells it to."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from streamline import verify_webhook

CERTIFICATE = Path(__file__).with_name("hooks_example_test.pem")


@dataclass(frozen=True)
class Received:
    """One request, as it came."""

    path: str
    headers: dict[str, str]
    body: bytes
    port: int  # of the sender: the same for requests over one connection

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def verified(self, *secrets: str) -> str:
        """Return the webhook's id if it is signed with one of the secrets."""
        return verify_webhook(self.body, self.headers, list(secrets))


@dataclass
class Answer:
    """What is answered."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    hold: threading.Event | None = None  # nothing is answered before this


class Receiver(ThreadingHTTPServer):
    """Keeps what it received; `answer` decides what each request is answered."""

    daemon_threads = True

    def __init__(self, *, tls: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.scheme = "https" if tls else "http"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.received: list[Received] = []
        self.answer: Callable[[Received], Answer | int] = lambda _: 200

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}/hook"

    @property
    def ids(self) -> list[str]:
        return [each.id for each in self.received]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A sender that was killed, or does not trust us, is no error."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if len(body) < int(self.headers["Content-Length"]):
            return  # the sender was killed in the middle of it
        received = Received(self.path, {k.lower(): v for k, v in self.headers.items()}, body, self.client_address[1])
        self.server.received.append(received)
        answer = self.server.answer(received)
        answer = Answer(answer) if isinstance(answer, int) else answer
        if answer.hold is not None:
            answer.hold.wait(20)
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None: ...


@contextmanager
def receiving(*, tls: bool = False) -> Iterator[Receiver]:
    """Serve on a free port of this machine."""
    receiver = Receiver(tls=tls)
    thread = threading.Thread(target=receiver.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.shutdown()
        receiver.server_close()
        thread.join(10)
