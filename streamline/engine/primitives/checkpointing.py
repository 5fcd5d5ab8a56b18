"""Free-form progress: a value that the next entry of the handler finds."""

from __future__ import annotations

from typing import Any

from streamline.domain.payloads import ANY
from streamline.engine.held.branches import current
from streamline.engine.held.surroundings import Surroundings

_ADDRESS = "#checkpoint"


async def checkpoint(attempt: Surroundings, value: Any) -> None:
    """Store a value in place of the branch's last one."""
    address = current(attempt.root).within(_ADDRESS)
    encoded = ANY.encode(value, "checkpoint")
    attempt.check_size(encoded, "checkpoint")
    await attempt.memo.settle(address, {"kind": "checkpoint", "output": encoded.value}, size=encoded.size, spills=False)


def stored_checkpoint(attempt: Surroundings, default: Any) -> Any:
    """Return the branch's last checkpoint, or `default`."""
    entry = attempt.memo.entry(current(attempt.root).within(_ADDRESS))
    return default if entry is None else ANY.decode(entry["output"])
