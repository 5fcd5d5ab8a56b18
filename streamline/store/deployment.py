"""Whether the database can keep the engine's promises, and what time it is there."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pymongo.errors import PyMongoError

from streamline.clock import Clock
from streamline.errors import UnsafeDeployment
from streamline.store.driver import Driver
from streamline.store.outcomes import is_passing, translate

logger = logging.getLogger("streamline.store")

CALIBRATE_SECONDS = 60.0
_WIRE_OF_5_0 = 13
_PATIENT_PAUSE = 0.2
_NOTABLE_OFFSET = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Deployment:
    """What was found.

    Args:
        replica_set: Whether writes survive the loss of a node, and transactions are possible.
        clock_offset: How far this machine's clock was behind the server's.
    """

    replica_set: bool
    clock_offset: timedelta


async def check_deployment(driver: Driver, clock: Clock, *, patience: float) -> Deployment:
    """Check the server and client, and set the clock to the server's time.

    Raises:
        UnsafeDeployment: The server is older than 5.0, or retryable writes are switched off.
        StoreUnavailable: No server answered in the time allowed.
    """
    if not driver.options.retry_writes:
        raise UnsafeDeployment("retryWrites must be on: remove retryWrites=false", field="retryWrites")
    hello, round_trip = await _hello(driver, clock, patience)
    if hello.get("maxWireVersion", 0) < _WIRE_OF_5_0:
        raise UnsafeDeployment("MongoDB 5.0 or newer is needed", field="target")
    replica_set = driver.has_transactions = "setName" in hello or hello.get("msg") == "isdbgrid"
    if not replica_set:
        logger.warning(
            "the database is a standalone server: a run does not survive its loss, and there are no transactions"
        )
    if hello.get("arbiters"):
        logger.warning("the replica set has an arbiter: majority writes stall when a data-bearing member is away")
    offset = clock.calibrate(hello["localTime"], round_trip=round_trip)
    if abs(offset) > _NOTABLE_OFFSET:
        logger.warning(
            "this machine's clock is %.1f s behind the server's; the server's time is used", offset.total_seconds()
        )
    return Deployment(replica_set, offset)


async def calibrate(driver: Driver, clock: Clock) -> timedelta:
    """Set the clock to the server's time; return by how much it was behind."""
    sent = clock.monotonic()
    hello = await driver.command({"hello": 1})
    return clock.calibrate(hello["localTime"], round_trip=clock.monotonic() - sent)


async def _hello(driver: Driver, clock: Clock, patience: float) -> tuple[dict[str, Any], float]:
    deadline = clock.monotonic() + patience
    while True:
        sent = clock.monotonic()
        try:
            answer = await driver.command({"hello": 1})
        except PyMongoError as error:
            if not is_passing(error) or clock.monotonic() > deadline:
                raise translate(error) from error
            await clock.sleep(_PATIENT_PAUSE)
        else:
            return answer, clock.monotonic() - sent
