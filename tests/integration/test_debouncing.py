"""Debounce: one draft per key, with the latest input; it begins when it has been quiet for a while."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from streamline import Debounce
from streamline.domain.transitions import gating
from streamline.engine.working.admission import Admission
from tests.integration.meters import Meter, at_rest, by_first, working
from tests.waiting import eventually


async def test_the_first_start_is_a_draft_due_after_the_window(make_app: Any) -> None:
    wf = working(Meter(), debounce=Debounce("60s"))
    async with make_app(wf) as app:
        handle = await app.start(wf, 1)
        run = await handle.get()
        assert handle.created
        assert run.status == "draft"
        assert run.due_at is not None
        assert abs(run.due_at - run.created_at - timedelta(seconds=60)) < timedelta(seconds=2)


async def test_further_starts_give_it_their_input_and_put_it_off(make_app: Any, runs: Any) -> None:
    wf = working(Meter(), debounce=Debounce("60s"))
    async with make_app(wf) as app:
        first = await app.start(wf, 0)
        seen = [await first.get()]
        for i in range(1, 4):
            again = await app.start(wf, i)
            assert (again.id, again.created) == (first.id, False)
            seen.append(await first.get())
        assert [run.input for run in seen] == [0, 1, 2, 3]
        due = [run.due_at for run in seen if run.due_at is not None]
        assert due == sorted(due)
        assert len(set(due)) == 4
        assert await runs.count_documents({}) == 1


async def test_it_begins_once_it_has_been_quiet_with_the_last_input(make_app: Any, runs: Any) -> None:
    meter = Meter(hold=False)
    wf = working(meter, debounce=Debounce("300ms"))
    async with make_app(wf) as app:
        for i in range(5):
            handle = await app.start(wf, i)
            await asyncio.sleep(0.02)
        assert await handle.result("20s") == 4
        run = await handle.get()
        assert run.started_at is not None
        stored = await runs.find_one({"_id": run.id})
        last = max(event["at"] for event in stored["events"] if event["type"] == "run.debounced")
        assert run.started_at >= last + timedelta(milliseconds=300)
        assert meter.order == [4]
        await at_rest(runs)


async def test_a_start_after_it_has_begun_makes_a_new_draft(make_app: Any, runs: Any) -> None:
    meter = Meter()
    wf = working(meter, debounce=Debounce("100ms"))
    async with make_app(wf) as app:
        first = await app.start(wf, "first")
        await eventually(lambda: "first" in meter.begun)
        second = await app.start(wf, "second")
        assert second.created
        assert second.id != first.id
        meter.let_all_go()
        assert (await first.result("20s"), await second.result("20s")) == ("first", "second")
        await at_rest(runs)


async def test_keys_and_workflows_have_drafts_of_their_own(make_app: Any) -> None:
    one, two = (working(Meter(), name, debounce=Debounce("60s", key=by_first)) for name in ("one", "two"))
    async with make_app(one, two) as app:
        handles = [await app.start(wf, [key, 1]) for wf in (one, two) for key in "ab"]
        assert all(handle.created for handle in handles)
        assert len({handle.id for handle in handles}) == 4


@pytest.mark.parametrize("apps", [1, 2])
async def test_a_burst_makes_one_run(make_app: Any, runs: Any, apps: int) -> None:
    meter = Meter(hold=False)
    wf = working(meter, debounce=Debounce("700ms"))
    async with make_app(wf) as one, make_app(wf, worker=False) as two:
        starting = (one, two)[:apps]
        handles = await asyncio.gather(*(starting[i % apps].start(wf, i) for i in range(30)))
        assert len({handle.id for handle in handles}) == 1
        assert sum(handle.created for handle in handles) == 1
        assert await runs.count_documents({}) == 1
        last = await one.start(wf, "last")
        assert await last.result("20s") == "last"
        assert meter.order == ["last"]
        await at_rest(runs)


async def test_it_waits_no_longer_than_it_may(make_app: Any, runs: Any) -> None:
    meter = Meter(hold=False)
    wf = working(meter, debounce=Debounce("300ms", max_wait="600ms"))
    async with make_app(wf) as app:
        first = await app.start(wf, 0)
        count = 0
        while not meter.begun:
            count += 1
            handle = await app.start(wf, count)
            if handle.id != first.id:
                break  # the first has waited as long as it may
            await asyncio.sleep(0.02)
        await first.result("20s")
        run = await first.get()
        assert run.started_at is not None
        assert run.started_at - run.created_at >= timedelta(milliseconds=550)
        for each in [each async for each in runs.find({"status": "draft"})]:
            await app.cancel(each["_id"])


async def test_the_due_instant_is_capped(make_app: Any) -> None:
    wf = working(Meter(), debounce=Debounce("40s", max_wait="60s"))
    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf, 0)
        created = (await handle.get()).created_at
        for _ in range(2):
            await app.start(wf, 1)
        due = (await handle.get()).due_at
        assert due is not None
        assert timedelta(seconds=39) < due - created < timedelta(seconds=45)
        # Thirty seconds on, forty more would be past the sixty.
        await app.start(wf, 2, delay="30s")
        due = (await handle.get()).due_at
        assert due is not None
        assert abs(due - created - timedelta(seconds=60)) < timedelta(seconds=2)


async def test_the_last_start_says_how_it_runs(make_app: Any, runs: Any) -> None:
    wf = working(Meter(), debounce=Debounce("60s"))
    async with make_app(wf, worker=False) as app:
        handle = await app.start(
            wf, 1, priority=1, tags=["a", "b"], metadata={"by": "one"}, timeout="1h", start_by="1h"
        )
        await app.start(wf, 2, priority=7, tags=["c"], metadata={"by": "two"}, timeout="2h")
        run = await handle.get()
        assert (run.input, run.priority, list(run.tags), run.metadata) == (2, 7, ["c"], {"by": "two"})
        stored = await runs.find_one({"_id": handle.id})
        assert "start_by" not in stored
        assert stored["deadline_at"] - run.created_at > timedelta(minutes=110)
        await app.start(wf, 3)
        run = await handle.get()
        assert (run.input, run.priority, list(run.tags), run.metadata) == (3, 0, [], {})
        stored = await runs.find_one({"_id": handle.id})
        assert not stored.keys() & {"tags", "metadata", "start_by", "deadline_at"}


async def test_a_delay_comes_before_the_window(make_app: Any) -> None:
    wf = working(Meter(), debounce=Debounce("60s"))
    async with make_app(wf, worker=False) as app:
        run = await (await app.start(wf, 1, delay="1h")).get()
        assert run.due_at is not None
        assert abs(run.due_at - run.created_at - timedelta(hours=1, seconds=60)) < timedelta(seconds=2)


async def test_a_start_with_the_key_of_an_active_run_puts_nothing_off(make_app: Any) -> None:
    wf = working(Meter(), debounce=Debounce("60s"))
    async with make_app(wf, worker=False) as app:
        first = await app.start(wf, 1, idempotency_key="k")
        before = await first.get()
        again = await app.start(wf, 2, idempotency_key="k")
        assert (again.id, again.created) == (first.id, False)
        after = await first.get()
        assert (after.due_at, after.input) == (before.due_at, 1)
        other = await app.start(wf, 3)
        assert other.id == first.id
        assert (await first.get()).input == 3


async def test_a_cancelled_draft_makes_way_for_a_new_one(make_app: Any) -> None:
    wf = working(Meter(), debounce=Debounce("60s"))
    async with make_app(wf, worker=False) as app:
        first = await app.start(wf, 1)
        await first.cancel()
        second = await app.start(wf, 2)
        assert second.created
        assert second.id != first.id


async def test_a_paused_draft_is_put_off_and_does_not_begin(make_app: Any, runs: Any) -> None:
    meter = Meter(hold=False)
    wf = working(meter, debounce=Debounce("150ms"))
    async with make_app(wf) as app:
        first = await app.start(wf, 1)
        await first.pause()
        assert (await app.start(wf, 2)).id == first.id
        await asyncio.sleep(0.4)
        assert not meter.begun
        await first.unpause()
        assert await first.result("20s") == 2
        await at_rest(runs)


async def test_a_retried_run_is_not_put_off_by_others(make_app: Any, runs: Any) -> None:
    meter = Meter(hold=False)
    wf = working(meter, debounce=Debounce("100ms"))
    async with make_app(wf) as app:
        first = await app.start(wf, "fail")
        assert (await first.wait("20s")).status == "failed"
        await first.retry()
        second = await app.start(wf, "other")
        assert second.created
        assert (await first.wait("20s")).status == "failed"
        assert await second.result("20s") == "other"
        await at_rest(runs)


async def test_a_start_between_the_look_and_the_claim_puts_the_draft_off(
    make_app: Any, runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker has found the draft due; before it takes it, somebody starts it again."""
    meter = Meter(hold=False)
    wf = working(meter, debounce=Debounce("400ms"))
    take, starting = Admission.take, []

    async def late(self: Admission, run_ids: Any, *rest: Any) -> int:
        if not starting:
            starting.append(await two.start(wf, "latest"))
        return await take(self, run_ids, *rest)

    monkeypatch.setattr(Admission, "take", late)
    async with make_app(wf, worker=False) as two, make_app(wf) as app:
        first = await app.start(wf, "early")
        assert await first.result("20s") == "latest"
        assert starting[0].id == first.id
        stored = await runs.find_one({"_id": first.id})
        last = max(event["at"] for event in stored["events"] if event["type"] == "run.debounced")
        assert stored["started_at"] >= last + timedelta(milliseconds=400)
        assert meter.order == ["latest"]
    assert gating.SEEN


async def test_a_bulk_start_of_a_debounced_workflow_makes_one_run_per_key(make_app: Any, runs: Any) -> None:
    wf = working(Meter(), debounce=Debounce("60s", key=by_first))
    async with make_app(wf, worker=False) as app:
        handles = await app.start_many(wf, [[key, i] for i in range(5) for key in "ab"])
        assert len({handle.id for handle in handles}) == 2
        assert [handle.created for handle in handles] == [True, True] + [False] * 8
        assert sorted([run["input"] async for run in runs.find()]) == [["a", 4], ["b", 4]]
