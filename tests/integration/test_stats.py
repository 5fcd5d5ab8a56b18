"""The numbers that operators see are those of the runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streamline import Concurrency, Worker
from streamline.domain.statistics import Queue, Stats
from tests.integration.meters import Meter, at_rest, by_first, working
from tests.waiting import eventually


async def test_an_empty_deployment(make_app: Any) -> None:
    async with make_app(working(Meter(), concurrency=Concurrency(1)), worker=False) as app:
        assert await app.stats() == Stats(statuses={}, workflows={})


async def test_slots_and_lines_by_key(make_app: Any, runs: Any) -> None:
    meter = Meter()
    wf = working(meter, concurrency=Concurrency(2, key=by_first))
    plain = working(meter, "plain", concurrency=Concurrency(1))
    async with make_app(wf, plain) as app:
        handles = [await app.start(wf, [key, i]) for key, count in (("a/b", 5), ("c", 1)) for i in range(count)]
        handles.append(await app.start(plain, "p"))
        await eventually(lambda: sum(meter.at_work(key) for key in ("a/b", "c", "")) == 4)
        stats = await app.stats()
        oldest = min([run["queued_at"] async for run in runs.find({"queued_at": {"$exists": True}})])
        assert stats.queues == (
            Queue("metered", "a/b", 2, 2, 3, oldest),
            Queue("metered", "c", 2, 1, 0, None),
            Queue("plain", "", 1, 1, 0, None),
        )
        assert stats.statuses == {"running": 4, "draft": 3}
        assert stats.workflows == {"metered": {"running": 3, "draft": 3}, "plain": {"running": 1}}
        assert list(stats.workers.values()) == [4]
        meter.let_all_go()
        for handle in handles:
            await handle.result("20s")
        await at_rest(runs)
        after = await app.stats()
        assert (after.queues, list(after.workers.values()), after.statuses) == ((), [0], {"done": 7})


async def test_what_is_due_and_since_when(make_app: Any) -> None:
    wf = working(Meter())
    async with make_app(wf, worker=False) as app:
        first = await app.start(wf, 1)
        await app.start(wf, 2)
        await app.start(wf, 3, delay="1h")
        stats = await app.stats()
        assert (stats.due, stats.oldest_due_at) == (2, (await first.get()).due_at)
        assert stats.statuses == {"draft": 3}


async def test_runs_of_workflows_that_this_process_does_not_know(make_app: Any) -> None:
    wf = working(Meter(), concurrency=Concurrency(1))
    async with make_app(wf, worker=False) as app:
        for i in range(3):
            await app.start(wf, i)
    async with make_app(worker=False) as app:
        (queue,) = (await app.stats()).queues
        assert (queue.workflow, queue.limit, queue.at_work, queue.queued) == ("metered", None, 1, 2)


async def test_workers_by_what_they_drive(make_app: Any) -> None:
    meter = Meter()
    wf = working(meter)
    async with (
        make_app(wf, worker=Worker(concurrency=1, drain=0)) as one,
        make_app(wf, worker=Worker(concurrency=2, drain=0)),
    ):
        await one.start_many(wf, list(range(4)))
        await eventually(lambda: meter.at_work() == 3)

        async def seen() -> bool:
            return sorted((await one.stats()).workers.values()) == [1, 2]

        await eventually(seen)
        meter.let_all_go()


async def test_numbers_are_values(make_app: Any) -> None:
    async with make_app(working(Meter()), worker=False) as app:
        stats = await app.stats()
        with pytest.raises(AttributeError):
            stats.due = 5


async def test_a_line_that_is_called_up_late_shows_how_long_it_waits(make_app: Any) -> None:
    wf = working(Meter(), concurrency=Concurrency(1))
    async with make_app(wf, worker=False) as app:
        for i in range(3):
            last = await app.start(wf, i)
        (queue,) = (await app.stats()).queues
        assert queue.oldest_queued_at is not None
        assert queue.oldest_queued_at <= (await last.get()).created_at + timedelta(seconds=1)
