"""Answers and events: exactly one of them, a timeout or an end closes a wait, and what else it leaves in the run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from streamline.domain.change import apply
from streamline.domain.payloads import Encoded
from streamline.domain.place import Place, here
from streamline.domain.reactions import matches
from streamline.domain.run import read_waits
from streamline.domain.statuses import TERMINAL
from streamline.domain.transitions import answering, jumping, operating, stepping
from streamline.domain.transitions.answering import INBOX_MAX, Reply, Target
from streamline.domain.transitions.patching import Patch, patched
from streamline.domain.transitions.stepping import Ending
from streamline.errors import AlreadyFinished, InvalidInput, NotWaiting, PayloadTooLarge
from tests.conformance.documents import NOW, held
from tests.unit.played import ERROR, LATER, after, group, opened, parked, taken, types, undone

ANY_KIND = Target(("wait", "approval", "question", "hook", "event"))
YES = Reply("answered", Encoded({"n": 1}, 40), by="ann", reason="so")
FAR = LATER + timedelta(days=1)


def waiting(**entry: Any) -> dict[str, Any]:
    return parked(held("r"), k=opened("approval", **entry))


def answered(run: dict[str, Any], target: Target = ANY_KIND, reply: Reply = YES) -> dict[str, Any]:
    return after(run, answering.answer(run, target, reply, NOW))


def test_an_answer_closes_the_wait_and_makes_the_run_due() -> None:
    run = answered(waiting(hash="h", due_at=FAR, data={"shown": 1}))
    entry = run["steps"][0]["memo"]["k"]
    assert (entry["outcome"], entry["output"], entry["by"], entry["reason"], entry["at"]) == (
        "answered",
        {"n": 1},
        "ann",
        "so",
        NOW,
    )
    assert not entry.keys() & {"open", "data"}
    assert run["due_at"] == NOW
    assert not run.keys() & {"hooks", "waiting_since", "waiting_for"}
    assert run["size"] == 40
    assert run["events"][-1]["type"] == "wait.answered"
    assert (run["events"][-1]["key"], run["events"][-1]["by"], run["events"][-1]["outcome"]) == ("k", "ann", "answered")


def test_of_many_answers_the_first_wins() -> None:
    run = waiting()
    first, second = (answering.answer(run, ANY_KIND, Reply(outcome), NOW) for outcome in ("approved", "rejected"))
    run = after(run, first)
    assert not apply(run, second)
    with pytest.raises(NotWaiting):
        answering.answer(run, ANY_KIND, YES, NOW)
    assert run["steps"][0]["memo"]["k"]["outcome"] == "approved"


def test_an_answer_and_a_cancellation_exclude_each_other_in_either_order() -> None:
    run = waiting()
    answer, cancel = answering.answer(run, ANY_KIND, YES, NOW), operating.cancel(run, NOW, reason=None, by=None)
    assert cancel is not None
    assert not apply(after(run, cancel), answer)
    assert not apply(after(run, answer), cancel)
    with pytest.raises(NotWaiting):
        answering.answer(after(run, cancel), ANY_KIND, YES, NOW)


def test_an_answer_and_a_timeout_exclude_each_other_in_either_order() -> None:
    run = taken(waiting(due_at=LATER), now=LATER)
    timed_out = Patch(
        here(run), {"steps.0.memo.k": {"kind": "approval", "outcome": "timed_out"}}, closes=frozenset("k")
    )
    timeout, answer = patched(run, [timed_out], LATER), answering.answer(run, ANY_KIND, YES, NOW)
    assert not apply(after(run, timeout), answer)
    assert not apply(after(run, answer), timeout)
    assert not after(run, timeout).keys() & {"waiting_since", "waiting_for"}


@pytest.mark.parametrize("seconds", [0, 1])
def test_an_answer_that_comes_when_time_is_up_is_refused_whoever_has_seen_to_the_timeout(seconds: int) -> None:
    run = waiting(due_at=NOW - timedelta(seconds=seconds))
    with pytest.raises(NotWaiting):
        answering.answer(run, ANY_KIND, YES, NOW)
    answering.answer(waiting(due_at=NOW + timedelta(milliseconds=1)), ANY_KIND, YES, NOW)


def test_only_those_who_may_can_answer() -> None:
    run = waiting(approvers=["ann", "bob"])
    for by in (None, "eve", "", "an"):
        with pytest.raises(InvalidInput) as caught:
            answering.answer(run, ANY_KIND, Reply("approved", by=by), NOW)
        assert caught.value.field == "by"
    assert answered(run)["steps"][0]["memo"]["k"]["by"] == "ann"


@pytest.mark.parametrize(
    "target",
    [Target(("question",)), Target(("approval",), key="other"), Target(("hook",), hash="h"), Target(())],
)
def test_what_is_not_waited_for_cannot_be_answered(target: Target) -> None:
    with pytest.raises(NotWaiting):
        answering.answer(waiting(hash="other"), target, YES, NOW)


def test_the_oldest_wait_is_answered_first_and_the_others_stay_open() -> None:
    late, early = opened("wait", "late", since=LATER, hash="hl"), opened("wait", "early", hash="he")
    run = answered(parked(held("r"), late=late, early=early))
    assert run["steps"][0]["memo"]["early"]["outcome"] == "answered"
    assert run["steps"][0]["memo"]["late"]["open"]
    assert (run["hooks"], run["waiting_since"], run["waiting_for"]) == (["hl"], LATER, ["wait"])


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_a_run_that_has_ended_can_be_told_nothing(status: str) -> None:
    run = waiting() | {"status": status}
    with pytest.raises(NotWaiting):
        answering.answer(run, ANY_KIND, YES, NOW)
    with pytest.raises(AlreadyFinished):
        answering.deliver(run, "paid", YES.payload, "e1", NOW)


# Pause, lease, retry


def test_an_answer_to_a_paused_run_is_kept_until_it_is_unpaused() -> None:
    run = waiting()
    run = answered(after(run, operating.pause(run, NOW, reason=None, by=None)))
    assert "due_at" not in run
    assert run["paused"]["due_at"] == NOW
    assert run["steps"][0]["memo"]["k"]["outcome"] == "answered"
    assert after(run, operating.unpause(run, NOW))["due_at"] == NOW


def test_an_answer_to_a_run_at_work_leaves_its_driver_in_place_and_is_noticed() -> None:
    before = taken(waiting(due_at=FAR) | {"due_at": NOW})
    run = answered(before)
    assert (run["status"], run["lease"], run["nudged"]) == ("running", before["lease"], True)
    assert "due_at" not in run


def test_an_answer_does_not_cut_the_pause_before_another_attempt_short() -> None:
    run = taken(waiting(due_at=FAR) | {"due_at": NOW})
    run = after(run, stepping.try_again(run, here(run), ERROR, LATER, NOW))
    assert (run["waiting_since"], run["due_at"]) == (NOW, LATER)
    run = answered(run)
    assert run["due_at"] == LATER
    assert operating.nudge(run, NOW, {"child": "c"}) is None
    assert run["steps"][0]["memo"]["k"]["outcome"] == "answered"


@pytest.mark.parametrize(
    "end",
    [
        lambda run: stepping.fail(run, here(run), ERROR, Ending(NOW)),
        lambda run: operating.cancel(run, NOW, reason=None, by=None),
        lambda run: stepping.give_up(run, ERROR, Ending(NOW), "run.timed_out"),
    ],
)
def test_a_retried_run_can_be_answered_where_it_stopped(end: Callable[[dict[str, Any]], Any]) -> None:
    run = after(run := taken(waiting(hash="h", due_at=FAR) | {"due_at": NOW}), end(run))
    assert not run.keys() & {"hooks", "waiting_since", "waiting_for"}
    assert read_waits(run) == ()
    run = after(run, operating.retry(run, NOW))
    assert (run["hooks"], run["waiting_since"], run["waiting_for"]) == (["h"], NOW, ["approval"])
    assert answered(run)["steps"][0]["memo"]["k"]["outcome"] == "answered"


@pytest.mark.parametrize(
    "make",
    [
        lambda run: stepping.complete(run, here(run), Encoded(1, 1), Ending(NOW)),
        lambda run: stepping.skip(run, here(run), Ending(NOW), ERROR),
        lambda run: jumping.jump(run, here(run), "s0", Ending(NOW)),
        lambda run: jumping.jump(run, here(run), "s2", Ending(NOW)),
        lambda run: jumping.rewind(run, "s0", NOW),
    ],
)
def test_a_step_that_is_left_leaves_nothing_to_answer(make: Callable[[dict[str, Any]], Any]) -> None:
    run = after(run := taken(waiting(hash="h", due_at=FAR) | {"due_at": NOW}), make(run))
    assert not run.keys() & {"hooks", "waiting_since", "waiting_for"}
    with pytest.raises(NotWaiting):
        answering.answer(run, ANY_KIND, YES, NOW)


# Groups and compensations


def test_an_answer_goes_to_the_member_that_waits_and_not_to_one_that_has_failed() -> None:
    run = group()
    old, new = opened("approval", "k", hash="h0"), opened("approval", "k", since=LATER, hash="h1")
    opens = [Patch(Place(k), {f"steps.{k}.memo.k": each}, opens={"k": each}) for k, each in enumerate((old, new))]
    run = after(run, patched(run, opens, NOW))
    assert sorted(run["hooks"]) == ["h0", "h1"]
    run = after(run, stepping.fail(run, Place(0), ERROR, Ending(NOW)))
    assert (run["status"], run["hooks"], run["waiting_since"]) == ("running", ["h1"], LATER)
    assert [wait.step for wait in read_waits(run)] == ["s1"]
    run = answered(run)
    assert run["steps"][1]["memo"]["k"]["outcome"] == "answered"
    assert run["steps"][0]["memo"]["k"]["open"]


@pytest.mark.parametrize("end", [stepping.complete, stepping.skip])
def test_a_member_that_ends_takes_its_waits_with_it(end: Any) -> None:
    run, entry = group(), opened("hook", "k", hash="h0")
    run = after(run, patched(run, [Patch(Place(0), {"steps.0.memo.k": entry}, opens={"k": entry})], NOW))
    value = (Encoded(1, 1),) if end is stepping.complete else ()
    run = after(run, end(run, Place(0), *value, Ending(NOW)))
    assert run["status"] == "running"
    assert not run.keys() & {"hooks", "waiting_since", "waiting_for"}


def test_while_a_run_is_undone_only_what_undoes_it_can_be_answered() -> None:
    run = undone()
    run["steps"][2]["memo"] = {"k": opened("approval", hash="dead")}
    assert read_waits(run) == ()
    with pytest.raises(NotWaiting):
        answering.answer(run, ANY_KIND, YES, NOW)
    run = parked(run, Place(1, undo=True), u=opened("approval", "u", since=LATER, hash="live"))
    assert (run["hooks"], run["waiting_since"]) == (["live"], LATER)
    assert [wait.key for wait in read_waits(run)] == ["u"]
    run = answered(run)
    assert (run["status"], run["due_at"]) == ("compensating", NOW)
    assert run["steps"][1]["compensation"]["memo"]["u"]["outcome"] == "answered"
    assert not run.keys() & {"hooks", "waiting_since", "waiting_for"}


# Events


def delivered(run: dict[str, Any], name: str = "paid", value: Any = None, event_id: str = "e1") -> dict[str, Any]:
    return after(run, answering.deliver(run, name, Encoded(value, 10), event_id, NOW))


def test_an_event_answers_the_wait_for_it() -> None:
    run = delivered(
        parked(held("r"), k=opened("event", name="paid", match={"order.id": 7})), value={"order": {"id": 7}}
    )
    assert run["steps"][0]["memo"]["k"]["output"] == {"order": {"id": 7}}
    assert run["due_at"] == NOW
    assert "inbox" not in run


@pytest.mark.parametrize(
    ("name", "value"), [("lost", {"id": 7}), ("paid", {"id": 8}), ("paid", None), ("paid", [7]), ("paid", {})]
)
def test_an_event_that_nothing_waits_for_is_kept(name: str, value: Any) -> None:
    run = delivered(parked(held("r"), k=opened("event", name="paid", match={"id": 7})), name, value)
    assert [(event["id"], event["name"], event["payload"]) for event in run["inbox"]] == [("e1", name, value)]
    assert "due_at" not in run
    assert run["steps"][0]["memo"]["k"]["open"]
    assert types(run)[-1] == "event.received"
    assert run["size"] == 10


def test_each_event_answers_one_wait_the_oldest_that_it_fits() -> None:
    run = parked(
        held("r"),
        late=opened("event", "late", since=LATER, name="paid"),
        other=opened("event", "other", name="paid", match={"id": 2}),
        early=opened("event", "early", since=NOW + timedelta(seconds=1), name="paid"),
    )
    for payload, key in (({"id": 1}, "early"), ({"id": 2}, "other"), ({"id": 3}, "late")):
        run = delivered(run, value=payload)
        assert run["steps"][0]["memo"][key]["output"] == payload
    assert "inbox" not in run


def test_an_event_reaches_the_wait_it_fits_whatever_else_has_the_same_address_or_key() -> None:
    run = group()
    for k in range(2):
        entry = opened("event", "event#1", since=NOW + timedelta(seconds=k), name="paid", match={"id": k})
        change = patched(run, [Patch(Place(k), {f"steps.{k}.memo.event#1": entry}, opens={"event#1": entry})], NOW)
        run = after(run, change)
    run = delivered(run, value={"id": 1})
    assert run["steps"][1]["memo"]["event#1"]["outcome"] == "answered"
    assert run["steps"][0]["memo"]["event#1"]["open"]
    assert "inbox" not in run


def test_a_wait_whose_time_is_up_is_not_answered_by_an_event() -> None:
    run = delivered(parked(held("r"), k=opened("event", name="paid", due_at=NOW)))
    assert run["steps"][0]["memo"]["k"]["open"]
    assert len(run["inbox"]) == 1


def test_a_run_keeps_only_so_many_events_and_says_so() -> None:
    run = held("r")
    for i in range(INBOX_MAX):
        run = delivered(run, event_id=f"e{i}")
    assert (len(run["inbox"]), run["size"]) == (INBOX_MAX, 10 * INBOX_MAX)
    with pytest.raises(PayloadTooLarge):
        answering.deliver(run, "paid", Encoded(None, 10), "more", NOW)


@pytest.mark.parametrize(
    ("match", "payload", "fits"),
    [
        (None, None, True),
        ({}, 5, True),
        ({"a": 1}, {"a": 1, "b": 2}, True),
        ({"a": 1, "b": 2}, {"a": 1}, False),
        ({"a.b": 1}, {"a": {"b": 1}}, True),
        ({"a.b": 1}, {"a": [{"b": 1}]}, False),
        ({"a.b": 1}, {"a.b": 1}, False),
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, False),
        ({"a": "$x"}, {"a": "$x"}, True),
        ({"a": 1}, "a", False),
    ],
)
def test_a_payload_fits_where_it_has_all_the_values(match: Any, payload: Any, fits: bool) -> None:
    assert matches(match, payload) is fits
