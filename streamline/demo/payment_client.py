"""How the application talks to its payment service: blocking HTTP, with the standard library."""

from __future__ import annotations

import json
import os
import urllib.request
from typing import Any
from urllib.error import HTTPError

from streamline import NonRetriableError

VARIABLE = "PAYMENTS_URL"
_PATIENCE = 1.0  # seconds; the service stalls for longer at times

# A proxy that the environment names must not be asked for what runs on this machine.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def charge(key: str, order_id: str, amount: int, currency: str) -> str:
    """Charge an order and return the charge's id; another call with the same key returns the same charge.

    Raises:
        NonRetriableError: The service refuses the charge for good.
        OSError: It fails, or does not answer in time; it may have charged or not.
    """
    body = json.dumps({"order_id": order_id, "amount": amount, "currency": currency}).encode()
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    request = urllib.request.Request(f"{os.environ[VARIABLE]}/charges", body, headers, method="POST")
    try:
        return str(_answer(request)["charge_id"])
    except HTTPError as error:  # an OSError itself, so a 503 is retried
        with error:
            if error.code < 500:
                raise NonRetriableError(f"the payment service refuses the charge: {error.code}") from error
            raise


def ledger(url: str) -> dict[str, Any]:
    """Return what the service at `url` has charged, and how often it was asked."""
    return _answer(urllib.request.Request(f"{url}/ledger"))


def _answer(request: urllib.request.Request) -> dict[str, Any]:
    with _opener.open(request, timeout=_PATIENCE) as response:
        answer: dict[str, Any] = json.load(response)
        return answer
