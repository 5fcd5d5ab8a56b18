"""From a file of orders to runs: every line becomes a run, or is refused with a typed error."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamline import Streamline, StreamlineError
from streamline.demo.fulfilment import fulfilment
from streamline.errors import InvalidInput

SHIPPED = Path(__file__).with_name("orders.jsonl")
_NOT_THE_CALLERS_FAULT = 500


@dataclass(frozen=True, slots=True)
class Refusal:
    """A line that did not become a run."""

    line: int
    error: StreamlineError

    def __str__(self) -> str:
        return f"line {self.line} refused, {type(self.error).__name__}: {self.error}"


class Intake:
    """The way of one file into the app.

    Attributes:
        lines: The lines that hold anything, by their number.
        accepted: Ids of the runs that were started.
        refused: What was not.
    """

    def __init__(self, lines: dict[int, str]) -> None:
        self.lines = lines
        self.accepted: list[str] = []
        self.refused: list[Refusal] = []

    @classmethod
    async def read(cls, path: Path) -> Intake:
        """Read a file; raise ``OSError`` or ``UnicodeDecodeError`` where it cannot be."""
        text = await asyncio.to_thread(path.read_text, encoding="utf-8")
        return cls({number: line for number, line in enumerate(text.splitlines(), start=1) if line.strip()})

    async def start_runs(self, app: Streamline) -> None:
        """Start a run per order; the order's number is the run's id, so no order gets in twice.

        Raises:
            StreamlineError: It is not the order's fault that it was not started.
        """
        for number, line in self.lines.items():
            try:
                order = _parse(line)
                run = await app.start(fulfilment, order, run_id=order.get("order_id"))
                self.accepted.append(run.id)
            except StreamlineError as error:
                if error.http_status >= _NOT_THE_CALLERS_FAULT:
                    raise
                self.refused.append(Refusal(number, error))


def _parse(line: str) -> dict[str, Any]:
    try:
        order = json.loads(line)
    except ValueError:
        raise InvalidInput("order: it is not JSON", field="order") from None
    if not isinstance(order, dict):
        raise InvalidInput("order: it is not an object", field="order")
    return order
