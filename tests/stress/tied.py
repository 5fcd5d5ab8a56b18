"""Run a command that the kernel kills when the process that asked for it ends: ``tied.py <its pid> command``.

The wish to die with the parent belongs to the thread that began the child, and it survives exec: so ask for it here, in
a program of its own, and only from the main thread of the test process, which lives as long as that does.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def tie(parent: int) -> None:
    """Let this process be killed when its parent ends; end at once where that has happened already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    tie(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])
