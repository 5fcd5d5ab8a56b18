"""Answers, timeouts, cancellations and holds that meet: whatever the order, and whoever dies, exactly one wins.

The interleavings are driven, not hoped for: one party is stopped right before or right after one of its writes reaches
the database, and the other acts in between. Each has an app of its own; the one that ends waits by time has a clock
that is ahead, so that both are right in what they do.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from itertools import product
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from streamline import Context, Streamline, Worker, Workflow
from streamline.errors import AlreadyFinished, HookNotFound, NotWaiting
from tests.clocks import MovableClock
from tests.stress.saboteur import Saboteur, kind_of
from tests.waiting import eventually

REFUSALS = (NotWaiting, HookNotFound)
KINDS = ("wait", "hook", "approval", "approval by token", "question")
WRITES_OF_A_TICK = 3  # claim, close, end


class Asking:
    """A workflow that waits for an answer of one kind, and what its handlers got."""

    def __init__(self, kind: str = "wait", timeout: Any = "1h") -> None:
        self.kind, self.timeout = kind, timeout
        self.got: list[Any] = []
        self.tokens: dict[str, str] = {}
        self.workflow: Workflow[Any, Any, Any] = Workflow("asking")

        @self.workflow.step(max_attempts=1)
        async def work(ctx: Context[Any]) -> Any:
            self.got.append(await self._ask(ctx))
            return self.got[-1]

    async def _ask(self, ctx: Context[Any]) -> Any:
        def keep(token: str) -> None:
            self.tokens[ctx.run_id] = token

        if self.kind == "wait":
            return await ctx.wait("it", timeout=self.timeout, default="nobody")
        if self.kind == "hook":
            hook = await ctx.create_hook("it", expires=self.timeout)
            keep(hook.token)
            return await hook.wait(default="nobody")
        if self.kind.startswith("approval"):
            return (await ctx.approve("it", timeout=self.timeout, on_token=keep)).data or "nobody"
        return (await ctx.ask("it", timeout=self.timeout)).data or "nobody"

    async def answer(self, app: Streamline, run_id: str, value: str) -> bool:
        """Answer, and return whether that was the answer that counts."""
        whom = self.tokens[run_id] if self.kind in ("hook", "approval by token") else run_id
        verbs: dict[str, Callable[..., Awaitable[Any]]] = {"wait": app.resume, "hook": app.resume_hook}
        verb = verbs.get(self.kind, app.answer if self.kind == "question" else app.approve)
        try:
            await verb(whom, value)
        except REFUSALS:
            return False
        return True


class Scene:
    """A parked run, and everybody who has something to do with it."""

    def __init__(self, make_app: Any, asking: Asking) -> None:
        self.asking, self.late = asking, MovableClock()
        self.apps = [make_app(asking.workflow, worker=False) for _ in range(3)]
        self.timing: Streamline = make_app(asking.workflow, worker=False, clock=self.late)
        self.run_id = ""
        self.won: list[str] = []

    async def __aenter__(self) -> Scene:
        for app in (*self.apps, self.timing):
            await app.__aenter__()
        handle = await self.apps[0].start(self.asking.workflow)
        await self.apps[0].tick()
        assert await handle.status() == "waiting"
        self.run_id = handle.id
        self.late.move(hours=2)
        return self

    async def __aexit__(self, *error: Any) -> None:
        for app in (*self.apps, self.timing):
            await app.__aexit__(None, None, None)

    def app_of(self, deed: str) -> Streamline:
        return {"answer": self.apps[0], "other answer": self.apps[1], "timeout": self.timing}.get(deed, self.apps[2])

    async def do(self, deed: str) -> None:
        app = self.app_of(deed)
        if deed in ("answer", "other answer"):
            if await self.asking.answer(app, self.run_id, deed):
                self.won.append(deed)
        elif deed == "timeout":
            await app.tick()
        elif deed == "cancel":
            await app.cancel(self.run_id)
        else:
            await quietly(app.pause, self.run_id)

    async def settle(self) -> Any:
        """Let the run go on to its end, if it has one, and return it."""
        run = await self.timing.get(self.run_id)
        if run.paused:
            await self.timing.unpause(self.run_id)
        for _ in range(4):
            await self.timing.tick()
        return await self.timing.get(self.run_id)


async def check(scene: Scene, runs: Any, deeds: tuple[str, ...]) -> None:
    run = await scene.settle()
    events = [event["type"] for event in (await runs.find_one({"_id": run.id}))["events"]]
    assert len(scene.won) <= 1
    assert events.count("wait.answered") == len(scene.won)
    assert events.count("run.done") + events.count("run.cancelled") == 1
    assert set(scene.asking.got) <= {(scene.won or ["nobody"])[0]}, "the handler saw something that did not win"
    if run.status == "cancelled":
        assert "cancel" in deeds
        assert run.output is None
    else:
        assert run.status == "done"
        assert run.output == (scene.won or ["nobody"])[0]
        assert "timeout" in deeds or scene.won or "answer" not in deeds
    before = await runs.find_one({"_id": run.id})
    assert not await scene.asking.answer(scene.apps[0], run.id, "after the end")
    assert await runs.find_one({"_id": run.id}) == before


DEEDS = ("answer", "other answer", "timeout", "cancel", "pause")
PAIRS = [pair for pair in product(DEEDS, DEEDS) if pair[0] != pair[1]]


@pytest.mark.parametrize("moment", ["before", "applied"])
@pytest.mark.parametrize(("first", "second"), PAIRS, ids=lambda deed: deed.replace(" ", "-"))
async def test_of_two_that_meet_at_any_write_of_the_first_one_wins(
    make_app: Any, runs: Any, first: str, second: str, moment: str
) -> None:
    for at in range(1, (WRITES_OF_A_TICK if first == "timeout" else 1) + 1):
        async with Scene(make_app, Asking()) as scene:
            saboteur = Saboteur(scene.app_of(first), moment, at, lambda: scene.do(second))
            await scene.do(first)
            assert saboteur.done, f"{first} has no write number {at}"
            saboteur._at = 0
            await check(scene, runs, (first, second))


@pytest.mark.parametrize("moment", ["before", "applied"])
@pytest.mark.parametrize("order", ["answer first", "timeout first"])
@pytest.mark.parametrize("kind", KINDS)
async def test_answer_and_timeout_of_every_kind_agree_on_who_was_first(
    make_app: Any, runs: Any, kind: str, order: str, moment: str
) -> None:
    first, second = ("answer", "timeout") if order == "answer first" else ("timeout", "answer")
    for at in range(1, (WRITES_OF_A_TICK if first == "timeout" else 1) + 1):
        async with Scene(make_app, Asking(kind)) as scene:
            saboteur = Saboteur(scene.app_of(first), moment, at, lambda: scene.do(second))
            await scene.do(first)
            assert saboteur.done
            saboteur._at = 0
            await check(scene, runs, (first, second))
            # Whoever's write was there first has won.
            closing = 2
            early = (moment == "before") if at == closing else at < closing
            expected = early if first == "timeout" else moment == "applied"
            assert bool(scene.won) is expected


@pytest.mark.parametrize("third", ["cancel", "pause", "other answer"])
@pytest.mark.parametrize("moment", ["before", "applied"])
async def test_three_that_meet_leave_one_winner(make_app: Any, runs: Any, moment: str, third: str) -> None:
    for at in range(1, WRITES_OF_A_TICK + 1):
        async with Scene(make_app, Asking()) as scene:
            inner = Saboteur(scene.app_of("answer"), moment, 1, lambda: scene.do(third))
            outer = Saboteur(scene.timing, moment, at, lambda: scene.do("answer"))
            await scene.do("timeout")
            assert outer.done
            inner._at = outer._at = 0
            await check(scene, runs, ("timeout", "answer", third))


@pytest.mark.parametrize("moment", ["before", "applied"])
@pytest.mark.parametrize("at", range(1, WRITES_OF_A_TICK + 1))
async def test_an_event_that_meets_a_timeout_is_taken_now_or_later_and_once(
    make_app: Any, moment: str, at: int
) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("events")

    @wf.step
    async def work(ctx: Context[Any]) -> list[Any]:
        first = await ctx.wait_for("e", timeout="1h", default="nobody")
        return [first, await ctx.wait_for("e")]

    clock = MovableClock()
    async with make_app(wf, worker=False, clock=clock) as app, make_app(worker=False) as other:
        handle = await app.start(wf)
        await app.tick()
        clock.move(hours=2)
        saboteur = Saboteur(app, moment, at, lambda: other.send_event("e", "sent", run_id=handle.id))
        await app.tick()
        assert saboteur.done
        saboteur._at = 0
        await app.tick()
        if await handle.status() == "waiting":
            await app.send_event("e", "second", run_id=handle.id)
            await app.tick()
        output = await handle.result("5s")
    assert output in (["sent", "second"], ["nobody", "sent"])


@pytest.mark.parametrize("moment", ["before", "applied"])
async def test_an_answer_that_meets_the_parking_of_its_own_wait_is_refused_or_kept(make_app: Any, moment: str) -> None:
    asking = Asking("hook")
    async with make_app(asking.workflow, worker=False) as app, make_app(worker=False) as other:
        handle = await app.start(asking.workflow)
        for_parking = 3  # claim, hook, park
        saboteur = Saboteur(app, moment, for_parking, lambda: asking.answer(other, handle.id, "meanwhile"))
        await app.tick()
        assert saboteur.done
        saboteur._at = 0
        await app.tick()
        assert await handle.result("5s") == "meanwhile"


class Unclear:
    """Loses the connection at the first write to runs: before the write, or before its answer."""

    def __init__(self, app: Streamline, moment: str, meanwhile: Callable[[], Awaitable[Any]] | None = None) -> None:
        self._driver = app._open_session.runtime.store.driver
        self._send, self._moment, self._meanwhile = self._driver.command, moment, meanwhile
        self.lost = False
        self._driver.command = self._command  # type: ignore[method-assign]

    async def _command(self, command: Any) -> Any:
        if self.lost or kind_of(command, self._driver.runs) is None:
            return await self._send(command)
        self.lost = True
        if self._moment == "unacknowledged":
            await self._send(command)
        if self._meanwhile is not None:
            await self._meanwhile()
        raise AutoReconnect("connection closed")


@pytest.mark.parametrize("meanwhile", [None, "the run ends", "another answers"])
@pytest.mark.parametrize("moment", ["not sent", "unacknowledged"])
@pytest.mark.parametrize("kind", KINDS)
async def test_an_answer_whose_write_is_unclear_is_reported_as_what_became_of_it(
    make_app: Any, runs: Any, kind: str, moment: str, meanwhile: str | None
) -> None:
    asking = Asking(kind)
    async with Scene(make_app, asking) as scene:
        answering, other, _ = scene.apps

        async def act() -> None:
            if meanwhile == "the run ends":
                await other.tick()
            elif await asking.answer(other, scene.run_id, "other answer"):
                scene.won.append("other answer")

        unclear = Unclear(answering, moment, act if meanwhile else None)
        await scene.do("answer")
        assert unclear.lost
        beaten = moment == "not sent" and meanwhile == "another answers"
        assert scene.won == (["other answer"] if beaten else ["answer"])
        await check(scene, runs, ("answer", "other answer"))


@pytest.mark.parametrize("moment", ["not sent", "unacknowledged"])
async def test_an_event_whose_write_is_unclear_arrives_once(make_app: Any, moment: str) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("events")

    @wf.step
    async def work(ctx: Context[Any]) -> list[Any]:
        return [await ctx.wait_for("e", timeout="1h", default="nobody", key=str(i)) for i in range(3)]

    clock = MovableClock()
    async with make_app(wf, worker=False, clock=clock) as app, make_app(worker=False) as sending:
        handle = await app.start(wf)
        Unclear(sending, moment)
        assert await sending.send_event("e", 1, run_id=handle.id) == 1
        await app.tick()
        Unclear(sending, moment)
        assert await sending.send_event("e", 2, run_id=handle.id) == 1
        await app.tick()
        clock.move(hours=2)
        await app.tick()
        assert await handle.result("5s") == [1, 2, "nobody"]


@pytest.mark.parametrize("churn", ["answers", "cancel", "pause", "timeout"])
async def test_of_twenty_callers_from_three_apps_one_wins(make_app: Any, runs: Any, churn: str) -> None:
    asking, apart = Asking(timeout=0.06 if churn == "timeout" else None), 0.005 if churn == "timeout" else 0.0
    apps = [make_app(asking.workflow, worker=Worker(poll_interval="100ms")), *(make_app(worker=False) for _ in "bc")]
    async with apps[0] as app, apps[1] as b, apps[2] as c:
        for _ in range(4):
            asking.got.clear()
            handle = await app.start(asking.workflow)
            await eventually(lambda: app.pending_waits("wait"), every=0.002)  # as the callers will read it
            others = {"cancel": [b.cancel, c.cancel], "pause": [b.pause, c.unpause, b.pause]}.get(churn, [])
            calls = [late_by(i * apart, asking, apps[i % 3], handle.id, i) for i in range(20)]
            said = await asyncio.gather(*calls, *(quietly(verb, handle.id) for verb in others))
            won = [i for i, ok in enumerate(said[:20]) if ok]
            if churn == "pause":
                await quietly(app.unpause, handle.id)
            run = await handle.wait("20s")
            events = [event["type"] for event in (await runs.find_one({"_id": run.id}))["events"]]
            assert events.count("wait.answered") == len(won) <= 1
            assert won or churn in ("cancel", "timeout")
            if run.status == "done":
                assert run.output == (f"a{won[0]}" if won else "nobody")
                assert asking.got == [run.output]
            else:
                assert (churn, run.status) == ("cancel", "cancelled")


async def quietly(verb: Callable[[str], Awaitable[Any]], run_id: str) -> None:
    with contextlib.suppress(AlreadyFinished):
        await verb(run_id)


async def late_by(seconds: float, asking: Asking, app: Streamline, run_id: str, i: int) -> bool:
    await asyncio.sleep(seconds)
    return await asking.answer(app, run_id, f"a{i}")
