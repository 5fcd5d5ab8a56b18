"""How a process of the stress tests opens an app, with the driver under test."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from streamline import Event, RetryPolicy, Settings, Streamline, Worker
from tests.stress.flows import FLOWS
from tests.stress.ledger import Ledger

# What the engine sets on clients that it makes itself; an application that brings its own has to.
_FOR_MOTOR = {
    "tz_aware": True,
    "connectTimeoutMS": 2000,
    "heartbeatFrequencyMS": 2000,
    "serverSelectionTimeoutMS": 5000,
}


@dataclass(frozen=True)
class Opening:
    """What is needed to open an app in another process, as plain data.

    Args:
        uri: The deployment.
        database: Name of the database.
        ledger: Path of the ledger.
        flows: The workflows to serve: kind, name and version of each.
        worker: Arguments of `Worker`; None for an app that only starts runs and asks.
        settings: Arguments of `Settings`.
    """

    uri: str
    database: str
    ledger: str
    flows: tuple[tuple[str, str, str], ...] = (("five", "five", "1.0.0"),)
    worker: Mapping[str, Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @asynccontextmanager
    async def app(self, ledger: Ledger) -> AsyncIterator[Streamline]:
        """Open the app, with the driver under test; it writes into `ledger` what its handlers do."""
        options: dict[str, Any] = {
            "database": self.database,
            "workflows": [FLOWS[kind](ledger, name, version) for kind, name, version in self.flows],
            "worker": False if self.worker is None else Worker(**self.worker),
            "settings": _settings_of(self.settings),
        }
        if os.environ.get("STREAMLINE_TEST_DRIVER") != "motor":
            async with Streamline(self.uri, **options) as app:
                yield app
            return
        from motor.motor_asyncio import AsyncIOMotorClient

        client: Any = AsyncIOMotorClient(self.uri, **_FOR_MOTOR)
        try:
            async with Streamline(client, **options) as app:
                yield app
        finally:
            client.close()


def _settings_of(given: Mapping[str, Any]) -> Settings:
    retry = {"webhook_retry": RetryPolicy(**given["webhook_retry"])} if "webhook_retry" in given else {}
    return Settings(**{"patience": "10s", "call_timeout": "5s", **given, **retry})


class LogIntoLedger(logging.Handler):
    """Keeps what the engine logs beside what the handlers did."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(logging.INFO)
        self._ledger = ledger

    def emit(self, record: logging.LogRecord) -> None:
        """Leave an entry."""
        error = repr(record.exc_info[1]) if record.exc_info else None
        self._ledger.write("log", level=record.levelname, text=record.getMessage(), error=error)


def tell_events(app: Streamline, ledger: Ledger) -> None:
    """Write down what an app learns to be stored: from then on it must last."""

    def tell(event: Event) -> None:
        ledger.write("acknowledged", run=event.run_id, type=event.type, step=event.step, attempt=event.attempt)

    app.on("*", tell)


def tell_log(ledger: Ledger) -> None:
    """Let the engine's log go into the ledger."""
    logger = logging.getLogger("streamline")
    logger.setLevel(logging.INFO)
    logger.addHandler(LogIntoLedger(ledger))
