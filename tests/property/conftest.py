"""The driver under test, over the test's database."""

from __future__ import annotations

from typing import Any

import pytest

from streamline.settings import Settings
from streamline.store import connect
from streamline.store.driver import Driver


@pytest.fixture
def wire(database: Any) -> Driver:
    """The engine's face of the driver under test; without indexes, so that nothing is removed whose time is over."""
    return connect(database, database=None, prefix="model", settings=Settings())
