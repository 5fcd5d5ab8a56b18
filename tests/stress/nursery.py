"""The process that forks the others: they begin in milliseconds, since everything is imported already.

It obeys orders on its standard input, one JSON line each, and answers each with one. It is the only one who waits for
its children, so that a process id which it signals is certainly still theirs.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

from tests.stress.crash_process import live_until_crash
from tests.stress.follower_process import follow
from tests.stress.gate_process import burst, hold_up
from tests.stress.sender_process import send_events
from tests.stress.starter_process import start_runs
from tests.stress.tied import tie
from tests.stress.transfers import pay
from tests.stress.worker_process import work

ROLES: dict[str, Callable[[dict[str, Any]], None]] = {
    "worker": work,
    "starter": start_runs,
    "crasher": live_until_crash,
    "payer": pay,
    "follower": follow,
    "burster": burst,
    "holder": hold_up,
    "sender": send_events,
}


class Nursery:
    """The children by name, and what can be done to them."""

    def __init__(self) -> None:
        self._pids: dict[str, int] = {}
        self._ended: dict[str, int] = {}

    def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry out one order and return the answer."""
        match order:
            case {"spawn": str(name), "role": str(role), "options": options}:
                assert name not in self._pids, f"a second {name}: the ledger could not tell them apart"
                self._pids[name] = _fork(ROLES[role], {"name": name, **options})
                return {"pid": self._pids[name]}
            case {"signal": str(name), "number": int(number)}:
                if self._code(name) is not None:
                    return {"sent": False}
                os.kill(self._pids[name], number)
                if number == signal.SIGKILL:
                    self._code(name, wait=True)
                return {"sent": True}
            case {"code": str(name)}:
                return {"code": self._code(name)}
        raise ValueError(order)

    def end(self) -> None:
        """Kill whoever is left."""
        for name in self._pids:
            self.obey({"signal": name, "number": signal.SIGKILL})

    def _code(self, name: str, *, wait: bool = False) -> int | None:
        if name not in self._ended:
            pid, status = os.waitpid(self._pids[name], 0 if wait else os.WNOHANG)
            if pid == 0:
                return None
            self._ended[name] = os.waitstatus_to_exitcode(status)
        return self._ended[name]


def _fork(role: Callable[[dict[str, Any]], None], options: dict[str, Any]) -> int:
    parent, sys_stdin = os.getpid(), sys.stdin.fileno()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        tie(parent)
        os.close(sys_stdin)
        os.dup2(2, 1)
        random.seed()  # forked siblings would otherwise all throw the same dice
        role(options)
        code = 0
    except BaseException:  # noqa: BLE001 - the fork must never go on as its parent
        traceback.print_exc()
    finally:
        os._exit(code)


def main(parent: int) -> None:
    """Obey until the standard input ends."""
    tie(parent)
    nursery = Nursery()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which then end this
    try:
        for line in sys.stdin:
            print(json.dumps(nursery.obey(json.loads(line))), flush=True)
    finally:
        nursery.end()
