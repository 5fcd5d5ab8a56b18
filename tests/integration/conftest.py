"""Apps on the test's own database, of the driver under test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, cast
from uuid import uuid4

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from streamline import Streamline, Worker, Workflow
from tests.databases import empty_collections
from tests.integration.one_tenant import TENANT, OneTenant

# Every app holds a thread of Motor's for as long as it listens, and for a moment after it was closed.
os.environ.setdefault("MOTOR_MAX_WORKERS", "64")

QUICK = Worker(concurrency=50, lease="5s", poll_interval="1s", drain="5s", cancel_grace="1s")

Maker = Callable[..., Streamline]


@pytest.fixture(scope="session", autouse=True)
def busy_removal(mongo_uri: str) -> Iterator[None]:
    """Let the server look for runs whose time is over every second; it hears of that only at its next look."""
    with MongoClient(mongo_uri) as client:
        before = client.admin.command("getParameter", 1, ttlMonitorSleepSecs=1)["ttlMonitorSleepSecs"]
        client.admin.command("setParameter", 1, ttlMonitorSleepSecs=1)
        yield
        client.admin.command("setParameter", 1, ttlMonitorSleepSecs=before)


@pytest.fixture(scope="session")
def reused(mongo_uri: str) -> Iterator[Database[Any]]:
    """The database that most tests have, one after the other."""
    with MongoClient[Any](mongo_uri) as client:
        yield client[f"integration_{uuid4().hex[:16]}"]


@pytest.fixture
def is_reused(request: pytest.FixtureRequest) -> bool:
    """Whether the database is reused: to create and drop fifty files takes longer than most tests do."""
    return request.node.get_closest_marker("own_database") is None


@pytest.fixture
def database_name(database_name: str, reused: Database[Any], is_reused: bool) -> str:
    """The database of most tests, empty; a name no other test has, where it is marked ``own_database``."""
    if not is_reused:
        return database_name
    # Now, and not after the test before: by now all that it has begun is over, processes too.
    empty_collections(reused)
    return reused.name


@pytest.fixture
def tenant_id() -> str | None:
    """The tenant whose the runs of the test are; None unless STREAMLINE_TEST_TENANCY=strict."""
    mode = os.environ.get("STREAMLINE_TEST_TENANCY", "none")
    assert mode in {"none", "strict"}, f"STREAMLINE_TEST_TENANCY={mode}"
    return TENANT if mode == "strict" else None


@pytest.fixture
def stored_name(tenant_id: str | None) -> Callable[[str], str]:
    """The id under which a schedule or subscriber of that name is stored."""
    return lambda name: name if tenant_id is None else f"{tenant_id}/{name}"


@pytest.fixture
def make_app(database: Any, tenant_id: str | None) -> Maker:
    """Make apps over the test's database; enter them with `async with`.

    With STREAMLINE_TEST_TENANCY=strict they require tenants, and are bound to one.
    """

    def make(*workflows: Workflow[Any, Any, Any], **options: Any) -> Streamline:
        is_bound = tenant_id is not None and "tenancy" not in options
        made: Any = (OneTenant if is_bound else Streamline)(
            database, workflows=workflows, **{"worker": QUICK, **options}
        )
        return cast(Streamline, made)

    return make


@pytest.fixture
def runs(database: Any) -> Any:
    """The collection of runs, to look at what is stored or to damage it."""
    return database["streamline.runs"]
