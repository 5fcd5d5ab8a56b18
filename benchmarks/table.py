"""The result, for a reader and for a program."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pymongo

from benchmarks.rows import Row

_HEAD = ("workload", "what", "measured", "ratio", "goal", "floor", "verdict")


def render(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    cells = [_HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEAD))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def summary(rows: Sequence[Row]) -> str:
    """Return how many rows reached what."""
    verdicts = [row.verdict for row in rows]
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts))


def write(path: Path, rows: Sequence[Row], **circumstances: Any) -> None:
    """Write the rows, and what they were measured on, as JSON."""
    result = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "pymongo": pymongo.version,
        "machine": platform.platform(),
        "cpus": os.cpu_count(),
        **circumstances,
        "rows": [asdict(row) | {"verdict": row.verdict} for row in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")


def _cells(row: Row) -> tuple[str, ...]:
    figure = "-" if row.figure is None else f"{row.figure:.2f} {row.unit}".rstrip()
    aim = "-" if row.goal is None else row.goal.show(row.goal.aim)
    floor = "-" if row.goal is None else row.goal.show(row.goal.floor)
    return row.workload, row.what, row.measured, figure, aim, floor, row.verdict
