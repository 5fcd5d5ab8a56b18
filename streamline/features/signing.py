"""Signatures of webhooks: made for those that are sent, checked on those that are received.

Source: Standard Webhooks 1.0.0, symmetric scheme (HMAC-SHA256, RFC 2104).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from email.message import Message
from typing import Any

from streamline.clock import SystemClock
from streamline.domain.durations import Duration, check_instant, parse_duration
from streamline.errors import InvalidInput, InvalidKey, SignatureInvalid
from streamline.ids import new_key

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
_PREFIX = "whsec_"
_KEY_MIN, _KEY_MAX = 24, 64
_TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)
_ID = re.compile(r"[!-\-/-~]{1,4096}")  # visible ASCII without the full stop
_SIGNATURES_READ = 20

Headers = Mapping[str, str] | Message | Iterable[tuple[str, str]] | Iterable[tuple[bytes, bytes]]
Secret = str | bytes


def new_secret() -> str:
    """Return a new secret of 256 bits in the form that the standard gives it."""
    return _PREFIX + base64.b64encode(new_key()).decode()


def key_of(secret: object, field: str = "secret") -> bytes:
    """Return the key that a secret stands for; raise `InvalidKey` where it is of another form.

    Args:
        secret: ``whsec_`` and base64, base64 alone, or the key itself as bytes.
        field: Name of the argument, for the error.
    """
    key = _decoded(secret) if isinstance(secret, str) else secret
    if not isinstance(key, bytes) or not _KEY_MIN <= len(key) <= _KEY_MAX:
        raise InvalidKey(
            f"{field}: whsec_ and the base64 of {_KEY_MIN} to {_KEY_MAX} bytes, or as many bytes", field=field
        )
    return key


def signed_headers(webhook_id: str, at: datetime, body: bytes, secrets: Iterable[Secret]) -> dict[str, str]:
    """Return the headers that prove a body's origin and age.

    Args:
        webhook_id: The same for each attempt to deliver it; without a full stop, which separates what is signed.
        at: When it is sent.
        body: The bytes that are sent.
        secrets: Several while a secret is being replaced: there is one signature for each.
    """
    timestamp = str(int(at.timestamp()))
    signatures = [_signature(webhook_id, timestamp, body, key_of(secret)) for secret in secrets]
    return {ID: webhook_id, TIMESTAMP: timestamp, SIGNATURE: " ".join(f"v1,{_text(each)}" for each in signatures)}


def verify_webhook(
    body: bytes | str,
    headers: Headers,
    secret: Secret | Sequence[Secret],
    *,
    tolerance: Duration = "5m",
    now: datetime | None = None,
) -> str:
    """Check that a webhook comes from a holder of the secret, and lately; return its id.

    It serves receivers of this engine's webhooks, and of any other's that keeps to Standard Webhooks. A webhook may
    come more than once, with the same id: use that as an idempotency key.

    Args:
        body: The body as it was received; not parsed and written again.
        headers: The headers of the request, in any case; a mapping, or pairs.
        secret: The secret, or several while it is being replaced: ``whsec_`` and base64, or bytes.
        tolerance: How far the sender's time may be from ours, either way.
        now: Our time, aware; default the machine's.

    Raises:
        SignatureInvalid: It is not signed, or not with one of the secrets, or too long ago, or it was altered. The
            message is the same for all of these.
        InvalidKey: A secret is not of the allowed form.
        InvalidInput: The body is not bytes or text, or the headers are no headers.
    """
    keys = _keys(secret)
    allowed = parse_duration(tolerance, "tolerance").total_seconds()
    present = (SystemClock().now() if now is None else check_instant(now, "now")).timestamp()
    if not isinstance(body, (bytes, bytearray, memoryview, str)):
        raise InvalidInput("body: the bytes of the request as they were received", field="body")
    raw = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else bytes(body)
    found = _found(headers)
    if found is None or not _is_signed(raw, *found, keys) or abs(int(found[1]) - present) > allowed:
        raise SignatureInvalid("the webhook's signature is missing, wrong or too old")
    return found[0]


def _keys(secret: Any) -> list[bytes]:
    several = [secret] if isinstance(secret, (str, bytes)) or not isinstance(secret, Iterable) else list(secret)
    if not several:
        raise InvalidKey("secret: at least one", field="secret")
    return [key_of(each) for each in several]


def _found(headers: Headers) -> tuple[str, str, str] | None:
    """Return the three headers, or None where one is missing, is there twice, or cannot be what it has to be."""
    named: dict[str, list[Any]] = {ID: [], TIMESTAMP: [], SIGNATURE: []}
    for name, value in _pairs(headers):
        if name.lower() in named:
            named[name.lower()].append(value)
    if any(len(values) != 1 or not isinstance(values[0], str) for values in named.values()):
        return None
    webhook_id, timestamp, signatures = (values[0] for values in named.values())
    if not _ID.fullmatch(webhook_id) or not _TIMESTAMP.fullmatch(timestamp):
        return None
    return webhook_id, timestamp, signatures


def _pairs(headers: Any) -> list[tuple[str, Any]]:
    """Return headers as pairs: frameworks have mappings, mappings in all but name, and pairs of bytes."""
    try:
        items = headers.items() if hasattr(headers, "items") else headers
        pairs = [(_as_text(name), _as_text(value)) for name, value in items]
    except (TypeError, ValueError):
        raise InvalidInput("headers: a mapping, or pairs of name and value", field="headers") from None
    return [(name, value) for name, value in pairs if isinstance(name, str)]


def _as_text(part: Any) -> Any:
    return part.decode("latin-1") if isinstance(part, bytes) else part


def _is_signed(body: bytes, webhook_id: str, timestamp: str, signatures: str, keys: Sequence[bytes]) -> bool:
    wanted = [_signature(webhook_id, timestamp, body, key) for key in keys]
    given = [each.removeprefix("v1,") for each in signatures.split()[:_SIGNATURES_READ] if each.startswith("v1,")]
    # Every pair is compared, in constant time: how long it takes says nothing about which one fits.
    fitting = [hmac.compare_digest(_text(mine), theirs) for mine in wanted for theirs in given if theirs.isascii()]
    return any(fitting)


def _signature(webhook_id: str, timestamp: str, body: bytes, key: bytes) -> bytes:
    return hmac.digest(key, f"{webhook_id}.{timestamp}.".encode() + body, "sha256")


def _text(signature: bytes) -> str:
    return base64.b64encode(signature).decode()


def _decoded(secret: str) -> bytes | None:
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return None
