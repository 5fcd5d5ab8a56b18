"""A process dies at every single call to the database that keeping to a schedule takes, before it and after it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from streamline import Context, Streamline, Workflow
from streamline.engine import timetable
from tests.clocks import MovableClock

CALLS = 5  # look, decide, insert, tick off, look again: more than these it does not take


class Died(BaseException):
    """The process is gone."""


def doomed(app: Streamline, at: int, *, applied: bool) -> Callable[[], int]:
    """Let the app's process die around its call number `at`; return how many calls there were."""
    store, calls = app._open_session.runtime.store, 0
    run, submit = store.run, store.submit

    def is_the_end() -> bool:
        nonlocal calls
        calls += 1
        return calls >= at

    async def dying_run(statement: Any, *scope: Any) -> Any:
        end = is_the_end()
        if end and (calls > at or not applied):
            raise Died
        answer = await run(statement, *scope)
        if end:
            raise Died
        return answer

    def dying_submit(statement: Any, *scope: Any) -> asyncio.Future[Any]:
        end = is_the_end()
        if end and (calls > at or not applied):
            raise Died
        answer = submit(statement, *scope)
        if not end:
            return answer

        async def cut_off() -> Any:
            await answer
            raise Died

        return asyncio.ensure_future(cut_off())

    store.run, store.submit = dying_run, dying_submit  # type: ignore[assignment, method-assign]

    def alive() -> int:
        store.run, store.submit = run, submit  # type: ignore[method-assign]
        return calls

    return alive


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.mark.parametrize("overlap", ["skip", "queue", "allow", "cancel_running"])
@pytest.mark.parametrize("applied", [False, True], ids=["before", "applied"])
async def test_one_occurrence_is_one_run_wherever_a_process_dies(
    make_app: Any, clock: MovableClock, runs: Any, stored_name: Any, overlap: Any, *, applied: bool
) -> None:
    begun: list[str] = []
    flow: Workflow[Any, Any, Any] = Workflow("flow")

    @flow.step
    async def begin(ctx: Context[Any, Any]) -> None:
        begun.append(ctx.run_id)

    async with make_app(flow, worker=False, clock=clock) as app, make_app(flow, worker=False, clock=clock) as heir:
        made = await app.schedules.create("series", flow, every="1h", overlap=overlap)
        assert made.next_at is not None
        died = 0
        for at in range(1, CALLS + 3):
            next_at = (await app.schedules.get("series")).next_at
            assert next_at is not None
            clock.move(seconds=(next_at - clock.now()).total_seconds() + 0.01)
            keeping = timetable.Timetable(
                app._open_session.runtime, app._open_session.starter, app._open_session.control, 60.0
            )
            revive = doomed(app, at, applied=applied)
            try:
                await keeping.catch_up()
            except Died:
                died += 1
            calls = revive()
            clock.move(seconds=timetable.turns.TAKE_OVER.total_seconds() + 0.1)
            await heir.tick()
            await heir.tick()
            schedule = await heir.schedules.get("series")
            run_id = f"{stored_name('series')}@{next_at:%Y-%m-%dT%H:%M:%S}.{next_at.microsecond // 1000:03}Z"
            assert begun.count(run_id.replace(".000Z", "Z")) == 1, (at, calls)
            assert (schedule.waiting, schedule.last_at, schedule.occurrences) == ((), next_at, at)
        assert died >= CALLS - 1
    assert len(begun) == len(set(begun)) == await runs.count_documents({}) == CALLS + 2


async def test_whoever_comes_late_changes_nothing(make_app: Any, clock: MovableClock, runs: Any) -> None:
    """A process that has read what is due, and goes on when all of it is done and the next one as well."""
    flow: Workflow[Any, Any, Any] = Workflow("flow")
    flow.step("begin")(_nothing)
    async with make_app(flow, worker=False, clock=clock) as late, make_app(flow, worker=False, clock=clock) as prompt:
        await late.schedules.create("series", flow, every="1h")
        clock.move(hours=1)
        session = late._open_session
        keeping = timetable.Timetable(session.runtime, session.starter, session.control, 60.0)
        (read,) = await keeping._due_by(clock.now())
        for _ in range(2):
            await prompt.tick()
            clock.move(hours=1)
        before = await prompt.schedules.get("series")
        await keeping._keep_to(read)
        assert await prompt.schedules.get("series") == before
        assert await runs.count_documents({}) == 2


async def test_a_pause_between_the_start_and_what_follows_it_loses_and_repeats_nothing(
    make_app: Any, clock: MovableClock, runs: Any
) -> None:
    flow: Workflow[Any, Any, Any] = Workflow("flow")
    flow.step("begin")(_nothing)
    async with make_app(flow, worker=False, clock=clock) as app:
        await app.schedules.create("series", flow, every="1h")
        clock.move(hours=1)
        session = app._open_session
        keeping = timetable.Timetable(session.runtime, session.starter, session.control, 60.0)
        start = session.starter.start_scheduled

        async def interrupted(*order: Any) -> Any:
            started = await start(*order)
            await app.schedules.pause("series")
            return started

        session.starter.start_scheduled = interrupted  # type: ignore[method-assign]
        await keeping.catch_up()
        paused = await app.schedules.get("series")
        assert (paused.paused, paused.waiting, paused.last_run_id is not None) == (True, (), True)
        clock.move(hours=1)
        await app.tick()
        assert await runs.count_documents({}) == 1


async def test_deleting_in_between_leaves_the_run_and_nothing_else(
    make_app: Any, clock: MovableClock, runs: Any, database: Any
) -> None:
    flow: Workflow[Any, Any, Any] = Workflow("flow")
    flow.step("begin")(_nothing)
    async with make_app(flow, worker=False, clock=clock) as app:
        await app.schedules.create("series", flow, every="1h")
        clock.move(hours=1)
        session = app._open_session
        start = session.starter.start_scheduled

        async def interrupted(*order: Any) -> Any:
            started = await start(*order)
            await app.schedules.delete("series")
            return started

        session.starter.start_scheduled = interrupted  # type: ignore[method-assign]
        await timetable.Timetable(session.runtime, session.starter, session.control, 60.0).catch_up()
        assert await runs.count_documents({}) == 1
        assert await database["streamline.schedules"].count_documents({}) == 0


async def _nothing(ctx: Context[Any, Any]) -> None:
    """There is nothing to do."""
