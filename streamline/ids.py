"""Identifiers: time-ordered run ids, and random tokens that fence claims and mark writes."""

from __future__ import annotations

import os
import secrets
import socket
import time


def new_run_id() -> str:
    """Return a new time-ordered id: 12 hexadecimal digits of Unix milliseconds, then 20 random ones."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def new_token() -> str:
    """Return 96 random bits as text: unique, and unguessable enough to fence a claim."""
    return secrets.token_urlsafe(12)


def new_secret() -> str:
    """Return 256 random bits as text."""
    return secrets.token_urlsafe(32)


def new_key() -> bytes:
    """Return 256 random bits, to sign with."""
    return secrets.token_bytes(32)


def new_worker_id() -> str:
    """Return a name for this process that no other process has had or will have: host, process id and random."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
