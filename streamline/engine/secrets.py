"""The secret from which hook tokens are derived, where an app brings none of its own."""

from __future__ import annotations

import os

from streamline.ids import new_secret
from streamline.store import Store, statements

_NAME = "secret"


async def shared_secret(store: Store) -> str:
    """Return ``STREAMLINE_SECRET``, else the secret that all processes of the deployment share, made by the first.

    Whoever reads the database can open hooks with the latter: production brings its own.
    """
    given = os.environ.get("STREAMLINE_SECRET")
    if given:
        return given
    found = await store.run(statements.find_meta(_NAME))
    if not found:
        fresh = {"_id": _NAME, "value": new_secret()}
        found = await store.run(statements.insert_meta(fresh)) or [fresh]
    return str(found[0]["value"])
