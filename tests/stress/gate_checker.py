"""What must hold of runs behind gates, whoever started them and whoever died: a sentence for each violation.

The traces that handlers leave outside the database are the measure. `test_gate_checker.py` shows that each can fail.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from tests.stress.evidence import Evidence
from tests.stress.ledger import Entry

SECOND = 1_000_000_000
LEFT = ("live", "slot", "queued_at", "debounce_key", "due_at", "lease", "active_key")


@dataclass(frozen=True)
class Span:
    """A run at work, from the first instant of its first handler to the last of its last one.

    Whatever happens to its workers in between: the run holds its slot for longer than that, so two spans overlap only
    where two runs held one. It was `admitted` when it began by what is stored, on the same clock; its first handler may
    begin much later, where the worker died before it did.
    """

    run: str
    key: str
    begins: int
    ends: int
    admitted: int


def spans(evidence: Evidence) -> list[Span]:
    """Return the runs at work, by the instants at which they began."""
    entered, left = dict[str, Entry](), dict[str, int]()
    for entry in evidence.all("enter"):
        entered.setdefault(entry["run"], entry)
    for entry in evidence.all("leave"):
        left[entry["run"]] = entry["at"]
    found = []
    for run, first in entered.items():
        begins, stored = int(first["at"]), evidence.documents.get(run, {}).get("started_at")
        late = 0.0 if stored is None else first["now"] - stored.timestamp()
        found.append(Span(run, first["key"], begins, left.get(run, begins), begins - int(late * SECOND)))
    return sorted(found, key=lambda span: span.begins)


def by_key(found: Iterable[Span]) -> dict[str, list[Span]]:
    """Return the spans of each key."""
    grouped = defaultdict[str, list[Span]](list)
    for span in found:
        grouped[span.key].append(span)
    return dict(grouped)


def crowds(evidence: Evidence, since: int = 0) -> dict[str, int]:
    """Return the largest number of runs of each key at work when one began that was admitted from an instant on."""
    return {
        key: max((_at_work(several, each.begins) for each in several if each.admitted >= since), default=0)
        for key, several in by_key(spans(evidence)).items()
    }


def too_many_at_work(evidence: Evidence, limit: int, since: int = 0) -> Iterator[str]:
    """No run that was admitted from an instant on begins where as many as the limit are at work."""
    for key, several in by_key(spans(evidence)).items():
        for each in several:
            if each.admitted >= since and (crowd := _at_work(several, each.begins)) > limit:
                yield f"key {key}: with {each.run} there were {crowd} at work, of {limit}"


def too_many_begun(evidence: Evidence, limit: int, window: float, since: datetime | None = None) -> Iterator[str]:
    """No window holds more starts than the limit, by the instants that are stored, to the millisecond."""
    grouped = defaultdict[str, list[tuple[datetime, str]]](list)
    for run_id, run in evidence.documents.items():
        if "started_at" in run and (since is None or run["started_at"] >= since):
            grouped[run["input"]["key"]].append((run["started_at"], run_id))
    for key, unsorted in grouped.items():
        begun = sorted(unsorted)
        for (one, _), (other, run_id) in zip(begun, begun[limit:], strict=False):
            if other - one < timedelta(seconds=window):
                yield f"key {key}: {run_id} was start {limit + 1} within {(other - one).total_seconds():.3f} s"


def begun_late(evidence: Evidence, within: float) -> Iterator[str]:
    """A handler begins within so many seconds of the start that counts, unless its worker died before it did."""
    for run_id, late in lags(evidence).items():
        if not -0.05 <= late <= within:
            yield f"run {run_id}: its handler began {late:.3f} s after its start"


def lags(evidence: Evidence) -> dict[str, float]:
    """Return how many seconds after its stored start each run's handler began, where its first worker lived."""
    found = dict[str, float]()
    for entry in evidence.all("enter"):
        run = evidence.documents[entry["run"]]
        if entry["run"] not in found and not run["recovery_count"]:
            found[entry["run"]] = entry["now"] - run["started_at"].timestamp()
    return found


def lost_or_left(evidence: Evidence) -> Iterator[str]:
    """Every start that was acknowledged has its run, every run is done, and none holds anything back."""
    for entry in evidence.all("started"):
        if entry["run"] not in evidence.documents:
            yield f"run {entry['run']}: acknowledged, and not there"
    for run_id, run in evidence.documents.items():
        if run["status"] != "done":
            yield f"run {run_id}: {run['status']}, {run.get('error')}"
        if left := [name for name in LEFT if name in run]:
            yield f"run {run_id}: ended with {left}"


def more_than_asked_for(evidence: Evidence) -> Iterator[str]:
    """No call leaves more than one run."""
    asked = Counter(entry["n"] for entry in evidence.all("asking"))
    stored = Counter(run["input"]["n"] for run in evidence.documents.values())
    for n, times in stored.items():
        if times > asked[n]:
            yield f"input {n}: asked for {asked[n]} times, stored {times} times"


def outdated_inputs(evidence: Evidence) -> Iterator[str]:
    """A debounced run has the input of the last call that was told its id.

    Of calls at the same time either may be the last; a call is not, where another one that was told the same id began
    after it had ended. A call whose process died may have come at any time; the successor's is another one.
    """
    told = defaultdict[str, list[tuple[int, int, int]]](list)
    for entry in evidence.all("started"):
        told[entry["run"]].append((entry["asked"], entry["at"], entry["n"]))
    asked = Counter(entry["n"] for entry in evidence.all("asking"))
    for run_id, run in evidence.documents.items():
        n, calls = run["input"]["n"], told.get(run_id, [])
        if not calls or asked[n] > 1:
            continue
        ended = max((at for _, at, each in calls if each == n), default=None)
        last = max(asked for asked, _, _ in calls)
        if ended is None:
            yield f"run {run_id}: its input {n} is of a call that was told another id"
        elif ended < last:
            yield f"run {run_id}: its input {n} was replaced {(last - ended) / SECOND:.3f} s before the last call"


def at_once_under_one_key(evidence: Evidence) -> Iterator[str]:
    """Of the runs that hold one idempotency key, none was created before the one before it had ended."""
    grouped = defaultdict[str, list[tuple[datetime, datetime, str]]](list)
    for run_id, run in evidence.documents.items():
        if "idempotency_key" in run:
            grouped[run["idempotency_key"]].append((run["created_at"], run["ended_at"], run_id))
    for key, unsorted in grouped.items():
        for (_, ended, one), (created, _, other) in pairwise(sorted(unsorted)):
            if created < ended - timedelta(milliseconds=50):
                yield f"key {key}: {other} was created while {one} was active"


def _at_work(several: Iterable[Span], instant: int) -> int:
    return sum(span.begins <= instant < span.ends or span.begins == instant for span in several)
