"""The processes of one test: begun, killed, frozen and continued by name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.stress.deadline import until
from tests.stress.ledger import Ledger

ROOT = Path(__file__).parents[2]


class Fleet:
    """Processes under one nursery; none of them outlives the test, however it ends.

    Args:
        folder: Where the ledger is kept, and what the processes say on their standard error.
    """

    def __init__(self, folder: Path) -> None:
        self.ledger_path = folder / "ledger.jsonl"
        self.stderr_path = folder / "processes.log"
        self._ledger = Ledger(self.ledger_path, "harness")
        with self.stderr_path.open("ab") as stderr:
            self._nursery = subprocess.Popen(
                [sys.executable, "-m", "tests.stress.worker_process", "nursery", str(os.getpid())],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,
            )

    def spawn(self, name: str, role: str = "worker", **options: Any) -> str:
        """Begin a process and return its name."""
        self._ledger.write("spawn", name=name, role=role)
        self._ask({"spawn": name, "role": role, "options": options})
        return name

    def kill(self, name: str) -> bool:
        """SIGKILL a process; return whether it was still alive."""
        self._ledger.write("kill", name=name)
        return bool(self._ask({"signal": name, "number": signal.SIGKILL})["sent"])

    def freeze(self, name: str) -> None:
        """SIGSTOP a process."""
        assert self._ask({"signal": name, "number": signal.SIGSTOP})["sent"], f"{name} has ended"
        self._ledger.write("freeze", name=name)

    def thaw(self, name: str) -> None:
        """SIGCONT a process."""
        self._ledger.write("thaw", name=name)
        assert self._ask({"signal": name, "number": signal.SIGCONT})["sent"], f"{name} has ended"

    def dismiss(self, name: str) -> None:
        """SIGTERM a process: it lets running steps finish."""
        self._ledger.write("dismiss", name=name)
        self._ask({"signal": name, "number": signal.SIGTERM})

    def code(self, name: str) -> int | None:
        """Return how a process ended, negative for a signal; None while it lives."""
        answer: int | None = self._ask({"code": name})["code"]
        return answer

    def wait(self, name: str, *, within: float) -> int:
        """Return how a process ended, once it has."""
        until(lambda: self.code(name) is not None, within=within, what=f"the end of {name}")
        code = self.code(name)
        assert code is not None
        return code

    def note(self, what: str, **details: Any) -> None:
        """Leave an entry of the test's own."""
        self._ledger.write(what, **details)

    def close(self) -> None:
        """Kill everything."""
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.close()
        try:
            self._nursery.wait(10)
        except subprocess.TimeoutExpired:
            self._nursery.kill()
            self._nursery.wait(10)
        self._nursery.stdout.close()
        self._ledger.close()

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.write(json.dumps(order) + "\n")
        self._nursery.stdin.flush()
        line = self._nursery.stdout.readline()
        assert line, f"the nursery has ended: {self.stderr_path.read_text()[-2000:]}"
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def fleet_in(folder: Path) -> Iterator[Fleet]:
    """A fleet for the time of a ``with``."""
    fleet = Fleet(folder)
    try:
        yield fleet
    finally:
        fleet.close()
