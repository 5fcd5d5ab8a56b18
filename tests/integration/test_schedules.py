"""Schedules: what they start and when, what they do about runs that are not over, and the verbs."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from streamline import Concurrency, Context, Schedule, Streamline, Worker, Workflow
from streamline.errors import (
    AppClosed,
    IdempotencyConflict,
    InvalidInput,
    InvalidName,
    InvalidQuery,
    PayloadTooLarge,
    ScheduleError,
    ScheduleNotFound,
    WorkflowNotFound,
)
from streamline.schedules.schedule_verbs import Schedules
from streamline.store import Scope
from tests.clocks import MovableClock
from tests.waiting import eventually

HOUR = timedelta(hours=1)


class Report(BaseModel):
    region: str = "all"


quick: Workflow[Any, Any, Any] = Workflow("quick", input=Report | None)
slow: Workflow[Any, Any, Any] = Workflow("slow")


@quick.step
async def write(ctx: Context[Report | None, Any]) -> dict[str, Any]:
    return {"for": ctx.scheduled_at, "region": ctx.input and ctx.input.region}


@slow.step
async def linger(ctx: Context[Any, Any]) -> Any:
    return await ctx.wait("until somebody says so")


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def app(make_app: Any, clock: MovableClock) -> Streamline:
    """An app that does nothing by itself: each tick is one look."""
    return make_app(quick, slow, worker=False, clock=clock)


async def passing(app: Streamline, clock: MovableClock, **time: float) -> None:
    """Let time pass, then look."""
    clock.move(**time)
    await app.tick()


async def stored(runs: Any) -> list[dict[str, Any]]:
    return [run async for run in runs.find({"schedule_id": {"$exists": True}}).sort("scheduled_at")]


async def hourly(app: Streamline, workflow: Any = slow, **options: Any) -> Schedule:
    return await app.schedules.create("hourly", workflow, every="1h", **options)


class TestOccurrences:
    async def test_one_is_a_run_with_an_id_of_its_own(
        self, app: Streamline, clock: MovableClock, stored_name: Any
    ) -> None:
        async with app:
            made = await app.schedules.create("nightly", quick, daily="02:30", input={"region": "north"})
            assert made.next_at is not None
            assert made.next_at > clock.now()
            clock.move(seconds=(made.next_at - clock.now()).total_seconds() + 0.1)
            assert await app.tick() == 1
            run = await app.get(f"{stored_name('nightly')}@{made.next_at:%Y-%m-%dT%H:%M:%SZ}")
            assert (run.schedule_id, run.scheduled_at, run.status) == ("nightly", made.next_at, "done")
            assert run.output == {"for": made.next_at, "region": "north"}
            after = await app.schedules.get("nightly")
            assert (after.last_run_id, after.last_at, after.occurrences) == (run.id, made.next_at, 1)
            assert after.next_at == made.next_at + timedelta(days=1)
            assert after.waiting == ()
            assert await app.tick() == 0

    async def test_it_begins_at_its_instant(self, make_app: Any) -> None:
        late: list[float] = []
        prompt: Workflow[Any, Any, Any] = Workflow("prompt")

        @prompt.step
        async def note(ctx: Context[Any, Any]) -> None:
            assert ctx.scheduled_at is not None
            late.append((datetime.now(UTC) - ctx.scheduled_at).total_seconds())

        async with make_app(prompt, worker=Worker(poll_interval="60s")) as app:
            await app.schedules.create("often", prompt, every="1s", count=3)
            await eventually(lambda: len(late) == 3)

            async def over() -> Any:
                found = await app.schedules.get("often")
                return found if found.ended else None

            ended = await eventually(over)
        assert all(0 <= seconds < 1 for seconds in late)
        assert (ended.ended, ended.next_at, ended.occurrences) == (True, None, 3)

    async def test_it_fires_on_an_engine_that_has_been_idle_for_long(self, make_app: Any, clock: MovableClock) -> None:
        async with make_app(quick, clock=clock) as app:
            at = clock.now() + timedelta(seconds=150)
            await app.schedules.create("once", quick, at=at)
            clock.move(seconds=148)
            schedule = await eventually(lambda: _ended(app, "once"))
            run = await app.handle(schedule.last_run_id).wait()
        assert timedelta() <= run.created_at - at < timedelta(seconds=1)

    async def test_another_process_hears_of_a_schedule_at_once(self, make_app: Any) -> None:
        async with (
            make_app(quick, worker=False) as asking,
            make_app(quick, worker=Worker(poll_interval="60s")) as working,
        ):
            await asyncio.sleep(0.3)  # it has looked, and will not for a minute
            made = await asking.schedules.create("soon", quick, at=datetime.now(UTC) + timedelta(seconds=0.5))
            schedule = await eventually(lambda: _ended(working, "soon"))
        assert made.next_at == schedule.last_at

    async def test_a_workflow_that_is_not_served_here_is_left_to_others(
        self, make_app: Any, clock: MovableClock, runs: Any
    ) -> None:
        stranger = make_app(slow, worker=False, clock=clock)
        async with stranger, make_app(quick, worker=False, clock=clock) as knows:
            await stranger.schedules.create("theirs", "quick", every="1h", input={"region": "any"})
            await passing(stranger, clock, hours=1)
            assert await stored(runs) == []
            await knows.tick()
            assert len(await stored(runs)) == 1

    async def test_many_are_started_side_by_side(self, app: Streamline, clock: MovableClock, runs: Any) -> None:
        async with app:
            for i in range(120):
                await app.schedules.create(f"s{i}", quick, every="1h")
            await passing(app, clock, hours=1, seconds=10)
        assert {run["status"] for run in await stored(runs)} == {"done"}
        assert len(await stored(runs)) == 120

    async def test_several_processes_start_each_once(self, make_app: Any, runs: Any) -> None:
        begun: list[str] = []
        counted: Workflow[Any, Any, Any] = Workflow("counted")

        @counted.step
        async def count(ctx: Context[Any, Any]) -> None:
            begun.append(ctx.run_id)

        async with make_app(counted) as one, make_app(counted) as two, make_app(counted) as three:
            await asyncio.gather(
                *(each.schedules.create("shared", counted, every="1s", count=3) for each in (one, two, three))
            )
            await eventually(lambda: _ended(one, "shared"))
            await eventually(lambda: len(begun) >= 3)
        assert len(begun) == len(set(begun)) == len(await stored(runs)) == 3


class TestOverlap:
    async def test_skip(self, app: Streamline, clock: MovableClock, runs: Any) -> None:
        async with app:
            await hourly(app)
            for _ in range(3):
                await passing(app, clock, hours=1)
            (run,) = await stored(runs)
            schedule = await app.schedules.get("hourly")
            assert (schedule.skipped, schedule.occurrences, schedule.waiting) == (2, 1, ())
            await app.resume(run["_id"])
            await app.tick()
            await passing(app, clock, hours=1)
            assert [each["status"] for each in await stored(runs)] == ["done", "waiting"]

    async def test_queue(self, app: Streamline, clock: MovableClock, runs: Any) -> None:
        async with app:
            made = await hourly(app, overlap="queue")
            for _ in range(3):
                await passing(app, clock, hours=1)
            schedule = await app.schedules.get("hourly")
            assert made.next_at is not None
            assert schedule.waiting == (made.next_at + HOUR, made.next_at + 2 * HOUR)
            for n in (1, 2, 3):
                found = await stored(runs)
                assert [each["status"] for each in found] == ["done"] * (n - 1) + ["waiting"]
                await app.resume(found[-1]["_id"])
                await app.tick()
                await passing(app, clock, seconds=1)
            assert [run["scheduled_at"] for run in await stored(runs)] == [made.next_at + n * HOUR for n in range(3)]
            assert (await app.schedules.get("hourly")).skipped == 0

    async def test_cancel_running(self, app: Streamline, clock: MovableClock, runs: Any) -> None:
        async with app:
            await hourly(app, overlap="cancel_running")
            for _ in range(3):
                await passing(app, clock, hours=1)
            found = await stored(runs)
        assert [run["status"] for run in found] == ["cancelled", "cancelled", "waiting"]
        assert found[0]["cancel"]["by"] == "schedule"

    async def test_allow(self, app: Streamline, clock: MovableClock, runs: Any) -> None:
        async with app:
            await hourly(app, overlap="allow")
            for _ in range(3):
                await passing(app, clock, hours=1)
        assert [run["status"] for run in await stored(runs)] == ["waiting"] * 3


class TestCatchingUp:
    async def missed(self, app: Streamline, clock: MovableClock, workflow: Any = quick, **options: Any) -> Schedule:
        """Hours go by in which nobody looks, then somebody does a few times."""
        made = await hourly(app, workflow, **options)
        clock.move(hours=3, minutes=30)
        for _ in range(4):
            await passing(app, clock, seconds=1)
        return made

    async def test_skip_goes_on_with_what_is_to_come(self, app: Streamline, clock: MovableClock, runs: Any) -> None:
        async with app:
            made = await self.missed(app, clock)
            after = await app.schedules.get("hourly")
            assert made.next_at is not None
            assert (after.next_at, after.occurrences, after.skipped) == (made.next_at + 3 * HOUR, 0, 0)
            await passing(app, clock, minutes=30)
        assert [run["scheduled_at"] for run in await stored(runs)] == [after.next_at]

    async def test_a_moment_late_is_on_time(self, app: Streamline, clock: MovableClock, runs: Any) -> None:
        async with app:
            await hourly(app, quick)
            await passing(app, clock, hours=1, seconds=55)
        assert len(await stored(runs)) == 1

    @pytest.mark.parametrize("catch_up", ["skip", "latest", "all"])
    async def test_all_that_is_on_time_is_started(
        self, app: Streamline, clock: MovableClock, runs: Any, catch_up: Any
    ) -> None:
        """A stall of some seconds loses nothing of what recurs often."""
        async with app:
            made = await app.schedules.create("often", quick, every="10s", overlap="allow", catch_up=catch_up)
            assert made.next_at is not None
            await passing(app, clock, seconds=35)
            assert [(run["scheduled_at"] - made.next_at).seconds for run in await stored(runs)] == [0, 10, 20]
            await passing(app, clock, minutes=3)
            found = [(run["scheduled_at"] - made.next_at).seconds for run in await stored(runs)]
        begin = 30 if catch_up == "all" else 150
        assert found == [0, 10, 20, *range(begin, 201, 10)]

    async def test_what_is_on_time_may_not_overlap_either(
        self, app: Streamline, clock: MovableClock, runs: Any
    ) -> None:
        async with app:
            await app.schedules.create("often", slow, every="10s")
            await passing(app, clock, seconds=35)
            schedule = await app.schedules.get("often")
        assert (len(await stored(runs)), schedule.skipped, schedule.waiting) == (1, 2, ())

    async def test_latest_starts_one(self, app: Streamline, clock: MovableClock, runs: Any) -> None:
        async with app:
            made = await self.missed(app, clock, catch_up="latest")
        assert made.next_at is not None
        assert [run["scheduled_at"] for run in await stored(runs)] == [made.next_at + 2 * HOUR]

    @pytest.mark.parametrize("overlap", ["skip", "queue", "allow"])
    async def test_all_starts_each(self, app: Streamline, clock: MovableClock, runs: Any, overlap: str) -> None:
        async with app:
            made = await self.missed(app, clock, catch_up="all", overlap=overlap)
        assert made.next_at is not None
        assert [run["scheduled_at"] for run in await stored(runs)] == [made.next_at + n * HOUR for n in range(3)]

    async def test_all_starts_each_after_the_other_where_they_must_not_overlap(
        self, app: Streamline, clock: MovableClock, runs: Any
    ) -> None:
        async with app:
            await self.missed(app, clock, slow, catch_up="all")
            assert len(await stored(runs)) == 1
            assert len((await app.schedules.get("hourly")).waiting) == 2

    async def test_all_has_a_limit(self, app: Streamline, clock: MovableClock, runs: Any) -> None:
        async with app:
            await app.schedules.create("often", slow, every="1m", catch_up="all")
            await passing(app, clock, days=2)
            schedule = await app.schedules.get("often")
        assert schedule.occurrences == 1000
        assert len(schedule.waiting) == 999
        assert clock.now() - schedule.waiting[-1] < timedelta(minutes=1)


class TestEnds:
    async def test_count(self, app: Streamline, clock: MovableClock, runs: Any) -> None:
        async with app:
            await hourly(app, quick, count=2)
            for _ in range(4):
                await passing(app, clock, hours=1)
            ended = await app.schedules.get("hourly")
            assert (ended.ended, ended.next_at, ended.occurrences) == (True, None, 2)
            assert ended.preview() == await app.schedules.preview("hourly") == ()
        assert len(await stored(runs)) == 2

    async def test_count_holds_for_what_is_caught_up_with(
        self, app: Streamline, clock: MovableClock, runs: Any
    ) -> None:
        async with app:
            await hourly(app, quick, count=2, catch_up="all", overlap="allow")
            await passing(app, clock, hours=5)
        assert len(await stored(runs)) == 2

    async def test_until(self, app: Streamline, clock: MovableClock, runs: Any) -> None:
        async with app:
            made = await hourly(app, quick, until=clock.now() + 2.5 * HOUR)
            assert len(made.preview(10)) == 2
            for _ in range(4):
                await passing(app, clock, hours=1)
            assert (await app.schedules.get("hourly")).ended
        assert len(await stored(runs)) == 2


class TestJitter:
    async def test_runs_are_put_off_by_a_part_of_it(self, app: Streamline, clock: MovableClock, runs: Any) -> None:
        async with app:
            await hourly(app, quick, jitter="30m", overlap="allow")
            for _ in range(6):
                await passing(app, clock, hours=1)
            found = await stored(runs)
            assert [run["schedule_id"] for run in found] == ["hourly"] * 6
            begun = [run["steps"][0].get("started_at") or run["due_at"] for run in found]
            delays = [at - run["scheduled_at"] for at, run in zip(begun, found, strict=True)]
            assert len(set(delays)) == 6
            last = found[-1]
            assert last["status"] == "done" or last["scheduled_at"] < last["due_at"] < last["scheduled_at"] + HOUR / 2


class TestVerbs:
    async def test_pause_and_resume(self, app: Streamline, clock: MovableClock, runs: Any) -> None:
        async with app:
            await hourly(app, quick, catch_up="all")
            assert (await app.schedules.pause("hourly")).paused
            assert (await app.schedules.pause("hourly")).paused
            await passing(app, clock, hours=3)
            assert await stored(runs) == []
            resumed = await app.schedules.resume("hourly")
            assert not resumed.paused
            assert resumed.next_at is not None
            assert timedelta() < resumed.next_at - clock.now() <= HOUR
            await passing(app, clock, hours=1)
            assert [run["scheduled_at"] for run in await stored(runs)] == [resumed.next_at]

    async def test_update(self, app: Streamline, clock: MovableClock, runs: Any) -> None:
        async with app:
            made = await hourly(app, quick, input={"region": "north"})
            same = await app.schedules.update("hourly", overlap="queue", input={"region": "south"})
            assert (same.next_at, same.overlap, same.input) == (made.next_at, "queue", Report(region="south"))
            moved = await app.schedules.update("hourly", daily="09:15", timezone="Asia/Kathmandu")
            assert moved.next_at is not None
            assert (moved.next_at.hour, moved.next_at.minute) == (3, 30)
            assert moved.overlap == "queue"
            before = await app.schedules.get("hourly")
            for wrong in ({"daily": "9"}, {"cron": "61 * * * *"}, {"timezone": "Mars/Base"}, {"at": clock.now()}):
                with pytest.raises(ScheduleError):
                    await app.schedules.update("hourly", **wrong)  # type: ignore[arg-type]
            with pytest.raises(InvalidInput):
                await app.schedules.update("hourly", input={"region": 5})
            assert await app.schedules.get("hourly") == before
            limited = await app.schedules.update("hourly", count=5, jitter="1m", until=clock.now() + 99 * HOUR)
            assert (limited.count, limited.jitter) == (5, timedelta(minutes=1))
            free = await app.schedules.update("hourly", count=None, jitter=None, until=None)
            assert (free.count, free.jitter, free.until) == (None, None, None)

    async def test_updating_the_end_keeps_what_is_due(self, app: Streamline, clock: MovableClock, runs: Any) -> None:
        async with app:
            made = await hourly(app, quick, catch_up="all", overlap="allow")
            assert made.next_at is not None
            clock.move(hours=2, minutes=10)
            assert (await app.schedules.update("hourly", count=3)).next_at == made.next_at
            again = {"every": "1h", "catch_up": "all", "overlap": "allow", "until": clock.now() + 9 * HOUR}
            clock.move(minutes=1)
            kept = await app.schedules.create("hourly", quick, exists="update", **again)  # type: ignore[arg-type]
            assert (kept.next_at, kept.rule) == (made.next_at, made.rule)
            await app.tick()
            assert [run["scheduled_at"] for run in await stored(runs)] == [made.next_at, made.next_at + HOUR]
            assert (await app.schedules.update("hourly", until=clock.now())).ended
            with pytest.raises(ScheduleError):
                await app.schedules.update("hourly", daily="09:00")

    async def test_another_beginning_is_another_rule(self, app: Streamline) -> None:
        async with app:
            begins = "DTSTART:20260101T{}0000\nRRULE:FREQ=DAILY"
            made = await app.schedules.create("daily", quick, rrule=begins.format("09"))
            assert await app.schedules.create("daily", quick, rrule=begins.format("09")) == made
            with pytest.raises(IdempotencyConflict):
                await app.schedules.create("daily", quick, rrule=begins.format("10"))
            moved = await app.schedules.update("daily", rrule=begins.format("10"))
            assert moved.next_at is not None
            assert moved.next_at.hour == 10

    async def test_updating_a_paused_one_leaves_it_paused(
        self, app: Streamline, clock: MovableClock, runs: Any
    ) -> None:
        async with app:
            await hourly(app, quick)
            await app.schedules.pause("hourly")
            assert (await app.schedules.update("hourly", every="2h")).paused
            await passing(app, clock, hours=5)
            assert await stored(runs) == []

    async def test_trigger_does_not_disturb_the_series(
        self, app: Streamline, clock: MovableClock, runs: Any, database: Any
    ) -> None:
        async with app:
            await hourly(app, quick, input={"region": "west"})
            before = await database["streamline.schedules"].find_one({})
            handle = await app.schedules.trigger("hourly")
            assert handle.created
            await app.tick()
            run = await handle.get()
            assert (run.schedule_id, run.status, run.output["region"]) == ("hourly", "done", "west")
            assert await database["streamline.schedules"].find_one({}) == before
            await app.schedules.pause("hourly")
            assert (await app.schedules.trigger("hourly")).id != handle.id

    async def test_delete(self, app: Streamline, clock: MovableClock, runs: Any) -> None:
        async with app:
            await hourly(app, quick)
            await passing(app, clock, hours=1)
            await app.schedules.delete("hourly")
            await passing(app, clock, hours=1)
            assert len(await stored(runs)) == 1
            for verb in ("get", "delete", "pause", "resume", "trigger", "preview", "update"):
                with pytest.raises(ScheduleNotFound) as caught:
                    await getattr(app.schedules, verb)("hourly")
                assert caught.value.http_status == 404

    async def test_creating_the_same_again_changes_nothing(self, app: Streamline, clock: MovableClock) -> None:
        async with app:
            made = await hourly(app, quick, input={"region": "north"})
            clock.move(minutes=10)
            assert await hourly(app, quick, input=Report(region="north")) == made
            many = await asyncio.gather(*(hourly(app, quick, input={"region": "north"}) for _ in range(10)))
            assert many == [made] * 10

    async def test_another_one_of_the_same_name_is_refused_or_updates(
        self, app: Streamline, clock: MovableClock
    ) -> None:
        async with app:
            made = await hourly(app, quick)
            for other in ({"every": "2h"}, {"every": "1h", "input": {"region": "x"}}, {"every": "1h", "count": 1}):
                with pytest.raises(IdempotencyConflict) as caught:
                    await app.schedules.create("hourly", quick, **other)  # type: ignore[arg-type]
                assert caught.value.field == "id"
            assert await app.schedules.get("hourly") == made
            changed = await app.schedules.create("hourly", slow, every="2h", exists="update")
            assert (changed.workflow, changed.rule["seconds"]) == ("slow", 7200)
            assert changed.next_at is not None
            assert changed.next_at > made.next_at  # type: ignore[operator]

    async def test_list(self, app: Streamline) -> None:
        async with app:
            for name in "abcde":
                await app.schedules.create(name, slow if name == "c" else quick, every="1h")
            await app.schedules.pause("b")
            page = await app.schedules.list(limit=2)
            assert [each.id for each in page.items] == ["a", "b"]
            page = await app.schedules.list(limit=3, after=page.next)
            assert ([each.id for each in page.items], page.next) == (["c", "d", "e"], None)
            assert [each.id for each in (await app.schedules.list(slow)).items] == ["c"]
            assert [each.id for each in (await app.schedules.list(paused=True)).items] == ["b"]
            assert len((await app.schedules.list("quick", paused=False)).items) == 3
            for wrong in ({"limit": 0}, {"after": 5}):
                with pytest.raises(InvalidQuery):
                    await app.schedules.list(**wrong)  # type: ignore[arg-type]

    async def test_preview(self, app: Streamline) -> None:
        async with app:
            after = datetime(2026, 10, 31, 12, tzinfo=UTC)
            seen = await app.schedules.preview(
                n=3, after=after, daily="01:30", timezone="America/New_York", dst_fold="both"
            )
            assert [each.mark for each in seen] == ["fold_first", "fold_second", None]
            made = await app.schedules.create("daily", quick, daily="02:30", timezone="America/New_York")
            assert made.preview(3) == await app.schedules.preview("daily", 3)
            assert made.preview(1)[0].at == made.next_at
            spring = datetime(2027, 3, 14, tzinfo=UTC)
            assert [each.mark for each in await app.schedules.preview("daily", 2, after=spring)] == ["gap", None]
            for wrong in ({"n": 0}, {"n": 1001}, {"n": True}, {"after": datetime(2026, 1, 1)}):
                with pytest.raises(ScheduleError):
                    await app.schedules.preview("daily", **wrong)  # type: ignore[arg-type]
            with pytest.raises(ScheduleError):
                made.preview(0)


class TestTenants:
    async def test_schedules_of_a_tenant_are_its_own(
        self, app: Streamline, clock: MovableClock, runs: Any, database: Any
    ) -> None:
        async with app:
            names = ("acme", "other", None)
            views = [Schedules(lambda: app._open_session, app._registry, app._handle_of, Scope(name)) for name in names]
            acme, other, nobodys = views
            made = await acme.create("hourly", quick, every="1h")
            assert made.tenant_id == "acme"
            for stranger in (other, nobodys):
                assert (await stranger.list()).items == ()
                for verb in ("get", "delete", "pause", "resume", "trigger", "preview", "update"):
                    with pytest.raises(ScheduleNotFound):
                        await getattr(stranger, verb)("hourly")
            await other.create("hourly", quick, every="1h", input={"region": "theirs"})
            await nobodys.create("hourly", quick, every="1h")
            await passing(app, clock, hours=1, seconds=1)
            found = {run["tenant_id"]: run["_id"].partition("@")[0] for run in await stored(runs)}
            assert found == {"acme": "acme/hourly", "other": "other/hourly", None: "hourly"}
            assert {run["schedule_id"] for run in await stored(runs)} == {"hourly"}
            await other.delete("hourly")
            assert (await acme.get("hourly")).occurrences == 1
            assert await database["streamline.schedules"].count_documents({}) == 2


class TestRefusals:
    @pytest.mark.parametrize(
        ("field", "options"),
        [
            ("rule", {}),
            ("rule", {"cron": "* * * * *", "daily": "09:00"}),
            ("cron", {"cron": "61 * * * *"}),
            ("cron", {"cron": "* * * *"}),
            ("cron", {"cron": "@reboot"}),
            ("cron", {"cron": "0 0 30 2 *"}),
            ("daily", {"daily": "24:00"}),
            ("weekly", {"weekly": "someday 09:00"}),
            ("monthly", {"monthly": "32 09:00"}),
            ("every", {"every": "0.5s"}),
            ("every", {"every": "often"}),
            ("at", {"at": "tomorrow"}),
            ("at", {"at": datetime(2020, 1, 1, tzinfo=UTC)}),
            ("rrule", {"rrule": "FREQ=HOURLY"}),
            ("timezone", {"daily": "09:00", "timezone": "Mars/Base"}),
            ("timezone", {"daily": "09:00", "timezone": "../etc/passwd"}),
            ("overlap", {"daily": "09:00", "overlap": "maybe"}),
            ("catch_up", {"daily": "09:00", "catch_up": None}),
            ("dst_gap", {"daily": "09:00", "dst_gap": "back"}),
            ("dst_fold", {"daily": "09:00", "dst_fold": ["first"]}),
            ("jitter", {"daily": "09:00", "jitter": -1}),
            ("until", {"daily": "09:00", "until": datetime(2030, 1, 1)}),
            ("daily", {"daily": "09:00", "until": datetime(2020, 1, 1, tzinfo=UTC)}),
            ("count", {"daily": "09:00", "count": 0}),
            ("count", {"daily": "09:00", "count": True}),
            ("exists", {"daily": "09:00", "exists": "maybe"}),
        ],
    )
    async def test_terms(self, app: Streamline, database: Any, field: str, options: dict[str, Any]) -> None:
        async with app:
            with pytest.raises(ScheduleError) as caught:
                await app.schedules.create("wrong", quick, **options)
            assert caught.value.field == field
            assert caught.value.http_status == 422
        assert await database["streamline.schedules"].count_documents({}) == 0

    @pytest.mark.parametrize("name", ["", "a b", "a/b", "a@b", "$a", "x" * 101, 5, None])
    async def test_names(self, app: Streamline, name: Any) -> None:
        async with app:
            with pytest.raises(ScheduleError) as caught:
                await app.schedules.create(name, quick, daily="09:00")
            assert caught.value.field == "id"
            with pytest.raises(ScheduleError):
                await app.schedules.get(name)

    async def test_inputs_and_workflows(self, app: Streamline, database: Any) -> None:
        async with app:
            with pytest.raises(InvalidInput):
                await app.schedules.create("wrong", quick, daily="09:00", input={"region": 5})
            with pytest.raises(PayloadTooLarge):
                await app.schedules.create("wrong", "unknown", daily="09:00", input="x" * (5 * 2**20))
            with pytest.raises(InvalidName):
                await app.schedules.create("wrong", "not a name", daily="09:00")
            with pytest.raises(TypeError):
                await app.schedules.create("wrong", quick, daily="09:00", retries=3)  # type: ignore[call-arg]
            assert await database["streamline.schedules"].count_documents({}) == 0
            await app.schedules.create("foreign", "unknown", daily="09:00")
            with pytest.raises(WorkflowNotFound):
                await app.schedules.trigger("foreign")

    async def test_a_closed_app(self, app: Streamline) -> None:
        with pytest.raises(AppClosed):
            await app.schedules.get("any")


class TestTrouble:
    async def test_an_input_that_no_longer_fits_does_not_end_the_series(
        self, app: Streamline, make_app: Any, clock: MovableClock, runs: Any
    ) -> None:
        async with make_app(worker=False, clock=clock) as knows_nothing:
            await knows_nothing.schedules.create("hourly", "quick", every="1h", input={"region": ["wrong"]})
        async with app:
            await passing(app, clock, hours=1)
            schedule = await app.schedules.list()
            (told,) = schedule.items
            assert (told.failed, told.waiting) == (1, ())
            assert told.last_error is not None
            assert told.last_error["code"] == "input.invalid"
            await app.schedules.update("hourly", input={"region": "east"})
            await passing(app, clock, hours=1)
        assert len(await stored(runs)) == 1

    async def test_an_input_for_a_newer_version_is_left_to_who_serves_it(
        self, make_app: Any, clock: MovableClock, runs: Any, database: Any
    ) -> None:
        """During a deploy, of two that come to the occurrence the one with the older code is first."""
        older: Workflow[Any, Any, Any] = Workflow("rolled", input=int)
        newer: Workflow[Any, Any, Any] = Workflow("rolled", version="1.10.0", input=dict[str, int])
        for wf in (older, newer):
            wf.step("linger")(_linger)
        async with make_app(older, worker=False, clock=clock) as old, make_app(newer, worker=False, clock=clock) as new:
            await new.schedules.create("hourly", newer, every="1h", input={"n": 1})
            await passing(old, clock, hours=1)
            assert (await old.schedules.get("hourly")).failed == 1, "nobody is known to serve a newer one"
            seen = {"routes": ["rolled@1.10.0"], "seen_at": clock.now() + 2 * HOUR}
            await database["streamline.workers"].insert_one({"_id": "w", **seen})
            await passing(old, clock, hours=1)
            schedule = await old.schedules.get("hourly")
            assert (schedule.failed, len(schedule.waiting)) == (1, 1)
            await passing(new, clock, seconds=10)
            assert (await new.schedules.get("hourly")).waiting == ()
            (run,) = await stored(runs)
            assert (run["version"], run["scheduled_at"]) == ("1.10.0", schedule.waiting[0])

    async def test_a_gate_that_refuses_is_told(self, make_app: Any, clock: MovableClock, runs: Any) -> None:
        single: Workflow[Any, Any, Any] = Workflow("single", concurrency=Concurrency(1, on_limit="reject"))
        single.step("linger")(_linger)
        async with make_app(single, worker=False, clock=clock) as app:
            await app.schedules.create("hourly", single, every="1h", overlap="allow")
            await passing(app, clock, hours=1)
            await passing(app, clock, hours=1)
            schedule = await app.schedules.get("hourly")
        assert (schedule.failed, schedule.waiting, len(await stored(runs))) == (1, (), 1)

    async def test_one_that_cannot_be_read_does_not_hold_up_the_others(
        self, app: Streamline, clock: MovableClock, runs: Any, database: Any
    ) -> None:
        async with app:
            await hourly(app, quick)
            good = await database["streamline.schedules"].find_one({})
            for i, damage in enumerate(({"rule": {}}, {"timezone": "Mars/Base"}, {"waiting": 5}, {"mark": None})):
                await database["streamline.schedules"].insert_one({**good, "_id": f"bad{i}", **damage})
            await passing(app, clock, hours=1)
            assert [run["_id"].startswith("bad") for run in await stored(runs)].count(False) == 1
            assert await app.tick() == 0

    async def test_who_can_read_it_is_not_late_for_one_who_cannot(
        self, app: Streamline, clock: MovableClock, runs: Any, database: Any
    ) -> None:
        """One process has no data on the zone, and comes first; another one has."""
        async with app:
            made = await app.schedules.create("daily", quick, daily="09:00", timezone="Europe/Paris")
            assert made.next_at is not None
            for zone in ("Mars/Base", "Europe/Paris"):
                await database["streamline.schedules"].update_one({}, {"$set": {"timezone": zone}})
                clock.move(seconds=max(10, (made.next_at - clock.now()).total_seconds()))
                await app.tick()
        assert [run["scheduled_at"] for run in await stored(runs)] == [made.next_at]


async def _linger(ctx: Context[Any, Any]) -> Any:
    return await ctx.wait("until somebody says so")


async def _ended(app: Streamline, name: str) -> Schedule | None:
    schedule = await app.schedules.get(name)
    return schedule if schedule.ended else None
