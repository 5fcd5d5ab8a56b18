"""Which addresses webhooks may be sent to: public ones, and what the operator allows besides.

What the platform calls global is not enough: some of those lead to the machine itself, or to the cloud's own services.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from streamline.errors import UrlNotAllowed

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

URL_MAX = 2048
_URL = re.compile(r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?"
                  r"(?P<path>/[!-~]*|\?[!-~]*)?", re.ASCII | re.IGNORECASE)  # fmt: skip
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII | re.IGNORECASE)
_NOT_PUBLIC: tuple[Network, ...] = tuple(
    ip_network(each)
    for each in (
        "0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "240.0.0.0/4",
        "::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "3fff::/20", "5f00::/16", "fec0::/10",
    )
)  # fmt: skip
_NAT64 = ip_network("64:ff9b::/96")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL leads.

    Args:
        scheme: ``"http"`` or ``"https"``.
        host: A name in lower case, or an address without brackets.
        port: The port.
        path: Path and query, beginning with a slash.
        address: The host as an address, where it is one.
    """

    scheme: str
    host: str
    port: int
    path: str
    address: Address | None

    @property
    def authority(self) -> str:
        """Host and port as the Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def at(self, address: Address) -> str:
        """Return the URL with an address in place of the host."""
        host = f"[{address}]" if address.version == 6 else str(address)
        return f"{self.scheme}://{host}:{self.port}{self.path}"


def networks_of(networks: Iterable[str]) -> tuple[Network, ...]:
    """Return the networks of the settings, which have been checked."""
    return tuple(ip_network(each) for each in networks)


def target_of(url: object, networks: Sequence[Network]) -> Target:
    """Return where a URL leads, as far as it can be told without a look at the names of hosts.

    Raises:
        UrlNotAllowed: It is not a plain http or https URL, or its host is not allowed.
    """
    parts = _URL.fullmatch(url) if isinstance(url, str) and len(url) <= URL_MAX else None
    if parts is None:
        raise UrlNotAllowed(
            f"url: http or https, a host, and of {URL_MAX} characters at most; no user, no fragment, only ASCII",
            field="url",
        )
    scheme, path = parts["scheme"].lower(), parts["path"] or "/"
    port = _PORTS[scheme] if parts["port"] is None else int(parts["port"])
    if not 0 < port < 65536 or "#" in path:
        raise UrlNotAllowed("url: a port from 1 to 65535, and no fragment", field="url")
    host = parts["host"].strip("[]").lower().removesuffix(".")
    address = _literal(host, bracketed=parts["host"].startswith("["))
    target = Target(scheme, host, port, path if path.startswith("/") else f"/{path}", address)
    _check_host(target, networks)
    return target


def check_addresses(target: Target, addresses: Iterable[str], networks: Sequence[Network]) -> list[Address]:
    """Return the addresses that a host has now; raise `UrlNotAllowed` where one of them is not allowed."""
    found = [ip_address(each.partition("%")[0]) for each in addresses]
    if not found:
        raise UrlNotAllowed("url: the host has no address", field="url")
    for address in found:
        _check_address(target, address, networks)
    return list(dict.fromkeys(found))


def _check_host(target: Target, networks: Sequence[Network]) -> None:
    if target.address is not None:
        _check_address(target, target.address, networks)
    elif target.host == "localhost" or target.host.endswith(".localhost"):
        _check_address(target, IPv4Address("127.0.0.1"), networks)
    elif target.scheme == "http" and not networks:
        raise _plain_http()


def _check_address(target: Target, address: Address, networks: Sequence[Network]) -> None:
    meant = list(_meant(address))
    if not all(_is_public(each) or _is_within(each, networks) for each in meant):
        raise UrlNotAllowed("url: its host has an address that is not public", field="url")
    if target.scheme == "http" and not all(_is_within(each, networks) for each in meant):
        raise _plain_http()


def _plain_http() -> UrlNotAllowed:
    return UrlNotAllowed("url: https; http only to a network that the operator allows", field="url")


def _literal(host: str, *, bracketed: bool) -> Address | None:
    """Return the address that a host is written as, None for a name."""
    try:
        if bracketed:
            return IPv6Address(host)
        labels = host.split(".")
        # What ends in a number is read as an address by whoever connects, in forms that look like none.
        if _NUMBER.fullmatch(labels[-1]):
            return IPv4Address(host)
    except ValueError:
        raise UrlNotAllowed(
            "url: an address in its usual form, such as 192.0.2.1 or [2001:db8::1]", field="url"
        ) from None
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise UrlNotAllowed("url: its host is no name", field="url")
    return None


def _meant(address: Address) -> Iterator[Address]:
    """Yield where packets for an address end up: those of IPv4 that it stands for, or itself."""
    if isinstance(address, IPv4Address):
        yield address
    elif address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    elif address.sixtofour is not None:
        yield address.sixtofour
    elif address.teredo is not None:
        yield from address.teredo
    elif address in _NAT64:
        yield IPv4Address(int(address) & 0xFFFFFFFF)
    else:
        yield address


def _is_public(address: Address) -> bool:
    return (
        address.is_global
        and not (address.is_multicast or address.is_reserved or address.is_link_local or address.is_unspecified)
        and not _is_within(address, _NOT_PUBLIC)
    )


def _is_within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address.version == each.version and address in each for each in networks)
