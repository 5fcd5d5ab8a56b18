"""Counting what is sent to the database, seen from the driver and from the server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent


class CommandCounter(CommandListener):
    """Counts commands by name, and how many runs the engine's claims picked and won."""

    def __init__(self) -> None:
        self.commands: Counter[str] = Counter()
        self.picked = 0
        self.won = 0
        self.find_micros: list[int] = []
        self._claims: set[int] = set()

    def clear(self) -> None:
        """Begin to count anew."""
        self.commands.clear()
        self.find_micros.clear()
        self.picked = self.won = 0

    @property
    def total(self) -> int:
        """All commands."""
        return self.commands.total()

    def started(self, event: CommandStartedEvent) -> None:
        """Count a command."""
        self.commands[event.command_name] += 1
        if event.command_name == "update" and (picked := _picked_by_claim(event.command)):
            self.picked += picked
            self._claims.add(event.request_id)

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Count what a claim has won."""
        if event.command_name == "find":
            self.find_micros.append(event.duration_micros)
        if event.request_id in self._claims:
            self._claims.discard(event.request_id)
            self.won += int(event.reply["n"])

    def failed(self, event: CommandFailedEvent) -> None:
        """Forget a claim that failed: it is sent again."""
        self._claims.discard(event.request_id)


def _picked_by_claim(command: Mapping[str, Any]) -> int:
    """Return how many runs a command claims: an update of many, by id, that ends their being due."""
    updates = command.get("updates", ())
    if len(updates) != 1 or not updates[0].get("multi"):
        return 0
    ids = updates[0]["q"].get("_id")
    if not isinstance(ids, Mapping) or "due_at" not in updates[0]["u"].get("$unset", {}):
        return 0
    return len(ids["$in"])


async def document_writes(client: AsyncMongoClient[dict[str, Any]]) -> int:
    """Return how many documents the server has inserted, updated and deleted since it was started."""
    metrics = (await client.admin.command("serverStatus"))["metrics"]["document"]
    return int(metrics["inserted"] + metrics["updated"] + metrics["deleted"])
