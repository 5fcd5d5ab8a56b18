"""Sessions and transactions of whichever driver the application holds."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def session_of(client: Any) -> AsyncIterator[Any]:
    """Lend a session; an unfinished transaction of it is aborted in the end."""
    session = client.start_session()
    session = await session if inspect.isawaitable(session) else session
    try:
        yield session
    finally:
        await session.end_session()


async def begin(session: Any) -> None:
    """Begin a transaction."""
    begun = session.start_transaction()
    if inspect.isawaitable(begun):
        await begun


@asynccontextmanager
async def transaction_of(client: Any) -> AsyncIterator[Any]:
    """Lend a session with a transaction, which is committed where the block ends well, and else aborted."""
    async with session_of(client) as session:
        await begin(session)
        yield session
        await session.commit_transaction()
