"""What the demonstration shows: a live picture on a terminal, plain lines anywhere else."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from streamline.domain.statuses import TERMINAL

_NEWS = 8  # lines of news below the picture
_LINE_EVERY = 1.0  # seconds between plain lines


@dataclass(slots=True)
class Picture:
    """How things stand.

    Attributes:
        total: Lines of the order file.
        refused: Lines refused.
        statuses: Runs by status.
        workers: Process ids of the workers alive.
        events: Events that the workers have written.
    """

    total: int = 0
    refused: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    workers: list[int] = field(default_factory=list)
    events: int = 0

    @property
    def done(self) -> int:
        """Runs that are done."""
        return self.statuses.get("done", 0)

    @property
    def ended(self) -> int:
        """Lines that nothing more will happen to."""
        return self.refused + sum(self.statuses.get(name, 0) for name in TERMINAL)


class Screen:
    """Where it is shown, from entering to leaving."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._begin = time.monotonic()
        self._news: deque[str] = deque(maxlen=_NEWS)
        self._last_line = 0.0
        interactive = sys.stdout.isatty() and not os.environ.get("CI")
        self._live = Live(console=self._console, refresh_per_second=8) if interactive else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            self._live.stop()

    def tell(self, sentence: str) -> None:
        """Say that something has happened."""
        stamped = f"{time.monotonic() - self._begin:6.1f} s  {sentence}"
        self._news.append(stamped)
        if self._live is None:
            self._print(stamped)

    def show(self, picture: Picture) -> None:
        """Show how things stand."""
        if self._live is not None:
            self._live.update(self._painted(picture))
        elif time.monotonic() - self._last_line >= _LINE_EVERY:
            self._last_line = time.monotonic()
            counts = ", ".join(f"{n} {status}" for status, n in sorted(picture.statuses.items()))
            self._print(
                f"{time.monotonic() - self._begin:6.1f} s  {picture.ended}/{picture.total} orders,"
                f" workers: {len(picture.workers)}, events: {picture.events}, runs: {counts or 'none'}"
            )

    def close(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        """Show the closing table."""
        table = Table(title=title, show_header=False, title_justify="left")
        table.add_column()
        table.add_column(justify="right", overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        self._console.print(table)

    def conclude(self, sentence: str, *, good: bool) -> None:
        """Say the last word."""
        self._console.print(Text(sentence, style="bold green" if good else "bold red"), soft_wrap=True)

    def _print(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)

    def _painted(self, picture: Picture) -> Group:
        table = Table.grid(padding=(0, 2))
        table.add_row("orders", ProgressBar(total=max(picture.total, 1), completed=picture.ended, width=50))
        table.add_row("", f"{picture.ended} of {picture.total}, {picture.refused} of them refused")
        table.add_row("runs", "  ".join(f"{status} {n}" for status, n in sorted(picture.statuses.items())))
        table.add_row("workers", "  ".join(f"process {pid}" for pid in picture.workers) or "none")
        table.add_row("events", f"{picture.events}")
        return Group(table, Text(), *(Text(line, style="dim", no_wrap=True) for line in self._news))
