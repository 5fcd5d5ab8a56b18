"""A store over the test's database, of the driver under test, with its indexes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from streamline.clock import SystemClock
from streamline.settings import Settings
from streamline.store import Store, connect, ensure_indexes
from streamline.store.driver import Driver

# Every app holds a thread of Motor's for as long as it listens, and for a moment after it was closed.
os.environ.setdefault("MOTOR_MAX_WORKERS", "64")

SETTINGS = Settings(patience="3s", call_timeout="3s")


@pytest.fixture
def wire(database: Any) -> Driver:
    """The engine's face of the driver under test."""
    return connect(database, database=None, prefix="streamline", settings=SETTINGS)


@pytest.fixture
async def store(wire: Driver) -> AsyncIterator[Store]:
    """The door, with the indexes that its statements need."""
    await ensure_indexes(wire)
    store = Store(wire, SETTINGS, SystemClock())
    yield store
    await store.close()


@pytest.fixture
def runs(database: Any) -> Any:
    """The collection of runs."""
    return database["streamline.runs"]
