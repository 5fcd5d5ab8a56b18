"""W4: answers from another process. The verbs it needs are not in the package yet."""

from __future__ import annotations

from benchmarks.rows import Row
from benchmarks.stage import Stage
from streamline import Streamline

_VERBS = ("resume", "resume_hook", "send_event")


async def measure(stage: Stage) -> list[Row]:
    """Say what is missing, one line per verb."""
    return [
        Row("W4", f"{verb} to continuation", "-", note="not measured" if hasattr(Streamline, verb) else "not built yet")
        for verb in _VERBS
    ]
