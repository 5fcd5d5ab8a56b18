"""What becomes of a schedule as time goes on: decisions over its document, each for one guarded write.

An occurrence is decided first and started then: the write that moves the cursor past it puts it among those that
``waiting`` to be started, and it leaves them once its run is stored. A process that dies in between leaves the
decision behind; whoever looks next starts the run under the same id.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from streamline.errors import ScheduleError
from streamline.features.recurrence.recurrence import Recurrence
from streamline.features.recurrence.terms import Terms, is_same_end, is_same_series, recurrence_of
from streamline.features.recurrence.wall_clock import Occurrence

Document = Mapping[str, Any]
Put = dict[str, Any]
Outcome = str | Put

GRACE = timedelta(minutes=1)  # how late an occurrence may be noticed and still count as on time
TAKE_OVER = timedelta(seconds=2)  # after so long somebody else starts what was decided
LOOK_AGAIN = timedelta(milliseconds=500)  # how often to see whether the run before has ended
SET_ASIDE = timedelta(seconds=5)  # well within GRACE: who can read it must not find it late
WAITING_MAX = 1000
_AT_ONCE = 50
_MILLISECOND = timedelta(milliseconds=1)


def first_of(terms: Document, now: datetime, occurrences: int = 0) -> Occurrence | None:
    """Return what occurs next, or None where nothing is to come any more."""
    if terms["count"] is not None and occurrences >= terms["count"]:
        return None
    return recurrence_of(terms).first(now)


def born(key: str, name: str, tenant_id: str | None, workflow: str, terms: Terms, stored: Any, now: datetime) -> Put:
    """Return a new schedule as it is stored; raise `ScheduleError` where it would never start anything."""
    first = first_of(terms, now)
    if first is None:
        raise _nothing_to_come(terms)
    return {
        "_id": key,
        "name": name,
        "tenant_id": tenant_id,
        "workflow": workflow,
        **terms,
        "input": stored,
        "paused": False,
        "next_at": first.at,
        "due_at": first.at,
        "waiting": [],
        "occurrences": 0,
        "skipped": 0,
        "failed": 0,
        "last_run_id": None,
        "last_at": None,
        "last_error": None,
        "created_at": now,
        "updated_at": now,
    }


def decide(document: Document, now: datetime, *, is_busy: bool) -> Put:
    """Decide about the occurrences that have come, and move the cursor past them; empty where none has.

    What is caught up with is never skipped: where it must not overlap it waits its turn.

    Args:
        document: The schedule.
        now: The present instant.
        is_busy: Whether the run that it started last is not over.
    """
    if document["next_at"] is None or document["next_at"] > now:
        return {}
    recurrence, waiting, skipped = recurrence_of(document), list(document["waiting"]), 0
    allowed = None if document["count"] is None else document["count"] - document["occurrences"] + len(waiting)
    come = _come(document, recurrence, now)
    for at in come:
        if allowed is not None and len(waiting) >= allowed:
            break
        is_caught_up_with = now - at > GRACE or (len(come) > 1 and document["catch_up"] == "all")
        is_in_the_way = document["overlap"] == "skip" and not is_caught_up_with and (is_busy or waiting)
        if is_in_the_way or len(waiting) >= WAITING_MAX:
            skipped += 1
        else:
            waiting.append(at)
    occurrences = document["occurrences"] + len(waiting) - len(document["waiting"])
    following = first_of(document, now, occurrences)
    next_at = None if following is None else following.at
    return {
        "waiting": waiting,
        "occurrences": occurrences,
        "skipped": document["skipped"] + skipped,
        "next_at": next_at,
        "due_at": now + TAKE_OVER if waiting else next_at,
    }


def ready(document: Document, *, is_busy: bool) -> list[datetime]:
    """Return the occurrences whose runs may be started now, in order."""
    waiting: list[datetime] = document["waiting"]
    if document["overlap"] == "allow":
        return waiting[:_AT_ONCE]
    is_held_back = is_busy and document["overlap"] != "cancel_running"
    return [] if is_held_back else waiting[:1]


def ticked_off(document: Document, begun: Mapping[datetime, Outcome], now: datetime) -> Put:
    """Take from those that wait what was started, or could not be.

    Args:
        document: The schedule.
        begun: By occurrence the id of its run, or why there is none: ``code``, ``message``, ``at``.
        now: The present instant.
    """
    rest = [at for at in document["waiting"] if at not in begun]
    due_at = document["next_at"] if not rest else now + LOOK_AGAIN
    put: Put = {"waiting": rest, "due_at": None if document["paused"] else due_at}
    failed: int = document["failed"]
    for at, outcome in begun.items():
        if not isinstance(outcome, str):
            failed += 1
            put |= {"failed": failed, "last_error": outcome}
        elif document["last_at"] is None or at > document["last_at"]:
            put |= {"last_run_id": outcome, "last_at": at}
    return put


def put_off(now: datetime) -> Put:
    """Look again in a while."""
    return {"due_at": now + LOOK_AGAIN}


def set_aside(now: datetime) -> Put:
    """Look again in some seconds: what is stored cannot be read here, though perhaps elsewhere."""
    return {"due_at": now + SET_ASIDE}


def paused(now: datetime) -> Put:
    """Start nothing until it is resumed."""
    return {"paused": True, "due_at": None, "updated_at": now}


def resumed(document: Document, now: datetime) -> Put:
    """Go on with what occurs next; what was missed meanwhile stays so."""
    return {"paused": False, "updated_at": now} | _aimed(document, document, now)


def changed(document: Document, terms: Terms, now: datetime) -> Put:
    """Go on under other terms: with what occurs next by them, or where only the end is another, with what is due."""
    put: Put = {**terms, "updated_at": now}
    if is_same_series(document, terms):
        put["rule"] = document["rule"]
        if is_same_end(document, terms):
            return put
        put |= _aimed(document, put, _just_before_due(document, now))
    else:
        put |= _aimed(document, terms, now)
        if put["next_at"] is None:
            raise _nothing_to_come(terms)
    return put | ({"due_at": None} if document["paused"] else {})


def delay_of(document: Document, at: datetime) -> timedelta:
    """Return by how much the run of an occurrence is put off: at random, but always the same."""
    if not document["jitter"]:
        return timedelta()
    drawn = int.from_bytes(sha256(run_id_of(document, at).encode()).digest()[:8]) / 2**64
    return timedelta(seconds=document["jitter"] * drawn) // _MILLISECOND * _MILLISECOND


def run_id_of(document: Document, at: datetime) -> str:
    """Return the id of the one run of an occurrence."""
    text = at.astimezone(UTC).isoformat(timespec="milliseconds" if at.microsecond else "seconds")
    return f"{document['_id']}@{text.removesuffix('+00:00')}Z"


def _come(document: Document, recurrence: Recurrence, now: datetime) -> list[datetime]:
    """Return the occurrences up to now that are to be considered: those on time, and what is caught up with."""
    before, catch_up = document["next_at"] - _MILLISECOND, document["catch_up"]
    if catch_up != "all":
        on_time = recurrence.latest(max(before, now - GRACE - _MILLISECOND), now, WAITING_MAX)
        if on_time or catch_up == "skip":
            return [occurrence.at for occurrence in on_time]
    limit = WAITING_MAX if catch_up == "all" else 1
    return [occurrence.at for occurrence in recurrence.latest(before, now, limit)]


def _just_before_due(document: Document, now: datetime) -> datetime:
    """Return the instant from which a look finds what is due and has not been decided; now, where nothing is."""
    next_at: datetime | None = document["next_at"]
    return now if next_at is None or document["paused"] else min(now, next_at - _MILLISECOND)


def _aimed(document: Document, terms: Document, since: datetime) -> Put:
    following = first_of(terms, since, document["occurrences"])
    next_at = None if following is None else following.at
    return {"next_at": next_at, "due_at": since if document["waiting"] else next_at}


def _nothing_to_come(terms: Document) -> ScheduleError:
    kind = terms["rule"]["kind"]
    return ScheduleError(f"{kind}: nothing is to come; it lies in the past, or never occurs", field=kind)
