"""Sending one webhook: to an address that was checked, within a time, and what became of it."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache, partial
from ipaddress import IPv4Address, IPv6Address
from ssl import SSLContext

import httpx

from streamline.clock import Clock
from streamline.errors import WebhookFailed
from streamline.features.addresses import Network, Target, check_addresses, target_of
from streamline.features.signing import signed_headers

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

_ANSWER_READ = 64 * 1024
_ANSWER_KEPT = 200
_ADDRESSES_TRIED = 4
_LOOK_UPS = 8  # at once
_CONNECT_SHARE = 0.5  # of the whole time, for one address
_UNSHOWN = re.compile(r"[^\x20-\x7e\xa0-\uffff]+")
_OVERLOADED = (429, 503)
_GONE = 410


async def look_up(host: str, port: int) -> list[str]:
    """Return the addresses of a host."""
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_threads(), ask)
    return [str(each[4][0]) for each in found]


class Poster:
    """Posts webhooks to one endpoint; its connections are nobody else's, so what one proves is not taken for another.

    Args:
        url: Where to.
        networks: What may be reached besides public addresses.
        seconds: How long one delivery may take, from the look-up of the host to the end of the answer.
        clock: Says when a webhook is sent.
        resolve: Returns the addresses that a host has now.
    """

    def __init__(
        self, url: str, networks: Sequence[Network], seconds: float, clock: Clock, resolve: Resolve = look_up
    ) -> None:
        self._url = url
        self._networks = networks
        self._seconds = seconds
        self._clock = clock
        self._resolve = resolve
        # A transport of its own follows no redirect, uses no proxy and keeps no cookie.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=10, keepalive_expiry=15.0)
        self._transport = httpx.AsyncHTTPTransport(verify=_trusted(), trust_env=False, limits=limits)

    async def post(self, webhook_id: str, body: bytes, headers: Iterable[tuple[str, str]], secrets: list[str]) -> None:
        """Deliver a webhook.

        Raises:
            WebhookFailed: It was not answered with a 2xx status in time.
            UrlNotAllowed: The URL leads to an address that is not allowed; nothing was sent.
        """
        try:
            async with asyncio.timeout(self._seconds):
                target = target_of(self._url, self._networks)
                addresses = await self._addresses(target)
                await self._try(target, addresses, webhook_id, body, headers, secrets)
        except TimeoutError:
            raise WebhookFailed(f"no answer within {self._seconds:g} s") from None
        except httpx.TransportError as error:
            raise WebhookFailed(_shown(f"{type(error).__name__}: {error}")) from error

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def _addresses(self, target: Target) -> list[IPv4Address | IPv6Address]:
        try:
            written = [str(target.address)] if target.address else await self._resolve(target.host, target.port)
        except (OSError, UnicodeError) as error:
            raise WebhookFailed("the host's address cannot be looked up") from error
        return check_addresses(target, written, self._networks)

    async def _try(
        self,
        target: Target,
        addresses: Sequence[IPv4Address | IPv6Address],
        webhook_id: str,
        body: bytes,
        headers: Iterable[tuple[str, str]],
        secrets: list[str],
    ) -> None:
        """Send to the first address that can be reached."""
        signed = signed_headers(webhook_id, self._clock.now(), body, secrets)
        sent = [
            ("Host", target.authority),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Accept-Encoding", "identity"),
            ("User-Agent", "streamline"),
            *signed.items(),
            *headers,
        ]
        tried = addresses[:_ADDRESSES_TRIED]
        for address in tried:
            try:
                await self._send(target, target.at(address), body, sent)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if address == tried[-1]:
                    raise
            else:
                return

    async def _send(self, target: Target, url: str, body: bytes, headers: list[tuple[str, str]]) -> None:
        extensions = {
            # The connection goes to the address; that it leads to the host is proved by the host's certificate.
            "sni_hostname": target.host,
            "timeout": {"connect": self._seconds * _CONNECT_SHARE},
        }
        request = httpx.Request("POST", url, headers=headers, content=body, extensions=extensions)
        response = await self._transport.handle_async_request(request)
        try:
            beginning = await _beginning(response)
        finally:
            await response.aclose()
        if not response.is_success:
            raise _refused(response, beginning, self._clock.now())


@cache
def _threads() -> ThreadPoolExecutor:
    """Return threads for look-ups: names that nobody answers for must not hold those that the process needs."""
    return ThreadPoolExecutor(_LOOK_UPS, thread_name_prefix="streamline-look-up")


@cache
def _trusted() -> SSLContext:
    """Return whom to trust: as the environment says in SSL_CERT_FILE, else the authorities that httpx comes with."""
    return httpx.create_ssl_context()


async def _beginning(response: httpx.Response) -> bytes:
    """Read an answer to its end, so that the connection can be used again, unless it is long; return its beginning."""
    read = b""
    async for chunk in response.aiter_raw():
        read += chunk
        if len(read) > _ANSWER_READ:
            break
    return read[: _ANSWER_KEPT * 4]


def _refused(response: httpx.Response, beginning: bytes, now: datetime) -> WebhookFailed:
    said = _shown(beginning.decode("utf-8", "replace"))
    reason = f"answered {response.status_code}" + (f": {said}" if said else "")
    after = _retry_after(response.headers, now) if response.status_code in _OVERLOADED else None
    return WebhookFailed(reason, after=after, gone=response.status_code == _GONE)


def _retry_after(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """Return how long the receiver wants to be left alone: it says so in seconds, or as an instant."""
    given = headers.get("retry-after", "").strip()
    if given.isascii() and given.isdigit():
        return timedelta(seconds=min(int(given[:10]), 10**9))
    try:
        at = parsedate_to_datetime(given)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return max(timedelta(), (at if at.tzinfo else at.replace(tzinfo=UTC)) - now)


def _shown(text: str) -> str:
    """Return a short beginning of text from outside, on one line."""
    return _UNSHOWN.sub(" ", text).strip()[:_ANSWER_KEPT]
