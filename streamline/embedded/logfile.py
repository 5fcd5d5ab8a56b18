"""Read what matters from a mongod's log."""

from __future__ import annotations

import json
from pathlib import Path

NAME = "mongod.log"
_BYTES = 256 * 1024
_ERRORS = 6
_LAST = 6
_WIDTH = 400


def tail(directory: Path) -> str:
    """Return the last errors and the last lines of the log, made readable.

    The errors come too because a mongod that gives up says why and then writes dozens of lines about its shutdown.
    """
    lines = _lines(directory / NAME)
    errors = [at for at, line in enumerate(lines) if line[:2] in ("E ", "F ")]
    shown = {*errors[-_ERRORS:], *range(max(0, len(lines) - _LAST), len(lines))}
    return "\n".join(lines[at][:_WIDTH] for at in sorted(shown))


def _lines(log: Path) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [_readable(line) for line in text.splitlines() if line.strip()]


def _readable(line: str) -> str:
    try:
        entry = json.loads(line)
        return f"{entry['s']} {entry['msg']} {json.dumps(entry.get('attr', {}))}"
    except (ValueError, KeyError, TypeError):
        return line
