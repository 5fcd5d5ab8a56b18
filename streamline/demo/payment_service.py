"""A payment service on loopback that fails and stalls at times, and never charges one idempotency key twice.

What goes wrong follows from a seed, the key and how often the key was sent, so it is the same each time. The service
fails in the ways that matter: before it has charged, after it has charged, and by not answering until the caller has
given up, when only the key tells a repetition from a second charge.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler
from random import Random
from socketserver import ThreadingTCPServer
from typing import Any, Literal, Self

_STALL = 1.5  # seconds: longer than the client waits
_FAULTY_REQUESTS = 2  # of one key, at most, so that every order gets through in the end
_FAULTS: dict[Fault, float] = {"fail": 0.08, "fail_charged": 0.04, "stall": 0.04, "none": 0.84}

Fault = Literal["fail", "fail_charged", "stall", "none"]


@dataclass(frozen=True, slots=True)
class Booking:
    """One charge."""

    charge_id: str
    key: str
    order_id: str
    amount: int
    currency: str


@dataclass(slots=True)
class Ledger:
    """What was charged, and how often the service was asked."""

    bookings: dict[str, Booking] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    repeated: int = 0

    def book(self, key: str, order: dict[str, Any]) -> Booking:
        """Return the charge of a key, a new one where there is none."""
        known = self.bookings.get(key)
        if known is not None:
            self.repeated += 1
            return known
        charge_id = f"ch_{len(self.bookings) + 1:06d}"
        self.bookings[key] = Booking(charge_id, key, order["order_id"], order["amount"], order["currency"])
        return self.bookings[key]


class PaymentService:
    """The service, in threads of this process, from entering to leaving.

    Args:
        seed: Decides what goes wrong.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._ledger = Ledger()
        self._mutex = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.service = self

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="payments", daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def charge(self, key: str, order: dict[str, Any]) -> tuple[Fault, Booking | None]:
        """Take a request for a charge; return what is to go wrong, and the charge unless it fails before."""
        with self._mutex:
            fault = self._fault(key, self._ledger.requests[key])
            self._ledger.requests[key] += 1
            self._ledger.faults[fault] += 1
            return fault, None if fault == "fail" else self._ledger.book(key, order)

    def report(self) -> dict[str, Any]:
        """Return the ledger as JSON can carry it."""
        with self._mutex:
            return {
                "bookings": [asdict(booking) for booking in self._ledger.bookings.values()],
                "requests": self._ledger.requests.total(),
                "repeated": self._ledger.repeated,
                "faults": dict(self._ledger.faults),
            }

    def _fault(self, key: str, nth: int) -> Fault:
        if nth >= _FAULTY_REQUESTS:
            return "none"
        chance = Random(f"{self._seed}/{key}/{nth}")
        return chance.choices(list(_FAULTS), list(_FAULTS.values()))[0]


class _Server(ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False  # a stalled answer must not delay the end
    allow_reuse_address = True
    request_queue_size = 128
    service: PaymentService

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that has given up, or was killed, is part of the demonstration."""


class _Handler(BaseHTTPRequestHandler):
    timeout = 10

    @property
    def _service(self) -> PaymentService:
        assert isinstance(self.server, _Server)
        return self.server.service

    def do_GET(self) -> None:
        """Answer with the ledger."""
        self._answer(200, self._service.report())

    def do_POST(self) -> None:
        """Charge."""
        order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault, booking = self._service.charge(self.headers["Idempotency-Key"], order)
        time.sleep(_STALL if fault == "stall" else 0.03)
        if booking is None or fault == "fail_charged":
            self._answer(503, {"error": "try again later"})
        else:
            self._answer(201, asdict(booking))

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal belongs to the demonstration."""

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)
