"""What happened, told by whoever did it, outside the database: the second source that the checks compare with."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Entry = dict[str, Any]


class Ledger:
    """One process's pen for a file that many processes write.

    An entry is one line and one write(2) on a file opened for appending, so that lines never mix and what was written
    survives SIGKILL. `at` is CLOCK_MONOTONIC in nanoseconds: one clock for all processes of the machine.
    """

    def __init__(self, path: Path | str, by: str) -> None:
        self.path = Path(path)
        self.by = by
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, what: str, **details: Any) -> None:
        """Append an entry."""
        entry = {"at": time.monotonic_ns(), "by": self.by, "what": what, **details}
        os.write(self._file, json.dumps(entry, default=str).encode() + b"\n")

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)


def read(path: Path | str) -> list[Entry]:
    """Return the entries in the order of their instants; a last line that is still being written is left out."""
    lines = Path(path).read_bytes().split(b"\n")[:-1]
    return sorted((json.loads(line) for line in lines), key=lambda entry: entry["at"])


def pick(entries: list[Entry], what: str, **wanted: Any) -> Iterator[Entry]:
    """Yield the entries of one kind with the given details."""
    for entry in entries:
        if entry["what"] == what and all(entry.get(name) == value for name, value in wanted.items()):
            yield entry
