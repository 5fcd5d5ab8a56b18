"""Where webhooks may go: public addresses only, whatever they are written like."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from streamline.errors import UrlNotAllowed
from streamline.features.addresses import check_addresses, networks_of, target_of

LOOPBACK = networks_of(["127.0.0.0/8", "::1/128"])

PRIVATE = [
    "127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "100.127.255.255", "0.0.0.0", "0.1.2.3", "192.0.0.192", "192.0.2.1", "198.18.0.1", "198.51.100.1",
    "203.0.113.1", "192.88.99.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fc00::1", "fd12:3456::1", "fec0::1", "ff02::1", "2001:db8::1", "100::1", "3fff::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "::8.8.8.8",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808", "2002:7f00:1::", "2002:a00:1::1",
    "2001:0:7f00:1::", "2001:0:808:808::f5ff:fffe",
]  # fmt: skip
PUBLIC = [
    "8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700:4700::1111", "2a00:1450:4001::1",
    "::ffff:8.8.8.8", "64:ff9b::808:808",
]  # fmt: skip


def url(address: str) -> str:
    return f"https://[{address}]/hook" if ":" in address else f"https://{address}/hook"


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_refused_written_and_looked_up(address: str) -> None:
    with pytest.raises(UrlNotAllowed) as caught:
        target_of(url(address), ())
    assert (caught.value.field, caught.value.http_status) == ("url", 422)
    assert address not in str(caught.value)
    target = target_of("https://hooks.example.com/", ())
    for among in ([address], ["8.8.8.8", address], [address, "8.8.8.8"]):
        with pytest.raises(UrlNotAllowed):
            check_addresses(target, among, ())


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_allowed(address: str) -> None:
    assert target_of(url(address), ()).address == ip_address(address)
    target = target_of("https://hooks.example.com/", ())
    assert check_addresses(target, [address, address, "8.8.4.4"], ()) == [ip_address(address), ip_address("8.8.4.4")]


@pytest.mark.parametrize(
    "host",
    [
        "2130706433", "0x7f000001", "0X7F.1", "017700000001", "0177.0.0.1", "127.1", "127.0.1", "0", "0x0",
        "127.0.0.1.", "127.0.0.01", "127.0.0.0x1", "1.2.3.4.5", "a.1", "8.8.8.08", "134744072",
        "localhost", "LOCALHOST", "localhost.", "app.localhost", "[::1%25lo]", "[127.0.0.1]", "[::1",
        "１２７.0.0.1", "127。0。0。1", "ⓛocalhost", "bücher.example", "h%6fst", "a..b", ".a", "-a.b", "a-.b",
        "a" * 64 + ".b", ".".join(["a" * 60] * 5), "",
    ],
)  # fmt: skip
def test_another_spelling_of_an_address_or_name_is_refused(host: str) -> None:
    with pytest.raises(UrlNotAllowed):
        target_of(f"https://{host}/", ())


@pytest.mark.parametrize(
    "bad",
    [
        "ftp://example.com", "file:///etc/passwd", "gopher://example.com", "//example.com", "example.com", "https://",
        "https:example.com", "https:/example.com", "https:\\\\example.com", "https://user@example.com",
        "https://user:pw@example.com", "https://good.example\\@127.0.0.1", "https://example.com#top",
        "https://example.com/a#top", "https://example.com:0", "https://example.com:65536", "https://example.com:x",
        "https://example.com:", "https://example.com\n", "https://exa\tmple.com", "https://example.com/a b",
        "https://example.com/é", " https://example.com", "https://example.com/\x7f", "https://example.com/a\r\nX: y",
        "https://example.com/" + "a" * 2048, "", None, 5, b"https://example.com", ["https://example.com"],
        "http://example.com", "http://8.8.8.8",
    ],
)  # fmt: skip
def test_what_is_no_plain_https_url_is_refused(bad: Any) -> None:
    with pytest.raises(UrlNotAllowed) as caught:
        target_of(bad, ())
    assert caught.value.field == "url"


@pytest.mark.parametrize(
    ("given", "authority", "path"),
    [
        ("https://Example.COM", "example.com", "/"),
        ("HTTPS://example.com:443/a/b?c=d&e=%20", "example.com", "/a/b?c=d&e=%20"),
        ("https://example.com:8443?x=1", "example.com:8443", "/?x=1"),
        ("https://example.com./x", "example.com", "/x"),
        ("https://a_b.example-1.com/@me", "a_b.example-1.com", "/@me"),
        ("https://[2606:4700:4700:0:0::1111]:8443/", "[2606:4700:4700:0:0::1111]:8443", "/"),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example", "/"),
    ],
)
def test_what_is_allowed_is_sent_as_it_was_written(given: str, authority: str, path: str) -> None:
    target = target_of(given, ())
    assert (target.authority, target.path) == (authority, path)
    assert target.at(ip_address("8.8.8.8")) == f"https://8.8.8.8:{target.port}{path}"
    assert target.at(ip_address("2606::1")) == f"https://[2606::1]:{target.port}{path}"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "[::1]", "[::ffff:127.0.0.1]"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_allowed_network_is_open_also_without_encryption(host: str, scheme: str) -> None:
    assert target_of(f"{scheme}://{host}:8080/", LOOPBACK).port == 8080


@pytest.mark.parametrize(
    "refused",
    [
        "https://10.0.0.1",
        "https://169.254.169.254",
        "https://[::ffff:10.0.0.1]",
        "http://8.8.8.8",
        "https://2130706433",
    ],
)
def test_an_allowed_network_opens_nothing_else(refused: str) -> None:
    with pytest.raises(UrlNotAllowed):
        target_of(refused, LOOPBACK)


def test_a_name_is_for_http_only_where_all_its_addresses_are_allowed() -> None:
    target = target_of("http://hooks.internal", LOOPBACK)
    assert check_addresses(target, ["127.0.0.1", "::1"], LOOPBACK) == [ip_address("127.0.0.1"), ip_address("::1")]
    for among in (["8.8.8.8"], ["127.0.0.1", "8.8.8.8"], ["10.0.0.1"], []):
        with pytest.raises(UrlNotAllowed):
            check_addresses(target, among, LOOPBACK)


def test_a_network_of_ipv6_opens_no_address_of_ipv4_that_is_written_as_ipv6() -> None:
    everything = networks_of(["::/0"])
    assert target_of("http://[fd00::1]/", everything)
    for address in ("::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"):
        with pytest.raises(UrlNotAllowed):
            target_of(f"https://[{address}]/", everything)
