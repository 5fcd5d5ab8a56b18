"""Choose the port of a server and keep it beside the data."""

from __future__ import annotations

import secrets
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from streamline.errors import StoreUnavailable

# Below the range from which systems number outgoing connections: while the server is down, a client that keeps dialling
# a port of that range can be given it as its own end, gets connected to itself and then holds the port for good.
_LOWEST, _HIGHEST = 20_000, 32_000
_ATTEMPTS = 5
_CHECKS = 30


def candidates(directory: Path, wanted: int | None, pause: Callable[[float], None]) -> Iterator[int]:
    """Yield ports that were free a moment ago.

    Args:
        directory: Where an earlier server may have left its port; that one comes first.
        wanted: The only port allowed, if it is not None.
        pause: Sleeps for that many seconds; raises when there is no time left.

    Raises:
        StoreUnavailable: `wanted` stays taken.
    """
    if wanted is None:
        yield from _few(directory)
        return
    for _ in range(_ATTEMPTS):
        _await_free(wanted, pause)
        yield wanted


def remember(directory: Path, port: int) -> None:
    """Keep the port for the next server on this directory, as far as possible: it could do with another one."""
    with suppress(OSError):
        _record(directory).write_text(f"{port}\n", encoding="ascii")


def is_listening(port: int) -> bool:
    """Return whether anything accepts connections there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.5).close()
    except OSError:
        return False
    return True


def _few(directory: Path) -> Iterator[int]:
    last = _remembered(directory)
    if last is not None and _is_free(last):
        yield last
    for _ in range(_ATTEMPTS):
        yield next(port for port in iter(_any, None) if _is_free(port))


def _any() -> int:
    return _LOWEST + secrets.randbelow(_HIGHEST - _LOWEST)


def _await_free(port: int, pause: Callable[[float], None]) -> None:
    for _ in range(_CHECKS):
        if _is_free(port):
            return
        pause(0.1)
    raise StoreUnavailable(f"port {port} of 127.0.0.1 is taken by another process", field="port")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if sys.platform != "win32":  # where the option would let two servers share a port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _remembered(directory: Path) -> int | None:
    try:
        port = int(_record(directory).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return port if 0 < port < 65_536 else None


def _record(directory: Path) -> Path:
    return directory / "streamline.port"
