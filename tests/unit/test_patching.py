"""Patches: which of them may share a write, and what the shared write does."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from streamline.domain.change import Append, apply
from streamline.domain.payloads import Encoded
from streamline.domain.place import Place, here
from streamline.domain.transitions import jumping, stepping
from streamline.domain.transitions.patching import Patch, carrying, fitting, joined, patched
from streamline.domain.transitions.stepping import Ending
from tests.conformance.documents import NOW, draft, held
from tests.unit.played import LATER, after, group, opened, taken, types, undone

HERE = Place(0)


def put(path: str, value: Any = 1, **more: Any) -> Patch:
    return Patch(HERE, {path: value}, **more)


@pytest.mark.parametrize(
    ("paths", "count"),
    [
        ([], 0),
        (["a"], 1),
        (["a", "b", "c"], 3),
        (["a", "a"], 1),
        (["a", "a.b"], 1),
        (["a.b", "a"], 1),
        (["a.b.c", "b", "a"], 2),
        (["a.b", "a.c"], 2),
        (["a.b", "a.bc"], 2),
        (["steps.1", "steps.10"], 2),
        (["steps.1.memo.k", "steps.1.memo.k2"], 2),
        (["a", "b", "a.c", "d"], 2),
    ],
)
def test_patches_share_a_write_as_long_as_none_lies_within_another(paths: list[str], count: int) -> None:
    assert fitting([put(path) for path in paths]) == count


@pytest.mark.parametrize(
    "patch",
    [
        Patch(HERE, drop=("a.b",)),
        Patch(HERE, add={"a.b": 1}),
        Patch(HERE, append={"a.b": Append((1,))}),
        Patch(HERE, {"x": 1, "a.b": 1}),
    ],
)
def test_it_does_not_matter_what_is_done_at_a_path(patch: Patch) -> None:
    for other in ("a", "a.b", "a.b.c"):
        assert fitting([put(other), patch]) == fitting([patch, put(other)]) == 1
    assert fitting([put("a.c"), patch]) == 2


def test_what_is_taken_together_is_what_each_would_do_alone_in_whatever_order() -> None:
    patches = [
        Patch(HERE, {"steps.0.memo.a": {"kind": "call", "size": 3}}, weight=3, growth=3, entries=(("told", {"n": 1}),)),
        Patch(HERE, add={"state.n": 0.5, "metrics.m": 2}),
        Patch(HERE, append={"logs": Append((1, 2), 5)}),
        Patch(HERE, drop=("error",), growth=-1, entries=(("told", {"n": 2}),)),
    ]
    start = held("r") | {"error": "old", "size": 10}
    together = [after(start, patched(start, list(order), NOW)) for order in permutations(patches)]
    for run in together:
        assert (run["steps"][0]["memo"], run["state"], run["metrics"], run["logs"]) == (
            {"a": {"kind": "call", "size": 3}},
            {"n": 0.5},
            {"m": 2},
            [1, 2],
        )
        assert "error" not in run
        assert (run["size"], run["rev"]) == (12, 2)
        assert sorted(event["n"] for event in run["events"] if event["type"] == "told") == [1, 2]


def test_an_empty_write_is_a_write() -> None:
    run = after(held("r"), patched(held("r"), [], NOW))
    assert (run["rev"], run["updated_at"]) == (2, NOW)


def test_the_first_write_after_a_claim_says_when_the_step_began() -> None:
    run = taken(draft("r"))
    run = after(run, patched(run, [put("steps.0.memo.k")], LATER))
    assert run["steps"][0]["started_at"] == LATER
    assert types(run) == ["run.created", "step.started"]
    assert "news" not in run["lease"]


def test_every_place_that_is_written_is_fenced() -> None:
    run = group()
    change = patched(run, [Patch(Place(0), {"steps.0.x": 1}), Patch(Place(1), {"steps.1.x": 1})], NOW)
    assert apply(group(), change)
    for k in range(2):
        other = group()
        other["steps"][k]["id"] = "other"
        assert not apply(other, change)
    for meanwhile in ({"lease": {"token": "other"}}, {"rev": 2}, {"cursor": 1}):
        assert not apply(group() | meanwhile, change)


def test_waits_that_are_opened_and_closed_together_leave_only_the_open_ones() -> None:
    a, b, c = opened("hook", "a", hash="ha"), opened("wait", "b", since=LATER), opened("hook", "c", hash="hc")
    run = held("r")
    run = after(
        run, patched(run, [put("steps.0.memo.a", a, opens={"a": a}), put("steps.0.memo.b", b, opens={"b": b})], NOW)
    )
    assert (run["hooks"], run["waiting_since"], run["waiting_for"]) == (["ha"], NOW, ["hook", "wait"])
    closed = {"kind": "hook", "outcome": "timed_out"}
    shut = put("steps.0.memo.a", closed, closes=frozenset("a"))
    run = after(run, patched(run, [shut, put("steps.0.memo.c", c, opens={"c": c})], NOW))
    assert (run["hooks"], run["waiting_since"], run["waiting_for"]) == (["hc"], NOW, ["hook", "wait"])
    for address in ("b", "c"):
        last = put(f"steps.0.memo.{address}", closed, closes=frozenset(address))
        run = after(run, patched(run, [last], NOW))
    assert not run.keys() & {"hooks", "waiting_since", "waiting_for"}


def test_an_event_that_answers_a_wait_leaves_the_inbox() -> None:
    run = held("r") | {"inbox": [{"id": "e1"}, {"id": "e2"}, {"id": "e3"}]}
    taking = [put("steps.0.memo.a", takes="e3"), put("steps.0.memo.b", takes="e1"), put("steps.0.memo.c")]
    assert after(run, patched(run, taking, NOW))["inbox"] == [{"id": "e2"}]
    assert after(run, patched(run, taking[2:], NOW))["inbox"] == run["inbox"]


def test_one_event_does_not_answer_two_waits_in_one_write() -> None:
    assert fitting([put("steps.0.memo.a", takes="e1"), put("steps.0.memo.b", takes="e1")]) == 1


def test_what_is_stored_beside_the_run_is_counted_in_it() -> None:
    spills = [put(f"x{i}", spill={"address": f"a{i}"}) for i in range(3)]
    run = after(held("r"), patched(held("r"), spills, NOW))
    assert run["steps"][0]["spilled"] == 3
    run = after(undone(), patched(undone(), [Patch(Place(1, undo=True), spill={"address": "a"})], NOW))
    assert run["steps"][1]["compensation"]["spilled"] == 1


# What rides along


LOG = Patch(HERE, append={"logs": Append(("line",), 2)})
METRIC = Patch(HERE, add={"metrics.m": 1.5})
PROGRESS = Patch(HERE, {"steps.0.progress": {"fraction": 0.5}})


def test_what_could_wait_rides_with_the_next_write_whichever_it_is() -> None:
    for change in (
        stepping.complete(held("r"), HERE, Encoded(1, 1), Ending(NOW)),
        stepping.fail(held("r"), HERE, {"code": "c"}, Ending(NOW)),
        stepping.release(held("r"), NOW),
        patched(held("r"), [put("steps.0.memo.k")], NOW),
    ):
        run = after(held("r"), carrying(change, [LOG, METRIC, PROGRESS]))
        assert (run["logs"], run["metrics"], run["steps"][0]["progress"]) == (["line"], {"m": 1.5}, {"fraction": 0.5})


def test_what_lies_within_a_step_that_is_put_as_a_whole_is_left_out() -> None:
    run = held("r")
    change = carrying(jumping.jump(run, here(run), "s0", Ending(NOW)), [LOG, METRIC, PROGRESS])
    paths = [*change.put, *change.drop, *change.add, *change.append]
    assert not any(path != other and path.startswith(f"{other}.") for path in paths for other in paths)
    run = after(run, change)
    assert "progress" not in run["steps"][0]
    assert (run["logs"], run["metrics"]) == (["line"], {"m": 1.5})


def test_nothing_of_what_rides_is_lost_when_more_comes_before_it_is_written() -> None:
    more = {"logs": Patch(HERE, append={"logs": Append(("new",), 2)}), "m": Patch(HERE, add={"metrics.m": 2, "n": 1})}
    both = joined({"logs": LOG, "m": METRIC, "p": PROGRESS}, more)
    assert both["logs"].append["logs"].values == ("line", "new")
    assert both["m"].add == {"metrics.m": 3.5, "n": 1}
    assert both["p"] is PROGRESS
    assert joined({}, more) == more
    assert joined(more, {}) == more
