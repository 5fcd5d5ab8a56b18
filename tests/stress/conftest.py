"""What every stress test begins with: processes of its own, a database of its own, and a seed that it prints."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stress.evidence import Runs, runs_of
from tests.stress.fleet import Fleet, fleet_in


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Processes that end with the test."""
    with fleet_in(tmp_path) as processes:
        yield processes


@pytest.fixture
def runs(mongo_uri: str, database_name: str) -> Iterator[Runs]:
    """The runs in the test's own database."""
    with runs_of(mongo_uri, database_name) as found:
        yield found


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    """Chance that can be had again: set STREAMLINE_STRESS_SEED to what a failed test printed."""
    seed = int(os.environ.get("STREAMLINE_STRESS_SEED", "20240229"))
    print(f"\n{request.node.name}: STREAMLINE_STRESS_SEED={seed}")  # shown where the test fails
    return random.Random(seed)
