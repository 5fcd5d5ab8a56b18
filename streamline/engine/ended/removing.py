"""Removing one run, for operators."""

from __future__ import annotations

from streamline.engine.ended.closer import Closer
from streamline.engine.runtime import Runtime
from streamline.store import Scope


async def remove_run(runtime: Runtime, run_id: str, scope: Scope, *, children: bool = False) -> int:
    """Remove a run that has ended with what belongs to it; return how many runs that were.

    Args:
        runtime: The app's parts.
        run_id: The run.
        scope: Where it is looked for.
        children: Whether its children go with it, and theirs.

    Raises:
        RunNotFound: There is no such run in scope.
        IllegalTransition: It has not ended, its parent has yet to learn how it did, or one of its children goes on.
        Conflict: What it owes to others cannot be settled at present.
        StoreUnavailable: The database did not answer; a removal that has begun is finished by the next sweep.
    """
    return await Closer(runtime, 0.0).clearing.remove(run_id, scope, children=children)
