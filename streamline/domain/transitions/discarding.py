"""How a run that has ended is marked to be removed, so that a process that dies on the way leaves nothing behind."""

from __future__ import annotations

from datetime import datetime

from streamline.domain.change import Change
from streamline.domain.place import Document
from streamline.domain.statuses import ACTIVE
from streamline.errors import IllegalTransition


def has_ended(run: Document) -> bool:
    """Return whether nothing but an operator moves the run any more; a damaged one counts as ended."""
    return run.get("status") not in ACTIVE


def check_ended(run: Document) -> None:
    """Raise `IllegalTransition` where the run has not ended."""
    if not has_ended(run):
        raise IllegalTransition(f"delete: the run is {run['status']}; cancel it first", field="status")


def check_lasting(run: Document, now: datetime) -> None:
    """Raise `IllegalTransition` where the server may remove the run, or parts of it, at any moment."""
    expire_at = run.get("expire_at")
    if expire_at is not None and expire_at <= now:
        raise IllegalTransition("the run's retention is over: it is being removed", field="expire_at")


def discarded(run: Document, now: datetime, *, children: bool) -> Change:
    """Return the change that marks an ended run: it can only be removed from then on, by whoever comes upon it.

    Its removal is something that it owes, so that the sweep of owed duties finds it. The server must not be faster:
    the run goes last, because it says what else there is.
    """
    rev = run.get("rev")
    put = {"removed_at": now, "owes_at": now, "updated_at": now, "rev": rev + 1 if isinstance(rev, int) else 1}
    put |= {"takes_children": True} if children else {}
    return Change(guard={"status": run.get("status"), "rev": rev}, put=put, drop=("expire_at",))
