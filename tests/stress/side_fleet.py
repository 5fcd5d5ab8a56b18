"""A fleet whose processes know more workflows and roles than the usual one, and whose memory can be read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.stress.fleet import ROOT, Fleet
from tests.stress.ledger import Ledger

_PAGE = os.sysconf("SC_PAGE_SIZE")


class SideFleet(Fleet):
    """Processes under the nursery of `tests.stress.primitive_process`."""

    def __init__(self, folder: Path) -> None:
        self.pids: dict[str, int] = {}
        self.ledger_path = folder / "ledger.jsonl"
        self.stderr_path = folder / "processes.log"
        self._ledger = Ledger(self.ledger_path, "harness")
        with self.stderr_path.open("ab") as stderr:
            self._nursery = subprocess.Popen(
                [sys.executable, "-m", "tests.stress.primitive_process", str(os.getpid())],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,
            )

    def resident(self, name: str) -> int:
        """Return the bytes of a process that are in memory."""
        statm = Path(f"/proc/{self.pids[name]}/statm").read_text()
        return int(statm.split()[1]) * _PAGE

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        answer = super()._ask(order)
        if "spawn" in order:
            self.pids[order["spawn"]] = answer["pid"]
        return answer
