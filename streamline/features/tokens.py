"""Tokens that open hooks: derived from the app's secret and the place of the wait, stored only as a hash.

Source: RFC 2104 (HMAC) and RFC 4648 section 5 (base64url).
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode


class TokenMaker:
    """Makes the tokens of one secret: the same for the same place, and nothing else leads to them."""

    def __init__(self, secret: str | bytes) -> None:
        self._secret = secret.encode() if isinstance(secret, str) else secret

    def token(self, *place: str | int | None) -> str:
        """Return the token of a place: 256 bits in 43 characters that need no quoting in an address."""
        # Each part says how long it is, so that no two places read the same.
        message = b"".join(len(part).to_bytes(4, "big") + part for part in (str(each).encode() for each in place))
        return urlsafe_b64encode(hmac.digest(self._secret, message, "sha256")).rstrip(b"=").decode()


def hash_of(token: str) -> str:
    """Return what is stored of a token: it opens nothing."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
