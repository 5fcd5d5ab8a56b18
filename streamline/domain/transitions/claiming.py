"""How a worker takes runs: the due ones, and those whose worker no longer beats.

A claim changes the lease and leaves the revision alone: what it takes from others, they lose by their token, and it
touches no more of a stored run than it must, so that a damaged one can be taken and reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from streamline.domain.change import Absent, AtMost, Change, Counted, OneOf
from streamline.domain.statuses import CLAIMABLE, HELD


def lease_of(worker: str, token: str, now: datetime, until: datetime, news: str | None = None) -> dict[str, Any]:
    """Return the lease that a claim leaves in the run; `news` says what its driver has yet to record."""
    lease = {"worker": worker, "token": token, "at": now, "until": until}
    return lease if news is None else lease | {"news": news}


def take_due(routes: Sequence[str], now: datetime, lease: Mapping[str, Any], *, by: datetime) -> Change:
    """Return the claim of a run of one of the `routes` that is due `by` an instant.

    The attempt is counted here, before the handler can crash.
    """
    guard = {
        "route": OneOf(tuple(routes)),
        "status": OneOf(CLAIMABLE),
        "due_at": AtMost(by),
        "lease": Absent(),
        "paused": Absent(),
        "attempt": Counted(),
    }
    return Change(
        guard=guard,
        put={"status": "running", "lease": dict(lease), "updated_at": now},
        drop=("due_at",),
        add={"attempt": 1},
        earliest={"started_at": now},
    )


def take_admitted(routes: Sequence[str], now: datetime, lease: Mapping[str, Any], *, by: datetime) -> Change:
    """Return the claim of a due run that has passed its gates, and has not been begun anew since."""
    taken = take_due(routes, now, lease, by=by)
    taken.guard = {**taken.guard, "admitted_at": AtMost(now)}
    return taken


def take_undoing(routes: Sequence[str], now: datetime, lease: Mapping[str, Any], *, by: datetime) -> Change:
    """Return the claim of a due run that is being compensated, and stays so."""
    taken = take_due(routes, now, lease, by=by)
    guard = {**taken.guard, "status": "compensating"}
    return Change(guard=guard, put={"lease": dict(lease), "updated_at": now}, drop=("due_at",), add={"attempt": 1})


def take_expired(routes: Sequence[str], now: datetime, lease: Mapping[str, Any]) -> Change:
    """Return the claim of a run whose lease has run out; the recovery is counted here, before it can crash again."""
    guard = {
        "route": OneOf(tuple(routes)),
        "status": OneOf(HELD),
        "lease.until": AtMost(now),
        "paused": Absent(),
        "attempt": Counted(),
        "recovery_count": Counted(),
    }
    return Change(
        guard=guard,
        put={"lease": dict(lease), "updated_at": now},
        add={"attempt": 1, "recovery_count": 1},
    )
