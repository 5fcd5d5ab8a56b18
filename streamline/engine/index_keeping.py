"""The indexes and collections that a deployment needs: created, or only looked at."""

from __future__ import annotations

import logging
from functools import partial

from streamline.clock import Clock
from streamline.errors import UnsafeDeployment
from streamline.ids import new_worker_id
from streamline.settings import Settings
from streamline.store import INDEXES, IndexIssue, Store, WakeChannel, check_indexes, ensure_indexes_of

logger = logging.getLogger("streamline.engine")

_REMEDY = "`python -m streamline indexes` creates what is missing"


async def wakes_of(store: Store, clock: Clock, settings: Settings) -> WakeChannel | None:
    """Return the wake channel, where there is to be one, and its collection is there or may be created."""
    if not settings.wake_channel:
        return None
    wakes = _channel(store, clock, settings)
    if settings.create_indexes or await store.persist(wakes.exists):
        return wakes
    logger.warning("%s is missing: processes do not wake one another; %s", store.driver.wakes, _REMEDY)
    return None


async def ensure_all(store: Store, wakes: WakeChannel | None) -> None:
    """Create the indexes and collections that are missing."""
    for collection in INDEXES:
        await store.persist(partial(ensure_indexes_of, store.driver, collection))
    if wakes is not None:
        await store.persist(wakes.ensure)


async def check_all(store: Store, clock: Clock, settings: Settings) -> list[IndexIssue]:
    """Return what is not as it should be."""
    found = await store.persist(partial(check_indexes, store.driver))
    if settings.wake_channel and not await store.persist(_channel(store, clock, settings).exists):
        found.append(IndexIssue(store.driver.wakes, store.driver.wakes, "missing", "the capped collection of wakes"))
    return found


async def refuse_missing(store: Store) -> None:
    """Warn of indexes that are missing or different; raise `UnsafeDeployment` where a promise depends on one."""
    found = [each for each in await store.persist(partial(check_indexes, store.driver)) if not each.is_harmless]
    needed = [each for each in found if each.unique]
    if needed:
        named = ", ".join(f"{each.index} ({each.problem})" for each in needed)
        raise UnsafeDeployment(f"unique indexes are not there: {named}; {_REMEDY}", field="indexes")
    if found:
        named = ", ".join(f"{each.index} ({each.problem})" for each in found)
        logger.warning("indexes are not as they should be: %s; %s", named, _REMEDY)


def _channel(store: Store, clock: Clock, settings: Settings) -> WakeChannel:
    return WakeChannel(store.driver, clock, sender=new_worker_id(), size=settings.wakes_size)
