"""What was really done, written down outside the database by whoever did it."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

_LINE = 32 + 1 + 10 + 1 + 20 + 1


class Entry(NamedTuple):
    """One executed step."""

    run_id: str
    worker: int
    at_ns: int


class Ledger:
    """A file to which several processes append; every line has the same length and is written in one piece."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._worker = os.getpid()

    def enter(self, run_id: str) -> None:
        """Write down that a step of the run is being executed."""
        line = f"{run_id:<32.32} {self._worker:>10d} {time.monotonic_ns():>20d}\n"
        os.write(self._file, line.encode())

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    @property
    def size(self) -> int:
        """How many steps were executed so far."""
        return self.path.stat().st_size // _LINE

    def entries(self) -> list[Entry]:
        """Return everything that was written down, by instant."""
        lines = (line.split() for line in self.path.read_text().splitlines())
        return sorted((Entry(run, int(worker), int(at)) for run, worker, at in lines), key=lambda entry: entry.at_ns)


def duplicates(entries: list[Entry]) -> int:
    """Return how many steps were executed more than once."""
    return sum(times - 1 for times in Counter(entry.run_id for entry in entries).values())
