"""Versions: each run is driven by the code that it was started with, until somebody says how it is carried over."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from streamline import Concurrency, Context, Debounce, Migration, RetryPolicy, Settings, Throttle, Workflow
from streamline.errors import VersionMismatch
from tests.clocks import MovableClock
from tests.waiting import eventually, status_of


def steps_of(*names: str, version: str = "1.0.0") -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow("flow", version=version)

    async def tell(ctx: Context[Any]) -> Any:
        return f"{ctx.step_id}@{ctx.version}"

    for name in names:
        wf.step(name)(tell)
    return wf


class Parking:
    """A workflow whose runs park in the way that their input says, and that tells which version drove them on."""

    ANSWERED = ("wait", "event", "hook", "approval", "question", "loop", "each")
    TIMED = ("sleep", "poll", "retry", "timeout", "start")
    KIN = ("child", "join")

    def __init__(self) -> None:
        self.drove: list[tuple[str, str]] = []
        self.tokens: list[str] = []
        self.child: Workflow[Any, Any, Any] = Workflow("kin")

        @self.child.step
        async def idle(ctx: Context[Any]) -> Any:
            return await ctx.wait("child")

    def version(self, version: str, **rules: Any) -> Workflow[Any, Any, Any]:
        wf: Workflow[Any, Any, Any] = Workflow("parking", version=version, **rules)

        @wf.step
        async def before(ctx: Context[Any]) -> Any:
            return await ctx.call("once", lambda: version)

        @wf.step(retry=RetryPolicy(max_attempts=2, delay="50m", max_delay="1h", jitter=0.0))
        async def park(ctx: Context[Any]) -> Any:
            self.drove.append((ctx.input, ctx.version))
            await self.parked(ctx)
            return ctx.version

        @wf.step
        async def after(ctx: Context[Any]) -> Any:
            return {"before": ctx.output(before), "park": ctx.output(park), "after": ctx.version}

        return wf

    async def parked(self, ctx: Context[Any]) -> None:
        match ctx.input:
            case "wait":
                await ctx.wait("go")
            case "event":
                await ctx.wait_for("go")
            case "hook":
                hook = await ctx.create_hook("h")
                self.tokens.append(hook.token)
                await hook.wait()
            case "approval":
                await ctx.approve("go")
            case "question":
                await ctx.ask("go")
            case "loop" | "each":
                await ctx.each("all", [1, 2], lambda item, i: ctx.wait("go", key=f"w{i}") if i else first(item))
            case "sleep":
                await ctx.sleep("30m")
            case "poll":
                await ctx.poll("job", lambda: ctx.version == "2.0.0" or None, every="30m", max_wait="2h")
            case "retry":
                if ctx.attempt == 1:
                    raise ValueError("not yet")
            case "timeout":
                await ctx.wait("go", timeout="30m", default=None)
            case "child":
                await ctx.start_child(self.child, 1)
            case "join":
                await ctx.join({"a": (self.child, 1), "b": (self.child, 2)})


async def first(item: Any) -> Any:
    return item


def gated(version: str, drove: list[tuple[str, Any, str]]) -> list[Workflow[Any, Any, Any]]:
    """Workflows of one version with a gate each, that tell which version began a run."""
    lined: Workflow[Any, Any, Any] = Workflow("lined", version=version, concurrency=Concurrency(1))
    spread: Workflow[Any, Any, Any] = Workflow("spread", version=version, throttle=Throttle(1, "20m"))
    settled: Workflow[Any, Any, Any] = Workflow("settled", version=version, debounce=Debounce("20m"))

    async def begin(ctx: Context[Any]) -> Any:
        drove.append((ctx.workflow, ctx.input, version))
        if ctx.input == "first" and ctx.workflow == "lined":
            await ctx.wait("go")
        return version

    for wf in (lined, spread, settled):
        wf.step("begin")(begin)
    return [lined, spread, settled]


class TestSignatures:
    async def test_other_steps_under_the_same_version_are_refused(self, make_app: Any, database: Any) -> None:
        async with make_app(steps_of("a", "b"), worker=False):
            pass
        before = [each async for each in database["streamline.definitions"].find()]
        for changed in (steps_of("a", "c"), steps_of("b", "a"), steps_of("a"), steps_of("a", "b", "c")):
            with pytest.raises(VersionMismatch) as refused:
                async with make_app(changed, worker=False):
                    pass
            assert (refused.value.field, "a, b" in refused.value.message) == ("version", True)
        assert [each async for each in database["streamline.definitions"].find()] == before
        async with make_app(steps_of("a", "b"), steps_of("a", "c", version="2.0.0"), worker=False):
            pass

    async def test_in_development_they_may_change(self, make_app: Any, caplog: pytest.LogCaptureFixture) -> None:
        lenient = {"settings": Settings(development=True), "worker": False}
        async with make_app(steps_of("a"), **lenient):
            assert not caplog.records
        async with make_app(steps_of("b"), **lenient) as app:
            assert "flow@1.0.0 has other steps than before" in caplog.text
            assert [info.steps for info in await app.versions()] == [("b",)]
        with pytest.raises(VersionMismatch):
            async with make_app(steps_of("a"), worker=False):
                pass

    async def test_of_several_that_come_first_at_once_one_definition_stands(self, make_app: Any) -> None:
        apps = [make_app(steps_of(name), worker=False) for name in ("a", "b", "a", "b")]
        came = await asyncio.gather(*(app.__aenter__() for app in apps), return_exceptions=True)
        try:
            refused = [each for each in came if isinstance(each, BaseException)]
            assert len(refused) == 2
            assert all(isinstance(each, VersionMismatch) for each in refused)
        finally:
            await asyncio.gather(*(app.__aexit__(None, None, None) for app in apps))

    async def test_what_is_registered_later_is_held_to_it_too(self, make_app: Any) -> None:
        async with make_app(steps_of("a"), worker=False):
            pass
        async with make_app(worker=False) as app:
            with pytest.raises(VersionMismatch):
                app.register(steps_of("b"))
            app.register(steps_of("a"))
            app.register(steps_of("new", version="3"))

            async def is_kept() -> bool:
                return ("3", ("new",)) in [(info.version, info.steps) for info in await app.versions()]

            await eventually(is_kept)


class TestRouting:
    async def test_no_other_version_drives_a_run(self, make_app: Any, runs: Any, clock: MovableClock) -> None:
        parking = Parking()
        kinds = (*Parking.ANSWERED, *Parking.TIMED)
        async with make_app(parking.version("1.0.0"), worker=False, clock=clock) as app:
            for kind in kinds:
                await app.start("parking", kind, run_id=kind, delay="30m" if kind == "start" else None)
            await app.tick()
        async with make_app(parking.version("2.0.0"), worker=False, clock=clock) as app:
            clock.move(hours=1)
            for kind in ("wait", "loop", "each"):
                await app.resume(kind, 1)
            await app.send_event("go")
            await app.resume_hook(parking.tokens[0])
            await app.approve("approval")
            await app.answer("question", 1)
            assert await app.tick() == 0
            assert await app.tick() == 0
            assert {version for _, version in parking.drove} == {"1.0.0"}
            assert (await app.stats()).unserved == {"parking@1.0.0": len(kinds)}
        async with make_app(parking.version("1.0.0"), parking.version("2.0.0"), worker=False, clock=clock) as app:
            while await app.tick():
                pass
            await self.all_done_by(runs, "1.0.0", len(kinds), without=("poll",))

    async def test_nor_is_one_that_waits_at_a_gate_was_paused_or_lost_its_worker(
        self, make_app: Any, runs: Any, clock: MovableClock
    ) -> None:
        drove: list[tuple[str, Any, str]] = []
        parking = Parking()
        old = [parking.version("1.0.0"), parking.child, *gated("1.0.0", drove)]
        new = [parking.version("2.0.0"), parking.child, *gated("2.0.0", drove)]
        async with make_app(*old, worker=False, clock=clock) as app:
            for name in ("lined", "spread"):
                for value in ("first", "second"):
                    await app.start(name, value, run_id=f"{name}-{value}")
            settled = (await app.start("settled", 1)).id
            for kind in (*Parking.KIN, "paused", "killed"):
                await app.start("parking", kind, run_id=kind, delay="20m" if kind == "killed" else None)
            await app.pause("paused")
            while await app.tick():
                pass
        dead = {"worker": "dead", "token": "dead", "at": clock.now(), "until": clock.now()}
        killed = {"$set": {"status": "running", "lease": dead}, "$unset": {"due_at": ""}}
        await runs.update_one({"_id": "killed"}, killed)
        clock.move(hours=1)
        async with make_app(*new, worker=False, clock=clock) as app:
            await app.resume("lined-first", 1)
            await app.unpause("paused")
            for run in (await app.runs("kin")).items:
                await app.resume(run.id, 1)
            while await app.tick():
                pass
            assert {version for *_, version in drove} == {version for _, version in parking.drove} == {"1.0.0"}
            for name in ("lined", "spread"):
                await app.start(name, "third", run_id=f"{name}-third")
            while await app.tick():
                pass
            assert ("spread", "third", "2.0.0") in drove, "what nobody can begin stands in nobody's way"
        async with make_app(
            *old, *(flow for flow in new if flow is not parking.child), worker=False, clock=clock
        ) as app:
            for _ in range(3):
                while await app.tick():
                    pass
                clock.move(minutes=30)
            await self.all_done_by(runs, "1.0.0", 4)
            for run_id in ("lined-first", "lined-second", "spread-first", "spread-second", settled):
                run = await app.get(run_id)
                assert (run.status, run.output) == ("done", "1.0.0"), run_id
            for run_id in ("lined-third", "spread-third"):
                assert (await app.get(run_id)).output == "2.0.0", run_id

    async def test_a_start_of_another_version_makes_a_draft_its_own(
        self, make_app: Any, runs: Any, clock: MovableClock
    ) -> None:
        """Else the input of one version would be given to the code of another, or to nobody's."""
        older: Workflow[Any, Any, Any] = Workflow("settled", input=int, debounce=Debounce("20m"), retention="1h")
        newer: Workflow[Any, Any, Any] = Workflow("settled", version="2.0.0", input=str, debounce=Debounce("20m"))

        @older.step
        async def only(ctx: Context[int]) -> Any:
            return ctx.input + 1

        @newer.step
        async def before(ctx: Context[str]) -> None: ...

        @newer.step
        async def then(ctx: Context[str]) -> Any:
            return ctx.input.upper()

        @before.compensate
        async def undo(ctx: Context[str], output: None) -> None: ...

        async with make_app(older, worker=False, clock=clock) as app:
            handle = await app.start(older, 1)
        async with make_app(newer, worker=False, clock=clock) as app:
            again = await app.start(newer, "one")
            assert (again.id, again.created) == (handle.id, False)
            stored = await runs.find_one({"_id": handle.id})
            assert (stored["version"], stored["compensate_on"]) == ("2.0.0", ["failed"])
            assert "retention" not in stored
            clock.move(minutes=21)
            await app.tick()
            run = await app.get(handle.id)
            assert ([step.id for step in run.steps], run.output) == (["before", "then"], "ONE")
            back = await app.start(newer, "two")
        async with make_app(older, worker=False, clock=clock) as app:
            assert (await app.start(older, 6)).id == back.id
            clock.move(minutes=21)
            await app.tick()
            assert await app.handle(back.id).result("20s") == 7
            assert "compensate_on" not in await runs.find_one({"_id": back.id})

    async def all_done_by(self, runs: Any, version: str, count: int, without: tuple[str, ...] = ()) -> None:
        found = [run async for run in runs.find({"workflow": "parking", "_id": {"$nin": list(without)}})]
        assert len(found) == count - len(without)
        for run in found:
            assert run["status"] == "done", run["_id"]
            assert run["output"]["after"] == version, run["_id"]

    async def test_a_version_that_nobody_serves_is_told_of(
        self, make_app: Any, clock: MovableClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with make_app(steps_of("a"), worker=False, clock=clock) as app:
            await app.start("flow")
        async with make_app(steps_of("a", version="2.0.0"), clock=clock) as app:
            told: list[Any] = []
            app.on("version.*", told.append)
            clock.move(seconds=6)
            presence = app._open_session.worker.presence
            for _ in range(2):
                await presence.watch()
            assert caplog.text.count("1 runs of flow@1.0.0 are due, and no living worker serves that version") == 1
            assert [event.data for event in told] in ([], [{"workflow": "flow", "version": "1.0.0", "runs": 1}])
            stats = await app.stats()
            assert (stats.unserved, stats.statuses) == ({"flow@1.0.0": 1}, {"draft": 1})
            async with make_app(steps_of("a"), clock=clock):
                await eventually_empty(app)

    async def test_app_versions_says_which_code_is_still_needed(self, make_app: Any) -> None:
        one, two = steps_of("a"), steps_of("a", "b", version="2.0.0")
        async with make_app(one, worker=False) as app:
            handle = await app.start(one, delay="1h")
        async with make_app(two) as app:
            await app.run(two, timeout="20s")
            await eventually(lambda: is_present(app))
            first_, second = await app.versions()
            assert (first_.version, first_.live, first_.served, first_.steps) == ("1.0.0", 1, False, ("a",))
            assert (second.version, second.live, second.served, second.steps) == ("2.0.0", 0, True, ("a", "b"))
            assert first_.first_seen_at <= second.first_seen_at
            await app.cancel(handle.id)
            assert [info.live for info in await app.versions()] == [0, 0]
        async with make_app(worker=False) as app:
            assert [info.served for info in await app.versions()] == [False, False]


async def is_present(app: Any) -> bool:
    return bool(await app.database["streamline.workers"].count_documents({}))


async def eventually_empty(app: Any) -> None:
    async def look() -> bool:
        return not (await app.stats()).unserved

    await eventually(look)


class TestMigrating:
    async def test_runs_parked_in_every_kind_of_wait_go_on_under_the_new_version(
        self, make_app: Any, runs: Any, clock: MovableClock
    ) -> None:
        parking = Parking()
        kinds = (*Parking.ANSWERED, *Parking.TIMED, *Parking.KIN)
        async with make_app(parking.version("1.0.0"), parking.child, worker=False, clock=clock) as app:
            for kind in kinds:
                await app.start("parking", kind, run_id=kind, delay="30m" if kind == "start" else None)
            while await app.tick():
                pass
            children = [run.id for run in (await app.runs("kin")).items]
            assert len(children) == 3
        newer = parking.version("2.0.0")
        newer.migrate("1.0.0")(lambda run: None)
        async with make_app(newer, parking.child, worker=False, clock=clock) as app:
            while await app.tick():
                pass
            assert {run["version"] async for run in runs.find({"workflow": "parking"})} == {"2.0.0"}
            for kind in ("wait", "loop", "each"):
                await app.resume(kind, 1)
            assert await app.send_event("go") == 1
            await app.resume_hook(parking.tokens[0])
            await app.approve("approval")
            await app.answer("question", 1)
            for child in children:
                await app.resume(child, 1)
            for _ in range(3):
                while await app.tick():
                    pass
                clock.move(hours=1)
            for kind in kinds:
                run = await app.get(kind)
                assert run.status == "done", (kind, run.error)
                settled = "2.0.0" if kind == "start" else "1.0.0"
                assert run.output == {"before": settled, "park": "2.0.0", "after": "2.0.0"}, kind
            assert {(await app.get(kind)).rev > 0 for kind in kinds} == {True}
            carried = [event async for event in app.handle("wait").events() if event.type == "run.migrated"]
            assert len(carried) == 1

    async def test_several_carry_a_run_over_once(self, make_app: Any, runs: Any) -> None:
        asked: list[str] = []

        def newer() -> Workflow[Any, Any, Any]:
            wf = steps_of("a", "b", version="2.0.0")
            wf.migrate("1.0.0")(lambda run: asked.append(run.id))
            return wf

        old = steps_of("a")
        async with make_app(old, worker=False) as app:
            ids = [(await app.start(old, run_at=app._clock.now().replace(year=2090))).id for _ in range(20)]
        apps = [make_app(newer(), worker=False) for _ in range(4)]
        for app in apps:
            await app.__aenter__()
        try:
            await asyncio.gather(*(app.tick() for app in apps))
        finally:
            for app in apps:
                await app.__aexit__(None, None, None)
        assert set(asked) == set(ids)
        for run in [run async for run in runs.find()]:
            assert run["version"] == "2.0.0"
            assert [event["type"] for event in run["events"]].count("run.migrated") == 1

    async def test_a_migration_says_what_a_run_takes_along(self, make_app: Any) -> None:
        old: Workflow[Any, Any, Any] = Workflow("order", input=dict[str, int], state=dict[str, int])
        new: Workflow[Any, Any, Any] = Workflow(
            "order", version="2.0.0", input=dict[str, str], state=dict[str, str], concurrency=Concurrency(5)
        )

        @old.step
        async def charge(ctx: Context[Any, Any]) -> Any:
            ctx.state["paid"] = 1
            await ctx.save()
            await ctx.wait("go")

        @new.step
        async def pay(ctx: Context[Any, Any]) -> Any:
            return [ctx.input, ctx.state, await ctx.wait("go")]

        @new.migrate("1.0.0")
        async def carry(run: Any) -> Migration:
            return Migration(
                steps={"charge": "pay"},
                input={"n": str(run.input["n"])},
                state={name: str(value) for name, value in run.state.items()},
            )

        async with make_app(old, worker=False) as app:
            handle = await app.start(old, {"n": 7})
            await app.start(old, {"n": 8}, run_id="never")
            await app.tick()
        async with make_app(new) as app:
            handle = app.handle(handle.id)

            async def is_over() -> bool:
                return (await handle.get()).version == "2.0.0"

            await eventually(is_over)
            await handle.resume("answer")
            assert await handle.result("20s") == [{"n": "7"}, {"paid": "1"}, "answer"]

    async def test_a_run_that_does_not_fit_is_left_and_told_of(
        self, make_app: Any, runs: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        old = steps_of("a")
        async with make_app(old, worker=False) as app:
            for run_id in ("raises", "nonsense", "unknown", "fits"):
                await app.start(old, run_id=run_id, delay="1h")
        before = {run["_id"]: run async for run in runs.find()}
        new = steps_of("a", version="2.0.0")

        @new.migrate("1.0.0")
        def carry(run: Any) -> Any:
            if run.id == "raises":
                raise ValueError("no")
            return {"nonsense": 7, "unknown": Migration(step="gone"), "fits": None}[run.id]

        with caplog.at_level(logging.ERROR):
            async with make_app(new, worker=False) as app:
                await app.tick()
        after = {run["_id"]: run async for run in runs.find()}
        assert after["fits"]["version"] == "2.0.0"
        for run_id in ("raises", "nonsense", "unknown"):
            assert after[run_id] == before[run_id]
            assert f"run {run_id} is not carried over to flow@2.0.0" in caplog.text

    async def test_a_run_that_is_driven_is_carried_over_once_it_parks(self, make_app: Any) -> None:
        entered, go_on = asyncio.Event(), asyncio.Event()
        old: Workflow[Any, Any, Any] = Workflow("busy")

        @old.step
        async def work(ctx: Context[Any]) -> Any:
            entered.set()
            await go_on.wait()
            return ctx.version

        @old.step
        async def rest(ctx: Context[Any]) -> Any:
            await ctx.wait("go")
            return ctx.version

        new: Workflow[Any, Any, Any] = Workflow("busy", version="2.0.0")

        @new.step(id="work")
        async def work_again(ctx: Context[Any]) -> Any:
            raise AssertionError("it was done")

        @new.step(id="rest")
        async def rest_again(ctx: Context[Any]) -> Any:
            await ctx.wait("go")
            return [ctx.outputs["work"], ctx.version]

        new.migrate("1.0.0")(lambda run: None)
        async with make_app(old) as older, make_app(new, worker=False) as newer:
            handle = await older.start(old)
            await asyncio.wait_for(entered.wait(), 20)
            await newer.tick()
            assert (await handle.get()).version == "1.0.0"
            go_on.set()
            await status_of(handle, "waiting")
            await newer.tick()
            assert (await handle.get()).version == "2.0.0"
            await older.resume(handle.id)
            await newer.tick()
            assert await handle.result("20s") == ["1.0.0", "2.0.0"]


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()
