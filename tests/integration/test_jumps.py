"""``ctx.goto``: on at another step, forwards or backwards, any number of turns up to a limit."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streamline import Context, NonRetriableError, Settings, Workflow
from streamline.errors import StepOutputMissing
from tests.clocks import MovableClock
from tests.waiting import eventually, status_of


def circle(turns: int, log: list[str], **options: Any) -> Workflow[Any, dict[str, Any], Any]:
    """Three steps that are gone through so many times."""
    wf: Workflow[Any, dict[str, Any], Any] = Workflow("circle", state=dict, **options)

    @wf.step
    async def first(ctx: Context[Any, dict[str, Any]]) -> int:
        log.append("first")
        ctx.state["turn"] = ctx.state.get("turn", 0) + 1
        return int(ctx.state["turn"])

    @wf.step
    async def second(ctx: Context[Any, dict[str, Any]]) -> int:
        log.append("second")
        return ctx.output(first) * 10

    @wf.step
    async def third(ctx: Context[Any, dict[str, Any]]) -> list[int]:
        log.append("third")
        if ctx.state["turn"] < turns:
            ctx.goto(first)
        return [ctx.output(first), ctx.output(second)]

    return wf


async def test_a_jump_back_does_the_steps_in_between_again(make_app: Any) -> None:
    log: list[str] = []
    async with make_app(wf := circle(3, log)) as app:
        handle = await app.start(wf)
        assert await handle.result("20s") == [3, 30]
        run = await handle.get()
        events = [event async for event in handle.events()]
    assert log == ["first", "second", "third"] * 3
    assert [step.status for step in run.steps] == ["done"] * 3
    assert run.state == {"turn": 3}
    assert [event.data["to"] for event in events if event.type == "step.jumped"] == ["first", "first"]
    assert [event.seq for event in events] == sorted(event.seq for event in events)


async def test_many_turns_are_gone_through_without_growing_the_run(make_app: Any, runs: Any) -> None:
    async def size_after(turns: int) -> int:
        log: list[str] = []
        wf = circle(turns, log, version=f"{turns}.0.0")
        async with make_app(wf) as app:
            handle = await app.start(wf)
            assert await handle.result("30s") == [turns, turns * 10]
            assert len(log) == 3 * turns
            stored = await runs.find_one({"_id": handle.id})
        return len(str({name: value for name, value in stored.items() if name != "events"}))

    assert await size_after(200) < await size_after(20) + 200


async def test_a_jump_forward_skips_what_is_in_between(make_app: Any) -> None:
    log: list[str] = []
    wf: Workflow[Any, Any, Any] = Workflow("w")

    @wf.step
    async def first(ctx: Context[Any]) -> str:
        log.append("first")
        ctx.goto("third")

    @wf.step
    async def second(ctx: Context[Any]) -> None:
        log.append("second")

    @wf.step
    async def third(ctx: Context[Any]) -> list[Any]:
        log.append("third")
        missing = []
        for step in (first, second):
            try:
                missing.append(ctx.output(step))
            except StepOutputMissing:
                missing.append("missing")
        return [*missing, ctx.outputs.get("first")]

    async with make_app(wf) as app:
        handle = await app.start(wf)
        assert await handle.result("5s") == ["missing", "missing", None]
        run = await handle.get()
    assert log == ["first", "third"]
    assert run.step("second").status == "skipped"


async def test_a_step_that_was_skipped_by_a_jump_is_done_after_a_jump_back(make_app: Any) -> None:
    log: list[str] = []
    wf: Workflow[Any, Any, Any] = Workflow("w")

    @wf.step
    async def first(ctx: Context[Any]) -> str:
        log.append("first")
        if log == ["first"]:
            ctx.goto("third")
        return "1"

    @wf.step
    async def second(ctx: Context[Any]) -> str:
        log.append("second")
        return "2"

    @wf.step
    async def third(ctx: Context[Any]) -> str:
        log.append("third")
        if "second" not in log:
            ctx.goto(first)
        return ctx.output(first) + ctx.output(second)

    async with make_app(wf) as app:
        assert await app.run(wf, timeout="20s") == "12"
    assert log == ["first", "third", "first", "second", "third"]


async def test_a_step_can_jump_to_itself_and_begins_anew(make_app: Any) -> None:
    log: list[Any] = []
    wf: Workflow[Any, Any, Any] = Workflow("w")

    @wf.step
    async def again(ctx: Context[Any]) -> int:
        value = await ctx.call("count", lambda: len(log))
        log.append((value, ctx.attempt))
        if len(log) < 3:
            ctx.goto(again)
        return value

    async with make_app(wf) as app:
        assert await app.run(wf, timeout="20s") == 2
    assert log == [(0, 1), (1, 1), (2, 1)]


async def test_three_turns_of_a_code_over_done_steps(make_app: Any) -> None:
    """Send a code, ask for it, check it; a wrong one sends a new code."""
    sent: list[int] = []
    wf: Workflow[Any, Any, Any] = Workflow("login")

    @wf.step
    async def send(ctx: Context[Any]) -> int:
        return int(await ctx.call("send", lambda: sent.append(len(sent)) or sent[-1]))

    @wf.step
    async def ask(ctx: Context[Any]) -> int:
        return int(await ctx.wait("code"))

    @wf.step
    async def check(ctx: Context[Any]) -> str:
        if ctx.output(ask) != 99:
            ctx.goto(send)
        return f"in after {ctx.output(send) + 1}"

    async with make_app(wf) as app:
        handle = await app.start(wf)
        for turn, code in enumerate((1, 2, 99), 1):
            await eventually(lambda turn=turn: len(sent) == turn)
            await eventually(app.pending_waits)
            await handle.resume(code)
        assert await handle.result("20s") == "in after 3"
    assert sent == [0, 1, 2]


async def test_a_limit_ends_a_circle_that_nobody_meant(make_app: Any) -> None:
    log: list[str] = []
    async with make_app(wf := circle(10**9, log), settings=Settings(max_jumps=5)) as app:
        handle = await app.start(wf)
        run = await handle.wait("20s")
        assert run.status == "failed"
        assert (run.error.type, run.error.step) == ("IllegalTransition", "third")
        assert "5 times" in run.error.message
        assert log.count("third") == 6
        await handle.rewind("first")
        assert (await handle.wait("20s")).status == "failed"
    assert log.count("third") == 12, "an operator who rewinds a run means it to go on"


@pytest.mark.parametrize("to", ["nowhere", ""])
async def test_a_jump_to_a_step_that_is_not_there_fails_for_good(make_app: Any, to: str) -> None:
    entered: list[int] = []
    wf: Workflow[Any, Any, Any] = Workflow("w")

    @wf.step
    async def jumps(ctx: Context[Any]) -> None:
        entered.append(ctx.attempt)
        ctx.goto(to)

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert (run.status, run.error.code) == ("failed", "step.not_found")
    assert entered == [1]


async def test_a_jump_is_not_swallowed_by_except_exception(make_app: Any) -> None:
    log: list[str] = []
    wf: Workflow[Any, Any, Any] = Workflow("w")

    @wf.step
    async def jumps(ctx: Context[Any]) -> None:
        try:
            ctx.goto("last")
        except Exception:  # noqa: BLE001 - what a handler may well do
            log.append("swallowed")

    @wf.step
    async def between(ctx: Context[Any]) -> None:
        log.append("between")

    @wf.step
    def last(ctx: Context[Any]) -> str:
        return "last"

    async with make_app(wf) as app:
        assert await app.run(wf, timeout="20s") == "last"
    assert log == []


async def test_a_plain_handler_can_jump(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("w")

    @wf.step
    def jumps(ctx: Context[Any]) -> None:
        ctx.goto("last")

    @wf.step
    def between(ctx: Context[Any]) -> None:
        raise NonRetriableError

    @wf.step
    def last(ctx: Context[Any]) -> str:
        return "last"

    async with make_app(wf) as app:
        assert await app.run(wf, timeout="20s") == "last"


async def test_a_jump_keeps_what_the_handler_did_to_the_state(make_app: Any) -> None:
    wf: Workflow[Any, dict[str, Any], Any] = Workflow("w", state=dict)

    @wf.step
    async def count(ctx: Context[Any, dict[str, Any]]) -> int:
        ctx.state["n"] = ctx.state.get("n", 0) + 1
        if ctx.state["n"] < 4:
            ctx.goto(count)
        return int(ctx.state["n"])

    async with make_app(wf) as app:
        assert await app.run(wf, timeout="20s") == 4


async def test_a_paused_run_jumps_once_and_goes_on_when_unpaused(make_app: Any, runs: Any) -> None:
    log: list[str] = []
    wf: Workflow[Any, Any, Any] = Workflow("w")

    @wf.step
    async def first(ctx: Context[Any]) -> None:
        log.append("first")

    @wf.step
    async def second(ctx: Context[Any]) -> str:
        log.append("second")
        if log.count("second") == 1:
            await ctx.wait("go")
        if log.count("first") == 1:
            ctx.goto(first)
        return "done"

    async with make_app(wf) as app:
        handle = await app.start(wf)
        await status_of(handle, "waiting")
        await handle.pause()
        await handle.resume(None)
        assert await handle.status() == "waiting"
        await handle.unpause()
        assert await handle.result("20s") == "done"
    assert log == ["first", "second", "second", "first", "second"]


async def test_a_death_after_a_jump_goes_on_where_it_led(make_app: Any, runs: Any) -> None:
    log: list[str] = []
    wf, clock = circle(2, log), MovableClock()
    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        at = clock.now() - timedelta(hours=1)
        lost = {
            "status": "running",
            "attempt": 1,
            "lease": {"worker": "dead", "token": "dead", "at": at, "until": at},
            "state": {"turn": 1},
            "jumps": 1,
            "steps.0": {"id": "first", "status": "running", "generation": 1},
            "steps.1": {"id": "second", "status": "pending", "generation": 1},
            "steps.2": {"id": "third", "status": "pending", "generation": 1},
        }
        await runs.update_one({"_id": handle.id}, {"$set": lost, "$unset": {"due_at": ""}, "$inc": {"rev": 1}})
        await app.tick()
        assert await handle.result("5s") == [2, 20]
    assert log == ["first", "second", "third"]
