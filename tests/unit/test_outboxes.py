"""What a run has yet to tell, how it is marked, and what goes into the log."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from streamline.domain.change import EVENTS_KEPT, Change, apply
from streamline.domain.run import entry_of, read_entry
from streamline.domain.transitions import operating
from streamline.features.outboxes import entries_of, is_full, marked, note_of, unlogged
from tests.conformance.documents import NOW, ended, held

LATER = NOW + timedelta(seconds=1)


def event(seq: int, **more: Any) -> dict[str, Any]:
    return {"seq": seq, "type": "said", "at": NOW, **more}


def test_what_the_log_has_is_not_to_be_told_again() -> None:
    run = {**held("r"), "events": [event(seq) for seq in range(5, 9)], "event_seq": 8}
    assert unlogged(run) == 4
    assert unlogged({**run, "relayed": 6}) == 2
    assert unlogged({**run, "relayed": 8}) == 0
    del run["events"]
    assert unlogged({**run, "event_seq": 500}) == EVENTS_KEPT
    assert unlogged({**run, "event_seq": 500, "relayed": 490}) == 10


def test_a_change_that_tells_something_marks_the_run_and_keeps_what_is_not_logged() -> None:
    run = held("r")
    change = operating.pause(run, NOW, reason=None, by=None)
    assert change is not None
    one = marked(run, change, LATER)
    assert one.events == change.events
    assert apply(run, one)
    assert (run["outbox_at"], run["event_seq"]) == (LATER, 2)
    assert marked(run, Change({"rev": 2}, {"rev": 3}), LATER) == Change({"rev": 2}, {"rev": 3})
    full = {**run, "events": [event(seq) for seq in range(1, 91)], "event_seq": 90}
    many = Change({"rev": 2}, events=tuple(event(seq) for seq in range(91, 111)))
    assert is_full(full, many)
    assert not is_full({**full, "relayed": 20}, many)
    assert not is_full(full, Change({"rev": 2}))
    assert apply(full, marked(full, many, LATER))
    assert [each["seq"] for each in full["events"]] == list(range(1, 111))
    assert full["outbox_at"] == LATER, "a later mark does not put off an earlier one, and this was the first"


def test_a_mark_does_not_put_off_an_earlier_one() -> None:
    run = {**held("r"), "outbox_at": NOW}
    change = operating.pause(run, NOW, reason=None, by=None)
    assert change is not None
    assert apply(run, marked(run, change, LATER))
    assert run["outbox_at"] == NOW


def test_when_a_run_is_to_be_removed_is_left_to_the_relay() -> None:
    run = ended("r") | {"retention": {"done": 60.0}}
    change = marked(run, Change({"rev": 1}, {"rev": 2, "expire_at": NOW}), LATER)
    assert change.put == {"rev": 2}
    assert change.earliest == {"outbox_at": LATER}
    assert note_of(run) == {
        "run_id": "r", "seq": 1, "rev": 1, "put": {"expire_at": NOW + timedelta(minutes=1)},
    }  # fmt: skip
    assert note_of(run | {"owes_at": NOW})["put"] == {}
    assert note_of(held("r")) == {"run_id": "r", "seq": 1}


def test_the_entries_of_a_run_are_its_events_since_the_log_was_begun() -> None:
    old = event(3, at=NOW - timedelta(seconds=1))
    damaged = [7, None, {"seq": "x", "at": NOW}, {"seq": 9}, {"at": NOW}]
    run = {**held("r"), "events": [event(1), event(2), old, *damaged, event(4, step="s0", n=1)], "relayed": 1}
    entries = entries_of(run, NOW)
    assert [entry["seq"] for entry in entries] == [2, 4]
    assert entries[1] == {
        "run_id": "r", "seq": 4, "workflow": "flow", "version": "1.0.0", "tenant_id": None, "born": "born-r",
        "event": event(4, step="s0", n=1),
    }  # fmt: skip


def test_an_event_of_the_log_reads_as_it_was_stored() -> None:
    (entry,) = entries_of({**held("r"), "events": [event(4, step="s0", attempt=2, n=1, mark="m")]}, NOW)
    read = read_entry({"_id": 9, **entry})
    assert (read.run_id, read.seq, read.step, read.attempt, read.data) == ("r", 4, "s0", 2, {"n": 1})
    assert (read.position, read.workflow, read.version, read.tenant_id) == (9, "flow", "1.0.0", None)
    assert read_entry(entry_of(read)) == read
